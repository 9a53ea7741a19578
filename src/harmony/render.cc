#include "harmony/render.h"

#include <array>
#include <optional>
#include <string_view>

namespace strata::harmony {
namespace {

constexpr std::string_view kConstrainMarker = "<|constrain|>";

const char* role_name(Role role) {
  switch (role) {
    case Role::kSystem:
    case Role::kDeveloper: return "developer";
    case Role::kUser: return "user";
    case Role::kAssistant: return "assistant";
    case Role::kTool: return "tool";
  }
  return "user";
}

bool is_final(const Message& message) {
  return message.role == Role::kAssistant && message.channel == "final";
}

bool is_analysis(const Message& message) {
  return message.role == Role::kAssistant && message.channel == "analysis";
}

// Index of the first message whose analysis, and that of all before it, stays in the prompt.
std::size_t first_kept(const std::vector<Message>& messages, const RenderOptions& options) {
  const std::size_t count = messages.size();
  switch (options.history) {
    case HistoryRule::kKeepAll: return 0;
    case HistoryRule::kServer: {
      // A final that is to be continued belongs to the turn under way.
      std::size_t i = options.continue_last_message && count > 0 ? count - 1 : count;
      while (i > 0 && !is_final(messages[i - 1])) --i;
      return i;
    }
    case HistoryRule::kCrate: {
      std::size_t last = count;
      while (last > 0 && messages[last - 1].role != Role::kAssistant) --last;
      if (last == 0 || !is_final(messages[last - 1])) return 0;
      std::size_t first = 0;
      while (first < count && messages[first].channel != "final") ++first;
      return first;
    }
  }
  return 0;
}

class Renderer {
 public:
  Renderer(const tokenizer::Tokenizer& tokenizer, std::vector<TokenId>& out)
      : tokenizer_(tokenizer), ids_(tokenizer.specials()), out_(out) {}

  void special(TokenId id) { out_.push_back(id); }
  void text(std::string_view piece) { tokenizer_.encode(piece, out_); }

  // A message of plain text: system, developer.
  void plain(std::string_view role, std::string_view content) {
    special(ids_.start);
    text(role);
    special(ids_.message);
    text(content);
    special(ids_.end);
  }
  Result<void> message(const Message& message, bool left_open);
  void generation_prompt(bool force_final) {
    special(ids_.start);
    text("assistant");
    if (!force_final) return;
    special(ids_.channel);
    text("final");
    special(ids_.message);
  }

 private:
  Result<void> author(const Message& message);
  void content_type(const std::string& type);

  const tokenizer::Tokenizer& tokenizer_;
  const tokenizer::SpecialIds& ids_;
  std::vector<TokenId>& out_;
};

// The texts between specials are encoded one by one, as the crate does: "assistant" and
// " to=functions.f" never merge.
Result<void> Renderer::author(const Message& message) {
  if (message.role == Role::kTool) {
    if (message.name.empty()) return invalid("a tool message has no tool name", "messages");
    text(message.name);
  } else {
    text(role_name(message.role));
    if (!message.name.empty()) text(":" + message.name);
  }
  if (!message.recipient.empty() && message.recipient != "all") text(" to=" + message.recipient);
  return {};
}

void Renderer::content_type(const std::string& type) {
  if (type.empty()) return;
  if (!type.starts_with(kConstrainMarker)) return text(" " + type);
  text(" ");
  special(ids_.constrain);
  text(std::string_view(type).substr(kConstrainMarker.size()));
}

Result<void> Renderer::message(const Message& message, bool left_open) {
  if (message.role == Role::kSystem || message.role == Role::kDeveloper) {
    plain(role_name(message.role), "# Instructions\n\n" + message.content);
    return {};
  }
  special(ids_.start);
  if (!message.tokens.empty()) {
    out_.insert(out_.end(), message.tokens.begin(), message.tokens.end() - (left_open ? 1 : 0));
    return {};
  }
  if (Result<void> written = author(message); !written) return written;
  if (!message.channel.empty()) {
    special(ids_.channel);
    text(message.channel);
  }
  content_type(message.content_type);
  special(ids_.message);
  text(message.content);
  if (left_open) return {};
  const bool is_call = message.role == Role::kAssistant && !message.recipient.empty();
  special(is_call ? ids_.call : ids_.end);
  return {};
}

bool has_harmony_tokens(const tokenizer::SpecialIds& ids) {
  for (const TokenId id : {ids.start, ids.message, ids.channel, ids.end, ids.call, ids.constrain})
    if (id == kNoToken) return false;
  return true;
}

}  // namespace

Result<std::vector<TokenId>> render(const Conversation& conversation,
                                    const tokenizer::Tokenizer& tokenizer,
                                    const RenderOptions& options) {
  if (!has_harmony_tokens(tokenizer.specials()))
    return fail(ErrorCode::kInternal, "the model's tokenizer has no harmony tokens");
  const std::vector<Message>& messages = conversation.messages;
  const bool continues = options.continue_last_message;
  if (continues &&
      (messages.empty() || !(is_final(messages.back()) || is_analysis(messages.back()))))
    return invalid("only the content or reasoning of a last assistant message can be continued",
                   "messages");

  std::vector<TokenId> ids;
  Renderer renderer(tokenizer, ids);
  renderer.plain("system", system_text(conversation));
  const Result<std::string> developer = developer_text(conversation);
  if (!developer) return tl::make_unexpected(developer.error());
  if (!developer->empty()) renderer.plain("developer", *developer);
  const std::size_t kept = first_kept(messages, options);
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (i < kept && messages[i].channel == "analysis") continue;
    const bool left_open = continues && i + 1 == messages.size();
    if (const Result<void> written = renderer.message(messages[i], left_open); !written)
      return tl::make_unexpected(written.error());
  }
  if (options.add_generation_prompt && !continues)
    renderer.generation_prompt(options.force_final_channel);
  return ids;
}

}  // namespace strata::harmony
