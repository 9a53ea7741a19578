#include "api/completion_request.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "api/fields.h"
#include "api/parse_common.h"

namespace strata::api {
namespace {

constexpr std::int32_t kDefaultMaxTokens = 16;  // OpenAI's

void parse_prompt(Fields& fields, std::int32_t vocab, std::vector<PromptField>& out) {
  const Json* prompt = fields.find("prompt");
  if (prompt == nullptr) return fields.fail("prompt", "is missing");
  const char* const kShapes =
      "must be a string, an array of strings, of token ids, or of arrays of token ids";
  if (prompt->is_string()) {
    out.emplace_back(prompt->get<std::string>());
  } else if (!prompt->is_array()) {
    return fields.fail("prompt", kShapes);
  } else if (!prompt->empty() && prompt->front().is_number()) {
    out.emplace_back(parse_token_ids(fields, "prompt", *prompt, vocab));
  } else if (prompt->size() > kMaxPrompts) {
    return fields.fail("prompt", fmt::format("must not hold more than {} prompts, not {}",
                                             kMaxPrompts, prompt->size()));
  } else {
    for (const auto& one : *prompt) {
      if (one.is_string()) {
        out.emplace_back(one.get<std::string>());
      } else if (one.is_array()) {
        out.emplace_back(parse_token_ids(fields, "prompt", one, vocab));
      } else {
        return fields.fail("prompt", kShapes);
      }
    }
  }
  const auto empty = [](const PromptField& one) {
    return std::visit([](const auto& value) { return value.empty(); }, one);
  };
  if (out.empty()) return fields.fail("prompt", "must not be empty");
  for (const auto& one : out)
    if (empty(one)) return fields.fail("prompt", "must not be empty");
}

}  // namespace

Result<CompletionRequest> parse_completion_request(std::string_view body,
                                                   const RequestLimits& limits) {
  const auto document = parse_object(body);
  if (!document) return Unexpected(document.error());
  std::optional<Error> error;
  Fields fields(*document, "", error);
  CompletionRequest out;
  out.model = fields.text("model", 1024).value_or("");
  parse_prompt(fields, limits.vocab, out.prompts);
  out.sampling = parse_sampling(fields, limits);
  out.stream = parse_stream(fields);
  out.max_tokens = parse_max_tokens(fields, 0).value_or(kDefaultMaxTokens);
  out.echo = fields.boolean("echo").value_or(false);
  if (const auto count = fields.integer("logprobs", 0, limits.max_logprobs))
    out.logprobs = static_cast<std::int32_t>(*count);
  out.return_token_ids = fields.boolean("return_token_ids").value_or(false);
  out.skip_special_tokens = fields.boolean("skip_special_tokens").value_or(true);
  if (!fields.text("suffix").value_or("").empty())
    fields.fail("suffix", "is not supported by this model", "unsupported_parameter");
  if (const Json* format = fields.object("response_format")) {
    Fields members(*format, "response_format", error);
    if (members.text("type").value_or("") != "text")
      members.fail("type", "may only be \"text\" here", "unsupported_value");
  }
  refuse_unsupported(fields);
  const auto choices = out.prompts.size() * static_cast<std::size_t>(out.sampling.n);
  if (choices > kMaxPrompts)
    fields.fail("n", fmt::format("times the number of prompts must not exceed {}", kMaxPrompts));
  if (error) return Unexpected(std::move(*error));
  return out;
}

Result<TokenizeRequest> parse_tokenize_request(std::string_view body) {
  const auto document = parse_object(body);
  if (!document) return Unexpected(document.error());
  std::optional<Error> error;
  Fields fields(*document, "", error);
  TokenizeRequest out;
  out.return_token_texts = fields.boolean("return_token_strs").value_or(false);
  out.prompt = fields.text("prompt");
  if (!out.prompt && !fields.has("messages")) {
    out.prompt = fields.text("content");  // llama.cpp's name for it
    if (!out.prompt) fields.fail("prompt", "is missing");
  }
  if (error) return Unexpected(std::move(*error));
  return out;
}

Result<std::vector<TokenId>> parse_detokenize_request(std::string_view body,
                                                      const RequestLimits& limits) {
  const auto document = parse_object(body);
  if (!document) return Unexpected(document.error());
  std::optional<Error> error;
  Fields fields(*document, "", error);
  std::vector<TokenId> out;
  if (const Json* tokens = fields.array("tokens", Fields::kAnyLength)) {
    out = parse_token_ids(fields, "tokens", *tokens, limits.vocab);
  } else {
    fields.fail("tokens", "is missing");
  }
  if (error) return Unexpected(std::move(*error));
  return out;
}

}  // namespace strata::api
