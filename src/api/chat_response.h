// Answers of /v1/chat/completions as JSON: whole and as server-sent events. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/response_types.h"

namespace strata::api {

std::string chat_response(const AnswerIdentity& identity, const std::vector<ChatChoice>& choices,
                          const Usage& usage, const Timings& timings);

// Appends events ("data: {...}\n\n") of one stream; one choice an event.
class ChatChunkWriter {
 public:
  // `announce_usage`: every chunk but the last carries "usage":null, as OpenAI's do.
  ChatChunkWriter(const AnswerIdentity& identity, bool announce_usage);

  // Chunks from here on carry this usage (continuous_usage_stats).
  void set_running_usage(const Usage& usage) { running_usage_ = usage; }

  void role(std::string& out, std::int32_t index) const;
  void content(std::string& out, std::int32_t index, std::string_view text,
               const std::vector<TokenLogprobText>* logprobs) const;
  void reasoning(std::string& out, std::int32_t index, std::string_view text) const;
  void tool_start(std::string& out, std::int32_t index, std::int32_t call,
                  const FinishedToolCall& head) const;
  void tool_arguments(std::string& out, std::int32_t index, std::int32_t call,
                      std::string_view text) const;
  struct Finish {
    std::string_view reason;
    const StopCause* stop = nullptr;
    const std::vector<TokenId>* token_ids = nullptr;  // of the whole choice
    const Timings* timings = nullptr;                 // of the request, in its last chunk
  };
  void finish(std::string& out, std::int32_t index, const Finish& finish) const;
  // choices: [] with the usage of all choices.
  void usage(std::string& out, const Usage& usage, const Timings& timings) const;

 private:
  void open(std::string& out, std::int32_t index) const;
  void close(std::string& out, std::string_view finish_reason) const;
  void close_event(std::string& out) const;

  std::string prefix_;  // up to and including "choices":[
  bool announce_usage_ = false;
  std::optional<Usage> running_usage_;
};

inline constexpr std::string_view kStreamEnd = "data: [DONE]\n\n";
inline constexpr std::string_view kKeepAliveComment = ": keep-alive\n\n";

}  // namespace strata::api
