// Parts of request parsing that several endpoints share; internal to api/.
#pragma once

#include "api/fields.h"
#include "api/sampling_fields.h"

namespace strata::api {

SamplingFields parse_sampling(Fields& fields, const RequestLimits& limits);
StreamFields parse_stream(Fields& fields);
// max_completion_tokens, else max_tokens; empty when absent or -1.
std::optional<std::int32_t> parse_max_tokens(Fields& fields, std::int64_t min);
// Fields that would change the answer and that nothing here honours yet are refused, not ignored.
void refuse_unsupported(Fields& fields);
// Array of token ids below the vocabulary size.
std::vector<TokenId> parse_token_ids(Fields& fields, std::string_view name, const Json& array,
                                     std::int32_t vocab);

}  // namespace strata::api
