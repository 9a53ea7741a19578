#include "api/chat_messages.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <unordered_map>

namespace strata::api {
namespace {

using CallNames = std::unordered_map<std::string, std::string>;  // tool_call_id -> function

std::optional<ChatRole> role_of(std::string_view text) {
  if (text == "system") return ChatRole::kSystem;
  if (text == "developer") return ChatRole::kDeveloper;
  if (text == "user") return ChatRole::kUser;
  if (text == "assistant") return ChatRole::kAssistant;
  if (text == "tool" || text == "function") return ChatRole::kTool;
  return std::nullopt;
}

void add_part(const Json& part, const std::string& path, std::optional<Error>& error,
              ChatMessage& out) {
  if (part.is_string()) {
    out.content += part.get_ref<const std::string&>();
    return;
  }
  if (!part.is_object()) {
    error = Error{ErrorCode::kInvalidRequest, path + " must be a content part", path, {}, 0};
    return;
  }
  Fields fields(part, path, error);
  const auto type = fields.text("type").value_or("text");
  const bool refusal = type == "refusal";
  if (!refusal && type != "text" && type != "input_text" && type != "output_text")
    return fields.fail("type", fmt::format("is \"{}\", but this model is text only", type),
                       "unsupported_value");
  const auto text = fields.text(refusal ? "refusal" : "text");
  if (!text) return fields.fail(refusal ? "refusal" : "text", "is missing");
  out.content += *text;
}

void parse_content(Fields& fields, std::optional<Error>& error, ChatMessage& out) {
  const Json* content = fields.find("content");
  if (content == nullptr) return;
  if (content->is_string()) {
    out.content = content->get_ref<const std::string&>();
    out.has_content = true;
    return;
  }
  if (!content->is_array())
    return fields.fail("content", fmt::format("must be a string or an array of parts, not a value "
                                              "of type {}",
                                              content->type_name()));
  const auto path = fields.path_of("content");
  for (std::size_t i = 0; i < content->size() && !error; ++i)
    add_part((*content)[i], element_path(path, i), error, out);
  out.has_content = !content->empty();
}

// Arguments are passed on verbatim; an object, which some clients send, as compact JSON.
ToolCall parse_call_body(Fields& fields) {
  ToolCall call;
  call.name = fields.text("name").value_or("");
  if (call.name.empty()) fields.fail("name", "is missing");
  const Json* arguments = fields.find("arguments");
  if (arguments == nullptr) return call;
  if (arguments->is_string()) {
    call.arguments = arguments->get_ref<const std::string&>();
  } else if (arguments->is_object()) {
    call.arguments = arguments->dump();
  } else {
    fields.fail("arguments", "must be a string");
  }
  return call;
}

void parse_calls(Fields& fields, std::optional<Error>& error, CallNames& names, ChatMessage& out) {
  if (const Json* legacy = fields.object("function_call")) {
    Fields members(*legacy, fields.path_of("function_call"), error);
    out.tool_calls.push_back(parse_call_body(members));
  }
  const Json* calls = fields.array("tool_calls", kMaxTools);
  if (calls == nullptr) return;
  const auto path = fields.path_of("tool_calls");
  for (std::size_t i = 0; i < calls->size() && !error; ++i) {
    const auto at = element_path(path, i);
    if (!(*calls)[i].is_object()) return fields.fail("tool_calls", "must hold objects");
    Fields members((*calls)[i], at, error);
    const Json* function = members.object("function");
    if (function == nullptr) return members.fail("function", "is missing");
    Fields inner(*function, members.path_of("function"), error);
    auto call = parse_call_body(inner);
    call.id = members.text("id").value_or("");
    if (!call.id.empty()) names[call.id] = call.name;
    out.tool_calls.push_back(std::move(call));
  }
}

// The function a result belongs to: by tool_call_id, or by `name` as the older API had it.
void resolve_tool(Fields& fields, const CallNames& names, ChatMessage& out) {
  const auto id = fields.text("tool_call_id");
  if (id) {
    const auto found = names.find(*id);
    if (found != names.end()) {
      out.tool_name = found->second;
      return;
    }
  }
  out.tool_name = fields.text("name").value_or("");
  if (!out.tool_name.empty()) return;
  if (!id) return fields.fail("tool_call_id", "is missing");
  fields.fail("tool_call_id", "does not belong to a tool call of an earlier assistant message");
}

void parse_message(const Json& value, const std::string& path, std::optional<Error>& error,
                   CallNames& names, ChatMessage& out) {
  Fields fields(value, path, error);
  const auto role = fields.text("role");
  const auto known = role ? role_of(*role) : std::nullopt;
  if (!known) return fields.fail("role", "must be one of system, developer, user, assistant, tool");
  out.role = *known;
  parse_content(fields, error, out);
  if (out.role == ChatRole::kAssistant) {
    out.reasoning = fields.text("reasoning").value_or("");
    if (out.reasoning.empty()) out.reasoning = fields.text("reasoning_content").value_or("");
    parse_calls(fields, error, names, out);
    return;
  }
  if (out.role == ChatRole::kTool) return resolve_tool(fields, names, out);
  if (!out.has_content) fields.fail("content", "is missing");
}

}  // namespace

void parse_messages(Fields& fields, std::optional<Error>& error, std::vector<ChatMessage>& out) {
  const Json* messages = fields.array("messages", kMaxMessages);
  if (messages == nullptr) return fields.fail("messages", "is missing");
  if (messages->empty()) return fields.fail("messages", "must hold at least one message");
  CallNames names;
  for (std::size_t i = 0; i < messages->size() && !error; ++i) {
    const auto path = element_path("messages", i);
    if (!(*messages)[i].is_object()) return fields.fail(path, "must be an object");
    parse_message((*messages)[i], path, error, names, out.emplace_back());
  }
}

}  // namespace strata::api
