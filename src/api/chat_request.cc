#include "api/chat_request.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "api/chat_messages.h"
#include "api/fields.h"
#include "api/parse_common.h"

namespace strata::api {
namespace {

constexpr std::size_t kMaxNameBytes = 64;

bool is_name(std::string_view text, std::string_view extra) {
  if (text.empty() || text.size() > kMaxNameBytes) return false;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!plain && extra.find(c) == std::string_view::npos) return false;
  }
  return true;
}

// "function" object of a tool, or an element of the older `functions` array.
std::optional<ChatTool> parse_function(Fields& fields) {
  ChatTool tool;
  tool.name = fields.text("name").value_or("");
  if (!is_name(tool.name, "_-."))
    fields.fail("name", "must be 1 to 64 letters, digits, dots, underscores or dashes");
  tool.description = fields.text("description").value_or("");
  if (const Json* schema = fields.object("parameters")) {
    tool.parameters = schema->dump();
    if (tool.parameters.size() > kMaxSchemaBytes)
      fields.fail("parameters", fmt::format("must not be longer than {} bytes", kMaxSchemaBytes));
  }
  if (!fields.ok()) return std::nullopt;
  return tool;
}

void parse_tool_array(Fields& fields, std::string_view name, bool wrapped,
                      std::optional<Error>& error, std::vector<ChatTool>& out) {
  const Json* array = fields.array(name, kMaxTools);
  if (array == nullptr) return;
  for (std::size_t i = 0; i < array->size(); ++i) {
    const Json* function = &(*array)[i];
    auto path = element_path(name, i);
    if (wrapped && function->is_object()) {
      Fields tool(*function, path, error);
      const auto type = tool.text("type");
      if (!type || *type != "function")
        tool.fail("type", "must be \"function\": other tools are not supported");
      function = tool.object("function");
      path = tool.path_of("function");
      if (function == nullptr) tool.fail("function", "is missing");
    }
    if (error) return;
    if (!function->is_object()) return fields.fail(path, "must be an object");
    Fields members(*function, path, error);
    auto tool = parse_function(members);
    if (!tool) return;
    for (const auto& other : out)
      if (other.name == tool->name) return members.fail("name", "is used by an earlier tool");
    out.push_back(std::move(*tool));
  }
}

void parse_tools(Fields& fields, std::optional<Error>& error, ChatRequest& out) {
  parse_tool_array(fields, "tools", true, error, out.tools);
  if (out.tools.empty()) parse_tool_array(fields, "functions", false, error, out.tools);
  for (const char* name : {"tool_choice", "function_call"}) {
    const Json* choice = fields.find(name);
    if (choice == nullptr || *choice == "auto") continue;
    if (*choice == "none") {
      out.tools.clear();
    } else if (*choice == "required" || choice->is_object()) {
      fields.fail(name,
                  "may only be \"auto\" or \"none\": enforcing a tool call is not available yet",
                  "unsupported_value");
    } else {
      fields.fail(name, "must be \"auto\" or \"none\"");
    }
  }
  fields.boolean("parallel_tool_calls");
}

void parse_format(Fields& fields, std::optional<Error>& error, FormatFields& out) {
  const Json* format = fields.object("response_format");
  if (format == nullptr) return;
  Fields members(*format, "response_format", error);
  const auto type = members.text("type").value_or("");
  if (type == "text") return;
  if (type == "json_object") {
    out = {FormatKind::kJsonObject, "json_object", "Any JSON object.", R"({"type":"object"})"};
    return;
  }
  if (type != "json_schema")
    return members.fail("type", "must be \"text\", \"json_object\" or \"json_schema\"");
  const Json* wrapper = members.object("json_schema");
  if (wrapper == nullptr) return members.fail("json_schema", "is missing");
  Fields inner(*wrapper, "response_format.json_schema", error);
  out.kind = FormatKind::kJsonSchema;
  out.name = inner.text("name").value_or("");
  if (!is_name(out.name, "_-"))
    inner.fail("name", "must be 1 to 64 letters, digits, underscores or dashes");
  out.description = inner.text("description").value_or("");
  inner.boolean("strict");
  const Json* schema = inner.object("schema");
  if (schema == nullptr) return inner.fail("schema", "is missing");
  out.schema = schema->dump();
  if (out.schema.size() > kMaxSchemaBytes)
    inner.fail("schema", fmt::format("must not be longer than {} bytes", kMaxSchemaBytes));
}

