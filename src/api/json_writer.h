// Appending JSON to a string; internal to api/. Commas and nesting are the caller's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "api/response_types.h"

namespace strata::api {

void append_key(std::string& out, std::string_view key);  // "key":
void append_integer(std::string& out, std::int64_t value);
// Shortest form that reads back the same; null when not finite.
void append_number(std::string& out, double value);
void append_ids(std::string& out, const std::vector<TokenId>& ids);
// A token's text as a JSON string. Bytes that are no UTF-8 on their own are written as
// "bytes:\\xf0\\x9f", as OpenAI does, so that different tokens stay different.
void append_token_text(std::string& out, std::string_view bytes);
void append_usage(std::string& out, const Usage& usage);
void append_timings(std::string& out, const Timings& timings);
void append_stop_cause(std::string& out, const StopCause& stop);
// [{"token":..,"logprob":..,"bytes":[..],"top_logprobs":[..]},..]
void append_chat_logprobs(std::string& out, const std::vector<TokenLogprobText>& tokens);
// {"tokens":[..],"token_logprobs":[..],"top_logprobs":[..],"text_offset":[..]}
void append_completion_logprobs(std::string& out, const std::vector<CompletionToken>& tokens);

}  // namespace strata::api
