// POST /v1/chat/completions: the body as checked plain values. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/sampling_fields.h"
#include "base/result.h"

namespace strata::api {

enum class ChatRole { kSystem, kDeveloper, kUser, kAssistant, kTool };

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // as the client sent it, usually JSON
};

struct ChatMessage {
  ChatRole role = ChatRole::kUser;
  std::string content;               // text parts joined
  bool has_content = false;          // false: absent, null or an empty array
  std::string reasoning;             // kAssistant: reasoning or reasoning_content
  std::vector<ToolCall> tool_calls;  // kAssistant
  std::string tool_name;             // kTool: the called function, found by tool_call_id
};

struct ChatTool {
  std::string name;
  std::string description;
  std::string parameters;  // compact JSON schema, key order kept; empty: takes nothing
};

enum class FormatKind { kText, kJsonObject, kJsonSchema };

struct FormatFields {
  FormatKind kind = FormatKind::kText;
  std::string name;
  std::string description;
  std::string schema;  // compact JSON
};

enum class EffortField { kNone, kLow, kMedium, kHigh };

struct ChatRequest {
  std::string model;
  std::vector<ChatMessage> messages;  // at least one
  std::vector<ChatTool> tools;        // empty under tool_choice "none"
  FormatFields response_format;
  std::optional<EffortField> effort;
  bool include_reasoning = true;
  std::optional<std::int32_t> thinking_token_budget;  // reasoning tokens, then the answer
  SamplingFields sampling;
  StreamFields stream;
  std::optional<std::int32_t> max_tokens;
  bool logprobs = false;
  std::int32_t top_logprobs = 0;
  bool return_token_ids = false;
  bool add_generation_prompt = true;
  bool continue_final_message = false;  // REQUIRES an assistant message at the end
};

Result<ChatRequest> parse_chat_request(std::string_view body, const RequestLimits& limits);

}  // namespace strata::api
