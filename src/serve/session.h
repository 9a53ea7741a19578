// Session: one generating request between the engine and its client. It submits a sequence per
// choice, is woken by their token streams, hands the tokens to the endpoint's own class and ends
// the answer. Everything runs on the exchange's executor; the engine thread only posts to it.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "api/response_types.h"
#include "engine/engine.h"
#include "engine/token_stream.h"
#include "serve/call.h"

namespace strata::serve {

class Session : public std::enable_shared_from_this<Session> {
 public:
  virtual ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Submits one sequence per choice, in order, and answers from then on. A refusal of any is the
  // whole request's. Each run of `choices_per_prompt` shares one prompt, counted once.
  void start(std::vector<EngineRequest> requests, std::size_t choices_per_prompt);

 protected:
  // `streams`: answer with server-sent events.
  Session(std::shared_ptr<Call> call, bool streams);

  // ---- The endpoint's part; `choice` counts in the order of start().
  // True: the choice ended by itself (a stop string, the end of its final message).
  virtual bool on_token(std::size_t choice, const TokenOutput& output) = 0;
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

  // ---- For the endpoint. Exact once every choice has ended.
  api::Usage usage() const;
  api::Timings timings() const;
  Context& context() const { return call_->context(); }
  Call& call() const { return *call_; }

 private:
  struct Line {  // of one choice
    std::shared_ptr<TokenStream> stream;
    SeqId id = 0;
    bool new_prompt = true;  // false: shares its prompt with the line before
    std::int64_t prompt_tokens = 0;
    std::int64_t max_tokens = 0;
    std::int64_t tokens = 0;  // that counted: up to the end of the choice
    bool ended_itself = false;
    bool ended = false;
    Nanos last_token = 0;
    SequenceEnd end;
  };

  void schedule();
  void drain();
  void drain_line(std::size_t choice);
  void take_tokens(std::size_t choice, const std::vector<TokenOutput>& tokens);
  void end_line(std::size_t choice, SequenceEnd end);
  void ensure_events();
  void keep_alive();
  void finish();
  void fail(const Error& error);
  void client_gone();
  void abort_all();
  void record(std::string_view reason);

  std::shared_ptr<Call> call_;
  const bool streams_;
  std::vector<Line> lines_;
  std::atomic<bool> scheduled_{false};
  bool events_begun_ = false;
  bool wrote_since_tick_ = false;
  bool done_ = false;
};

}  // namespace strata::serve
