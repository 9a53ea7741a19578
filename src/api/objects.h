// The smaller JSON objects of the API: errors, models, tokens, health. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace strata::api {

// {"error":{"message","type","param","code"}}: OpenAI's object for every refusal.
std::string error_object(const Error& error);

struct ModelCard {
  std::string id;
  std::int64_t created = 0;
  std::int32_t max_model_len = 0;
};

std::string model_object(const ModelCard& model);
std::string model_list(const std::vector<ModelCard>& models);
// `texts`: null, or the bytes of each token.
std::string token_list(const std::vector<TokenId>& tokens, std::int32_t max_model_len,
                       const std::vector<std::string_view>* texts);
std::string text_object(std::string_view key, std::string_view text);
std::string template_object(std::string_view prompt, const std::vector<TokenId>& tokens);

}  // namespace strata::api
