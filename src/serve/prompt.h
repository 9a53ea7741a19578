// From checked API values to what the engine and harmony take. Pure but for Context's date and
// random seeds.
#pragma once

#include <vector>

#include "api/chat_request.h"
#include "harmony/message.h"
#include "harmony/parser.h"
#include "harmony/render.h"
#include "plan/sampling_params.h"
#include "serve/call.h"
#include "serve/context.h"

namespace strata::serve {

harmony::Conversation make_conversation(const api::ChatRequest& request, const Context& context);
harmony::RenderOptions render_options(const api::ChatRequest& request);
// The prompt of a chat request.
Result<std::vector<TokenId>> render_chat(const api::ChatRequest& request, const Context& context);
// The message that the prompt opened and the answer begins in.
harmony::Opened opened_message(const api::ChatRequest& request);

// Header fields into stream fields; an error when they do not go together.
Result<void> prepare_stream(const Call& call, api::StreamFields& fields);

// `top_logprobs`: -1 for none.
SamplingParams make_sampling(const api::SamplingFields& fields, const Context& context,
                             std::int32_t top_logprobs);
// Tokens an answer may have: what was asked for, at most what the context has left. An error when
// nothing is left although something must be generated.
Result<std::int32_t> answer_length(std::size_t prompt_tokens, std::optional<std::int32_t> asked,
                                   const Context& context, std::string_view param);

}  // namespace strata::serve
