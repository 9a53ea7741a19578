#include "serve/prompt.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace strata::serve {
namespace {

constexpr double kSmallestTopP = 1e-6;  // keeps the best token only, as a top_p of 0 means

bool is_instruction(const api::ChatMessage& message) {
  return message.role == api::ChatRole::kSystem || message.role == api::ChatRole::kDeveloper;
}

// In the order the model samples them: reasoning, preamble, calls.
void add_assistant(const api::ChatMessage& message, std::vector<harmony::Message>& out) {
  const auto add = [&out](std::string channel, const std::string& content) -> harmony::Message& {
    auto& added = out.emplace_back();
    added.role = harmony::Role::kAssistant;
    added.channel = std::move(channel);
    added.content = content;
    return added;
  };
  if (!message.reasoning.empty()) add("analysis", message.reasoning);
  const bool calls = !message.tool_calls.empty();
  if (message.has_content && !(calls && message.content.empty()))
    add(calls ? "commentary" : "final", message.content);
  for (const auto& call : message.tool_calls) {
    auto& added = add("commentary", call.arguments);
    added.recipient = "functions." + call.name;
    added.content_type = "<|constrain|>json";
  }
}

TurnFields turn_fields(const api::ChatMessage& message) {
  TurnFields out;
  if (message.has_content) out.content = message.content;
  out.reasoning = message.reasoning;
  for (const auto& call : message.tool_calls) out.calls.emplace_back(call.name, call.arguments);
  return out;
}

// A turn of this server's own comes back with the tokens it was made of.
bool add_remembered(const api::ChatMessage& message, const std::string& salt,
                    const Context& context, std::vector<harmony::Message>& out) {
  if (context.options.turn_memory_bytes == 0) return false;
  auto turn = context.turns.find(turn_fields(message), salt);
  if (!turn) return false;
  std::move(turn->begin(), turn->end(), std::back_inserter(out));
  return true;
}

void add_message(const api::ChatMessage& message, std::vector<harmony::Message>& out) {
  switch (message.role) {
    case api::ChatRole::kSystem:
    case api::ChatRole::kDeveloper:
    case api::ChatRole::kUser: {
      auto& added = out.emplace_back();
      added.role = is_instruction(message) ? harmony::Role::kDeveloper : harmony::Role::kUser;
      added.content = message.content;
      break;
    }
    case api::ChatRole::kAssistant: add_assistant(message, out); break;
    case api::ChatRole::kTool: {
      auto& added = out.emplace_back();
      added.role = harmony::Role::kTool;
      added.name = "functions." + message.tool_name;
      added.recipient = "assistant";
      added.channel = "commentary";
      added.content = message.content;
      break;
    }
  }
}

harmony::Effort effort_of(const std::optional<api::EffortField>& effort) {
  switch (effort.value_or(api::EffortField::kMedium)) {
    case api::EffortField::kNone:
    case api::EffortField::kLow: return harmony::Effort::kLow;
    case api::EffortField::kMedium: return harmony::Effort::kMedium;
    case api::EffortField::kHigh: return harmony::Effort::kHigh;
  }
  return harmony::Effort::kMedium;
}

}  // namespace

harmony::Conversation make_conversation(const api::ChatRequest& request, const Context& context) {
  harmony::Conversation out;
  out.current_date = context.current_date();
  out.effort = effort_of(request.effort);
  std::size_t next = 0;
  for (; next < request.messages.size() && is_instruction(request.messages[next]); ++next) {
    if (next > 0) out.instructions += "\n\n";
    out.instructions += request.messages[next].content;
  }
  for (; next < request.messages.size(); ++next) {
    const auto& message = request.messages[next];
    const bool added = message.role == api::ChatRole::kAssistant &&
                       add_remembered(message, request.sampling.cache_salt, context, out.messages);
    if (!added) add_message(message, out.messages);
  }
  if (!request.tools.empty()) {
    auto& functions = out.tools.emplace_back();
    for (const auto& tool : request.tools)
      functions.tools.push_back({tool.name, tool.description, tool.parameters});
  }
  const auto& format = request.response_format;
  if (format.kind != api::FormatKind::kText)
    out.response_format = harmony::ResponseFormat{format.name, format.description, format.schema};
  return out;
}

harmony::RenderOptions render_options(const api::ChatRequest& request) {
  harmony::RenderOptions out;
  out.add_generation_prompt = request.add_generation_prompt;
  out.continue_last_message = request.continue_final_message;
  const bool no_reasoning =
      request.effort == api::EffortField::kNone || request.thinking_token_budget == 0;
  out.force_final_channel = no_reasoning && request.add_generation_prompt;
  return out;
}

Result<std::vector<TokenId>> render_chat(const api::ChatRequest& request, const Context& context) {
  return harmony::render(make_conversation(request, context), context.tokenizer,
                         render_options(request));
}

harmony::Opened opened_message(const api::ChatRequest& request) {
  using harmony::Opened;
  if (!request.continue_final_message)
    return render_options(request).force_final_channel ? Opened::kFinal : Opened::kNothing;
  return request.messages.back().has_content ? Opened::kFinal : Opened::kAnalysis;
}

Result<void> prepare_stream(const Call& call, api::StreamFields& fields) {
  const auto header = call.request().header("x-strata-resumable");
  if (header == "1" || header == "true") fields.resumable = true;
  if (fields.resumable && !fields.stream)
    return invalid("only a stream can be resumed: set stream to true", "resumable");
  return {};
}

SamplingParams make_sampling(const api::SamplingFields& fields, const Context& context,
                             std::int32_t top_logprobs) {
  const auto& defaults = context.options.sampling;
  SamplingParams out;
  out.temperature = static_cast<float>(fields.temperature.value_or(defaults.temperature));
  out.top_p =
      static_cast<float>(std::clamp(fields.top_p.value_or(defaults.top_p), kSmallestTopP, 1.0));
  out.top_k = fields.top_k.value_or(defaults.top_k);
  out.min_p = static_cast<float>(fields.min_p.value_or(defaults.min_p));
  out.repetition_penalty =
      static_cast<float>(fields.repetition_penalty.value_or(defaults.repetition_penalty));
  out.presence_penalty = static_cast<float>(fields.presence_penalty);
  out.frequency_penalty = static_cast<float>(fields.frequency_penalty);
  out.logit_bias = fields.logit_bias;
  out.seed = fields.seed ? *fields.seed : context.random_seed();
  out.min_tokens = fields.min_tokens;
  out.ignore_eos = fields.ignore_eos;
  out.stop_ids = context.tokenizer.stop_ids();
  for (const TokenId id : fields.stop_token_ids)
    if (std::find(out.stop_ids.begin(), out.stop_ids.end(), id) == out.stop_ids.end())
      out.stop_ids.push_back(id);
  out.top_logprobs = top_logprobs;
  return out;
}

Result<std::int32_t> answer_length(std::size_t prompt_tokens, std::optional<std::int32_t> asked,
                                   const Context& context, std::string_view param) {
  const auto room = static_cast<std::int64_t>(context.engine.info()->max_model_len) -
                    static_cast<std::int64_t>(prompt_tokens);
  if (room > 0 || (room == 0 && asked == 0))
    return static_cast<std::int32_t>(std::min<std::int64_t>(room, asked.value_or(INT32_MAX)));
  return fail(ErrorCode::kContextOverflow,
              fmt::format("the prompt has {} tokens, but the context holds {} for prompt and "
                          "answer together; shorten the prompt",
                          prompt_tokens, context.engine.info()->max_model_len),
              std::string(param), "context_length_exceeded");
}

}  // namespace strata::serve
