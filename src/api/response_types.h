// What answers are made of, before it is JSON. Plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"

namespace strata::api {

// Shared by every chunk of one answer.
struct AnswerIdentity {
  std::string id;  // chatcmpl-..., cmpl-...
  std::string model;
  std::int64_t created = 0;  // Unix time
  std::string fingerprint;
};

struct Usage {
  std::int64_t prompt_tokens = 0;
  std::int64_t completion_tokens = 0;
  std::int64_t cached_tokens = 0;
  std::int64_t reasoning_tokens = 0;
};

// vLLM's per-request keys. Durations in milliseconds; negative: not known, written as null.
struct Timings {
  double time_to_first_token_ms = -1;
  double generation_time_ms = -1;  // first to last token
  double queue_time_ms = -1;
  double mean_itl_ms = -1;
  double tokens_per_second = -1;
};

struct TokenLogprobText {
  std::string bytes;  // of one token, perhaps part of a character
  float logprob = 0.0F;
  std::vector<std::pair<std::string, float>> top;  // bytes, log-probability; best first
};

// Which stop string or stop token id ended the choice, if one did.
struct StopCause {
  std::optional<std::string> text;
  std::optional<TokenId> token;
};

struct FinishedToolCall {
  std::string id;
  std::string name;
  std::string arguments;
};

struct ChatChoice {
  std::int32_t index = 0;
  std::optional<std::string> content;
  std::string reasoning;
  std::vector<FinishedToolCall> tool_calls;
  std::optional<std::vector<TokenLogprobText>> logprobs;
  std::string finish_reason;
  StopCause stop;
  std::optional<std::vector<TokenId>> token_ids;
};

// Legacy logprobs of /v1/completions: parallel arrays. The first prompt token has no logprob.
struct CompletionToken {
  TokenLogprobText token;
  bool has_logprob = true;
  std::int64_t text_offset = 0;  // in Unicode characters
};

struct CompletionChoice {
  std::int32_t index = 0;
  std::string text;
  std::optional<std::vector<CompletionToken>> logprobs;
  std::string finish_reason;  // empty: not finished (chunks)
  StopCause stop;
  std::optional<std::vector<TokenId>> token_ids;
  std::optional<std::vector<TokenId>> prompt_token_ids;
};

}  // namespace strata::api