// Names of newer and older effort levels map to the three the model was trained with.
void set_effort(Fields& fields, std::string_view name, ChatRequest& out) {
  const auto text = fields.text(name);
  if (!text) return;
  if (*text == "none") {
    out.effort = EffortField::kNone;
  } else if (*text == "minimal" || *text == "low") {
    out.effort = EffortField::kLow;
  } else if (*text == "medium") {
    out.effort = EffortField::kMedium;
  } else if (*text == "high" || *text == "xhigh" || *text == "max") {
    out.effort = EffortField::kHigh;
  } else {
    fields.fail(name, "must be one of none, minimal, low, medium, high, xhigh, max");
  }
}

// -1, as in vLLM: no budget.
void set_budget(Fields& fields, std::string_view name, ChatRequest& out) {
  const auto budget = fields.integer(name, -1, INT32_MAX);
  if (!budget) return;
  out.thinking_token_budget.reset();
  if (*budget >= 0) out.thinking_token_budget = static_cast<std::int32_t>(*budget);
}

// reasoning_effort, else OpenRouter's `reasoning` object, else chat_template_kwargs.
void parse_reasoning(Fields& fields, std::optional<Error>& error, ChatRequest& out) {
  if (const Json* kwargs = fields.object("chat_template_kwargs")) {
    Fields members(*kwargs, "chat_template_kwargs", error);
    set_effort(members, "reasoning_effort", out);
  }
  if (const Json* reasoning = fields.object("reasoning")) {
    Fields members(*reasoning, "reasoning", error);
    set_effort(members, "effort", out);
    if (members.boolean("enabled") == false) out.effort = EffortField::kNone;
    if (members.boolean("exclude") == true) out.include_reasoning = false;
    set_budget(members, "max_tokens", out);
  }
  set_effort(fields, "reasoning_effort", out);
  set_budget(fields, "thinking_token_budget", out);
  if (fields.boolean("include_reasoning") == false) out.include_reasoning = false;
}

void parse_logprobs(Fields& fields, const RequestLimits& limits, ChatRequest& out) {
  out.logprobs = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, limits.max_logprobs);
  if (top.value_or(0) > 0 && !out.logprobs)
    fields.fail("top_logprobs", "needs logprobs to be true");
  out.top_logprobs = static_cast<std::int32_t>(top.value_or(0));
}

void parse_prompt_shape(Fields& fields, ChatRequest& out) {
  out.continue_final_message = fields.boolean("continue_final_message").value_or(false);
  out.add_generation_prompt =
      fields.boolean("add_generation_prompt").value_or(!out.continue_final_message);
  if (!out.continue_final_message) return;
  if (out.add_generation_prompt)
    fields.fail("continue_final_message", "and add_generation_prompt exclude each other");
  const bool fits = !out.messages.empty() && out.messages.back().role == ChatRole::kAssistant &&
                    out.messages.back().tool_calls.empty() &&
                    (out.messages.back().has_content || !out.messages.back().reasoning.empty());
  if (!fits)
    fields.fail("continue_final_message",
                "needs an assistant message with content or reasoning at the end");
}

}  // namespace

Result<ChatRequest> parse_chat_request(std::string_view body, const RequestLimits& limits) {
  const auto document = parse_object(body);
  if (!document) return Unexpected(document.error());
  std::optional<Error> error;
  Fields fields(*document, "", error);
  ChatRequest out;
  out.model = fields.text("model", 1024).value_or("");
  parse_messages(fields, error, out.messages);
  parse_tools(fields, error, out);
  parse_format(fields, error, out.response_format);
  parse_reasoning(fields, error, out);
  out.sampling = parse_sampling(fields, limits);
  out.stream = parse_stream(fields);
  out.max_tokens = parse_max_tokens(fields, 1);
  parse_logprobs(fields, limits, out);
  out.return_token_ids = fields.boolean("return_token_ids").value_or(false);
  parse_prompt_shape(fields, out);
  refuse_unsupported(fields);
  if (fields.boolean("echo") == true)
    fields.fail("echo", "is not supported for chat", "unsupported_parameter");
  if (error) return Unexpected(std::move(*error));
  return out;
}

}  // namespace strata::api
