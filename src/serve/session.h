// Session: one generating request between the engine and its client. It submits a sequence per
// choice, is woken by their token streams, hands the tokens to the endpoint's own class and ends
// the answer. Everything runs on the exchange's executor; the engine thread only posts to it.
//
// A resumable session writes to an EventLog instead of its client, and lives on without one for
// ServiceOptions::resume_ms.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/response_types.h"
#include "api/sampling_fields.h"
#include "engine/engine.h"
#include "engine/token_stream.h"
#include "serve/call.h"
#include "serve/event_log.h"

namespace strata::serve {

// What a token did to its choice.
enum class Verdict {
  kMore,
  kEnded,   // by itself: a stop string, the end of its final message
  kForced,  // the tokens of forced_tokens() are to follow, whatever the model would say
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  virtual ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  struct Submission {
    std::vector<EngineRequest> requests;  // one per choice, in order
    std::size_t choices_per_prompt = 1;   // each run of these shares one prompt, counted once
    bool limited_by_context = false;      // max_new_tokens is what the context had left
  };
  // Submits all and answers from then on. A refusal of any is the whole request's.
  void start(Submission submission);

  // ---- Any thread.
  // Runs `task` on the session's executor.
  void post(std::function<void()> task) { call_->exchange().post(std::move(task)); }

  // ---- On its executor.
  // Ends the reasoning of every choice; false when none reasons or may begin to.
  virtual bool answer_now() { return false; }
  // The client asked for the end.
  void cancel();
  // The server ends before the answer does.
  void shut_down();

 protected:
  Session(std::shared_ptr<Call> call, std::string id, const api::StreamFields& stream);

  // ---- The endpoint's part; `choice` counts in the order of start().
  virtual Verdict on_token(std::size_t choice, const TokenOutput& output) = 0;
  virtual std::vector<TokenId> forced_tokens() const { return {}; }
  virtual void on_prompt_logprobs(std::size_t choice, std::vector<PromptLogprob> logprobs) = 0;
  // No more tokens of the choice will come. `ended`: the sequence's end, or one of kind kStop when
  // on_token() ended it.
  virtual void on_end(std::size_t choice, const SequenceEnd& ended) = 0;
  // Events that open the stream.
  virtual void write_opening(std::string& events) = 0;
  // Events of what came since the last call.
  virtual void write_events(std::string& events) = 0;
  // Events that close the stream, without the end mark.
  virtual void write_closing(std::string& events) = 0;
  virtual std::string whole_answer() = 0;
  virtual std::int64_t reasoning_tokens(std::size_t choice) const = 0;
  // More than reasoning has come.
  virtual bool answering(std::size_t choice) const = 0;

  // ---- For the endpoint. Exact once every choice has ended.
  api::Usage usage() const;
  api::Timings timings() const;
  // Prompt and answer so far of a choice.
  const EngineRequest& request_of(std::size_t choice) const { return lines_[choice].request; }
  const std::vector<TokenId>& tokens_of(std::size_t choice) const { return lines_[choice].tokens; }
  Context& context() const { return call_->context(); }
  Call& call() const { return *call_; }

 private:
  struct Line {  // of one choice
    std::shared_ptr<TokenStream> stream;
    SeqId id = 0;
    SeqId first_id = 0;  // of its first sequence: a forced one continues it
    EngineRequest request;
    bool new_prompt = true;       // false: shares its prompt with the line before
    std::vector<TokenId> tokens;  // that counted: up to the end of the choice
    bool ended_itself = false;
    bool forced = false;  // the sequence was ended to go on behind forced tokens
    bool ended = false;
    Nanos last_token = 0;
    std::optional<SequenceEnd> first_end;  // of the first sequence, when a forced one continues it
    SequenceEnd end;
    std::int32_t queue_position = -1;
    std::int32_t prefilled = -1;
  };

  bool begin_line(EngineRequest request, bool new_prompt);
  Result<void> submit(Line& line, std::vector<TokenId> prompt);
  void make_resumable();
  void drain();
  void drain_line(std::size_t choice);
  void take_tokens(std::size_t choice, const std::vector<TokenOutput>& tokens);
  void take_progress(Line& line, const TokenStream::Batch& batch, std::string& comments) const;
  void end_line(std::size_t choice, SequenceEnd end);
  void go_on_forced(std::size_t choice, const SequenceEnd& end);
  void ensure_events();
  void write(std::string events);
  void write_comment(std::string text);
  void close_events();
  bool has_reader() const { return !log_ || log_->has_reader(); }
  void keep_alive();
  bool is_abandoned() const;
  void set_done();
  void count_prompt(const Line& line) const;
  void finish();
  void fail(const Error& error);
  void client_gone();
  void give_up(std::string_view what);
  void abort_all();
  void record(std::string_view reason);
  void warn_of_length() const;

  std::shared_ptr<Call> call_;
  const std::string id_;  // of the answer
  const api::StreamFields stream_;
  std::vector<Line> lines_;
  bool limited_by_context_ = false;
  std::shared_ptr<EventLog> log_;  // resumable only
  std::string comments_;           // progress, not yet written
  bool events_begun_ = false;
  bool wrote_since_tick_ = false;
  bool done_ = false;
  Nanos first_answer_ = 0;
};

}  // namespace strata::serve
