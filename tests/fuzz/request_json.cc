// Whatever bytes a body holds, parsing either yields values within the documented limits or an
// error with a message. The first byte chooses the endpoint.
#include <cstdint>
#include <string_view>

#include "api/chat_request.h"
#include "api/completion_request.h"
#include "api/objects.h"
#include "base/check.h"

using namespace strata;

namespace {

constexpr api::RequestLimits kLimits{4096, 20};

void check_error(const Error& error) {
  STRATA_CHECK(!error.message.empty());
  STRATA_CHECK(error.code == ErrorCode::kInvalidRequest);
  STRATA_CHECK(!api::error_object(error).empty());
}

void check_ids(const std::vector<TokenId>& ids) {
  for (const TokenId id : ids) STRATA_CHECK(id >= 0 && id < kLimits.vocab);
}

void check_sampling(const api::SamplingFields& fields) {
  STRATA_CHECK(fields.temperature.value_or(1) >= 0 && fields.temperature.value_or(1) <= 2);
  STRATA_CHECK(fields.top_p.value_or(1) >= 0 && fields.top_p.value_or(1) <= 1);
  STRATA_CHECK(fields.top_k.value_or(0) >= 0);
  STRATA_CHECK(fields.n >= 1 && fields.n <= api::kMaxChoices);
  STRATA_CHECK(fields.stop.size() <= api::kMaxStops);
  STRATA_CHECK(fields.logit_bias.size() <= api::kMaxLogitBias);
  for (const auto& stop : fields.stop)
    STRATA_CHECK(!stop.empty() && stop.size() <= api::kMaxStopBytes);
  for (const auto& [id, bias] : fields.logit_bias)
    STRATA_CHECK(id >= 0 && id < kLimits.vocab && bias >= -100 && bias <= 100);
  check_ids(fields.stop_token_ids);
}

void chat(std::string_view body) {
  const auto request = api::parse_chat_request(body, kLimits);
  if (!request) return check_error(request.error());
  STRATA_CHECK(!request->messages.empty());
  STRATA_CHECK(request->tools.size() <= api::kMaxTools);
  STRATA_CHECK(request->top_logprobs <= kLimits.max_logprobs);
  for (const auto& message : request->messages)
    STRATA_CHECK(message.role != api::ChatRole::kTool || !message.tool_name.empty());
  check_sampling(request->sampling);
}

void completion(std::string_view body) {
  const auto request = api::parse_completion_request(body, kLimits);
  if (!request) return check_error(request.error());
  STRATA_CHECK(!request->prompts.empty() && request->max_tokens >= 0);
  for (const auto& prompt : request->prompts)
    if (const auto* ids = std::get_if<std::vector<TokenId>>(&prompt)) check_ids(*ids);
  check_sampling(request->sampling);
}

void tokens(std::string_view body) {
  if (const auto request = api::parse_tokenize_request(body); !request)
    check_error(request.error());
  const auto ids = api::parse_detokenize_request(body, kLimits);
  if (!ids) return check_error(ids.error());
  check_ids(*ids);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 3) {
    case 0: chat(body); break;
    case 1: completion(body); break;
    default: tokens(body); break;
  }
  return 0;
}
