#include "serve/turn_memory.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <random>
#include <span>

namespace strata::serve {
namespace {

using harmony::MessageKind;

// Of an entry beside its token ids: list node, map node, message structs.
constexpr std::size_t kEntryBytes = 256;
constexpr std::size_t kMessageBytes = 256;

const char* channel_of(MessageKind kind) {
  switch (kind) {
    case MessageKind::kAnalysis: return "analysis";
    case MessageKind::kPreamble:
    case MessageKind::kToolCall: return "commentary";
    case MessageKind::kFinal: return "final";
    case MessageKind::kDiscarded: break;
  }
  return "";
}

void add_number(Sha256& hash, std::uint64_t number) {
  hash.update(std::as_bytes(std::span(&number, 1)));
}

// With its length in front: no two lists of texts are the same bytes.
void add_text(Sha256& hash, std::string_view text) {
  add_number(hash, text.size());
  hash.update(std::as_bytes(std::span(text.data(), text.size())));
}

void add_field(const TurnPart& part, std::string text, TurnFields& out) {
  switch (part.kind) {
    case MessageKind::kAnalysis: out.reasoning += text; break;
    case MessageKind::kToolCall: out.calls.emplace_back(part.tool_name, std::move(text)); break;
    default:
      // As ChatChoice joins a preamble and the final message.
      if (!out.content.empty()) out.content += '\n';
      out.content += text;
  }
}

bool has_special(std::span<const TokenId> tokens, const tokenizer::Tokenizer& tokenizer) {
  return std::any_of(tokens.begin(), tokens.end(),
                     [&](TokenId id) { return tokenizer.is_special(id); });
}

}  // namespace

std::optional<ExactTurn> exact_turn(const std::vector<TokenId>& opening,
                                    const std::vector<TokenId>& tokens,
                                    const std::vector<TurnPart>& parts,
                                    const tokenizer::Tokenizer& tokenizer) {
  const auto& ids = tokenizer.specials();
  ExactTurn turn;
  std::vector<TokenId> all = opening;
  all.insert(all.end(), tokens.begin(), tokens.end());
  std::size_t next = 0;  // first token of the next message, behind <|start|>
  for (const auto& part : parts) {
    if (part.kind == MessageKind::kDiscarded) return std::nullopt;
    auto content = part.content + opening.size();
    const auto end = part.end + opening.size();
    if (content < next || end < content || end > all.size()) return std::nullopt;
    if (part.content == 0) {  // the prompt opened the message, and may have begun its text
      const auto marker = std::find(all.begin(), all.end(), ids.message);
      content = static_cast<std::size_t>(marker - all.begin()) + 1;
      if (content > opening.size()) return std::nullopt;
    }
    if (content == 0 || all[content - 1] != ids.message) return std::nullopt;
    const std::span body(all.data() + content, end - content);
    if (has_special(body, tokenizer)) return std::nullopt;
    auto& message = turn.messages.emplace_back();
    message.role = harmony::Role::kAssistant;
    message.channel = channel_of(part.kind);
    message.tokens.assign(all.begin() + static_cast<std::ptrdiff_t>(next),
                          all.begin() + static_cast<std::ptrdiff_t>(end));
    message.tokens.push_back(part.kind == MessageKind::kToolCall ? ids.call : ids.end);
    add_field(part, tokenizer.decode({body.begin(), body.end()}), turn.fields);
    // Behind the closing token and the <|start|> of the next message, if there is one.
    next = end + 2;
    if (next <= all.size() && all[next - 1] != ids.start) return std::nullopt;
  }
  if (turn.messages.empty()) return std::nullopt;
  return turn;
}

TurnMemory::TurnMemory(std::size_t max_bytes) : max_bytes_(max_bytes) {
  std::random_device device;
  for (auto& word : secret_) word = device();
}

std::size_t TurnMemory::KeyHash::operator()(const Sha256Digest& key) const {
  std::size_t out = 0;
  std::memcpy(&out, key.data(), sizeof out);
  return out;
}

Sha256Digest TurnMemory::key_of(const TurnFields& fields, std::string_view salt) const {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(secret_)));
  add_text(hash, salt);
  add_text(hash, fields.content);
  add_text(hash, fields.reasoning);
  add_number(hash, fields.calls.size());
  for (const auto& [name, arguments] : fields.calls) {
    add_text(hash, name);
    add_text(hash, arguments);
  }
  return hash.finish();
}

void TurnMemory::remember(ExactTurn turn, std::string_view salt) {
  Entry entry{key_of(turn.fields, salt), std::move(turn.messages), kEntryBytes};
  for (const auto& message : entry.messages)
    entry.bytes += kMessageBytes + message.tokens.size() * sizeof(TokenId);
  if (entry.bytes > max_bytes_) return;
  const std::lock_guard lock(mutex_);
  if (const auto found = index_.find(entry.key); found != index_.end()) {
    bytes_ -= found->second->bytes;
    entries_.erase(found->second);
    index_.erase(found);
  }
  bytes_ += entry.bytes;
  entries_.push_front(std::move(entry));
  index_.emplace(entries_.front().key, entries_.begin());
  while (bytes_ > max_bytes_) {
    bytes_ -= entries_.back().bytes;
    index_.erase(entries_.back().key);
    entries_.pop_back();
  }
}

std::optional<std::vector<harmony::Message>> TurnMemory::find(const TurnFields& fields,
                                                              std::string_view salt) {
  const auto key = key_of(fields, salt);
  const std::lock_guard lock(mutex_);
  const auto found = index_.find(key);
  if (found == index_.end()) return std::nullopt;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->messages;
}

std::size_t TurnMemory::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace strata::serve
