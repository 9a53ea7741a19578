// Conversations as harmony sees them: plain values between api/ (OpenAI JSON) and the renderer.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"

namespace strata::harmony {

enum class Role { kSystem, kDeveloper, kUser, kAssistant, kTool };
enum class Effort { kLow, kMedium, kHigh };

// One harmony message. All text is ordinary text: it can never yield a special token, but for the
// marker in front of a content type. A system or developer message becomes a developer message with
// the heading "# Instructions".
struct Message {
  Role role = Role::kUser;
  std::string name;          // kTool: the tool's full name, e.g. functions.get_weather
  std::string channel;       // "", "analysis", "commentary", "final"
  std::string recipient;     // "" (everyone), "functions.NAME", "assistant"
  std::string content_type;  // "", "json", "<|constrain|>json" (its marker is a special)
  std::string content;
  // Not empty: the message is rendered as <|start|> and these ids, closing token included, and only
  // `role` and `channel` are read of the fields above. For turns the server sampled itself.
  std::vector<TokenId> tokens = {};
};

// A function the model may call. `parameters` is the JSON schema text, key order kept; empty: the
// tool takes nothing.
struct Tool {
  std::string name;
  std::string description;
  std::string parameters;
};

struct ToolNamespace {
  std::string name = "functions";
  std::string description;
  std::vector<Tool> tools;
};

struct ResponseFormat {
  std::string name;
  std::string description;
  std::string schema;  // compact JSON
};

struct Conversation {
  std::string identity = "You are ChatGPT, a large language model trained by OpenAI.";
  std::string knowledge_cutoff = "2024-06";
  std::string current_date;  // YYYY-MM-DD; empty: the line is left out
  Effort effort = Effort::kMedium;
  std::string instructions;  // leading system and developer messages, joined by a blank line
  std::vector<ToolNamespace> tools;
  std::optional<ResponseFormat> response_format;
  std::vector<Message> messages;  // everything after the leading system and developer messages
};

}  // namespace strata::harmony
