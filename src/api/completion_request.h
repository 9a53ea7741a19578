// POST /v1/completions, /tokenize and /detokenize: bodies as checked plain values. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "api/sampling_fields.h"
#include "base/ids.h"
#include "base/result.h"

namespace strata::api {

using PromptField = std::variant<std::string, std::vector<TokenId>>;

struct CompletionRequest {
  std::string model;
  std::vector<PromptField> prompts;  // at least one, none empty
  SamplingFields sampling;
  StreamFields stream;
  std::int32_t max_tokens = 16;
  bool echo = false;
  std::optional<std::int32_t> logprobs;  // number of alternatives beside the chosen token
  bool return_token_ids = false;
  bool skip_special_tokens = true;  // in the text
};

Result<CompletionRequest> parse_completion_request(std::string_view body,
                                                   const RequestLimits& limits);

struct TokenizeRequest {
  std::optional<std::string> prompt;  // empty: the body is a chat request
  bool return_token_texts = false;
};

Result<TokenizeRequest> parse_tokenize_request(std::string_view body);
Result<std::vector<TokenId>> parse_detokenize_request(std::string_view body,
                                                      const RequestLimits& limits);

}  // namespace strata::api
