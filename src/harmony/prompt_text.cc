// The texts of the system and the developer message.
#include <fmt/format.h>

#include <algorithm>

#include "harmony/render.h"

namespace strata::harmony {
namespace {

const char* effort_name(Effort effort) {
  switch (effort) {
    case Effort::kLow: return "low";
    case Effort::kMedium: return "medium";
    case Effort::kHigh: return "high";
  }
  return "medium";
}

// Appends `text` line by line behind `prefix`. A line ends with "\n" or "\r\n"; the last newline
// begins no further line.
void append_lines(std::string& out, std::string_view prefix, std::string_view text) {
  while (!text.empty()) {
    const std::size_t newline = text.find('\n');
    std::string_view line = text.substr(0, newline);
    text = newline == std::string_view::npos ? std::string_view() : text.substr(newline + 1);
    if (newline != std::string_view::npos && line.ends_with('\r')) line.remove_suffix(1);
    out.append(prefix).append(line).push_back('\n');
  }
}

Result<void> append_tool(std::string& out, const Tool& tool) {
  append_lines(out, "// ", tool.description);
  if (tool.parameters.empty() || tool.parameters == "null") {
    out += fmt::format("type {} = () => any;\n\n", tool.name);
    return {};
  }
  Result<std::string> type = schema_to_typescript(tool.parameters);
  if (!type) {
    type.error().message = fmt::format("tool {}: {}", tool.name, type.error().message);
    type.error().param = "tools";
    return tl::make_unexpected(type.error());
  }
  out += fmt::format("type {} = (_: {}) => any;\n\n", tool.name, *type);
  return {};
}

// Without tools a namespace is a heading and its plain description.
Result<void> append_namespace(std::string& out, const ToolNamespace& space) {
  out += fmt::format("\n\n## {}\n\n", space.name);
  append_lines(out, space.tools.empty() ? "" : "// ", space.description);
  if (space.tools.empty()) {
    out.pop_back();
    return {};
  }
  out += fmt::format("namespace {} {{\n\n", space.name);
  for (const Tool& tool : space.tools)
    if (const Result<void> added = append_tool(out, tool); !added) return added;
  out += fmt::format("}} // namespace {}", space.name);
  return {};
}

Result<std::string> tools_section(const std::vector<ToolNamespace>& tools) {
  std::vector<const ToolNamespace*> sorted;
  sorted.reserve(tools.size());
  for (const ToolNamespace& space : tools) sorted.push_back(&space);
  std::sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) {
    return a->name != b->name ? a->name < b->name : a < b;
  });
  std::string out = "# Tools";
  for (const ToolNamespace* space : sorted)
    if (const Result<void> added = append_namespace(out, *space); !added)
      return tl::make_unexpected(added.error());
  return out;
}

std::string response_format_section(const ResponseFormat& format) {
  std::string out = fmt::format("# Response Formats\n\n## {}\n\n", format.name);
  append_lines(out, "// ", format.description);
  return out + format.schema;
}

void append_section(std::string& out, std::string_view section) {
  if (!out.empty()) out += "\n\n";
  out += section;
}

}  // namespace

std::string system_text(const Conversation& conversation) {
  std::string top = conversation.identity;
  const auto add_line = [&](std::string_view label, const std::string& value) {
    if (value.empty()) return;
    if (!top.empty()) top += '\n';
    top.append(label).append(value);
  };
  add_line("Knowledge cutoff: ", conversation.knowledge_cutoff);
  add_line("Current date: ", conversation.current_date);
  std::string out = top;
  append_section(out, fmt::format("Reasoning: {}", effort_name(conversation.effort)));
  append_section(out,
                 "# Valid channels: analysis, commentary, final. "
                 "Channel must be included for every message.");
  const auto& tools = conversation.tools;
  if (std::any_of(tools.begin(), tools.end(), [](const ToolNamespace& space) {
        return space.name == "functions" && !space.tools.empty();
      }))
    out += "\nCalls to these tools must go to the commentary channel: 'functions'.";
  return out;
}

Result<std::string> developer_text(const Conversation& conversation) {
  std::string out;
  if (!conversation.instructions.empty())
    append_section(out, "# Instructions\n\n" + conversation.instructions);
  if (!conversation.tools.empty()) {
    const Result<std::string> tools = tools_section(conversation.tools);
    if (!tools) return tools;
    append_section(out, *tools);
  }
  if (conversation.response_format)
    append_section(out, response_format_section(*conversation.response_format));
  return out;
}

}  // namespace strata::harmony
