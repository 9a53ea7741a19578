#include "harmony/header.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace strata::harmony {
namespace {

constexpr std::string_view kSpaces = " \t\r\n\v\f";
constexpr std::string_view kRecipientMark = "to=";

// Takes the next word off `text`, empty at the end.
std::string_view take_word(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(kSpaces), text.size()));
  const std::string_view word = text.substr(0, text.find_first_of(kSpaces));
  text.remove_prefix(word.size());
  return word;
}

Channel exact_channel(std::string_view word) {
  if (word == "analysis") return Channel::kAnalysis;
  if (word == "commentary") return Channel::kCommentary;
  if (word == "final") return Channel::kFinal;
  return Channel::kNone;
}

// A garbled name such as "\u2013\u2013commentary" still says its channel; the last name in it wins.
Channel channel_within(std::string_view word) {
  constexpr std::array<std::string_view, 3> kNames = {"analysis", "commentary", "final"};
  std::size_t best = 0;
  Channel channel = Channel::kNone;
  for (const std::string_view name : kNames) {
    const std::size_t at = word.rfind(name);
    if (at == std::string_view::npos || (channel != Channel::kNone && at < best)) continue;
    best = at;
    channel = exact_channel(name);
  }
  return channel;
}

class HeaderReader {
 public:
  HeaderReader(bool has_role, const std::vector<std::string>& declared_tools)
      : expects_role_(has_role), declared_tools_(declared_tools) {}

  Header read(const std::vector<HeaderPiece>& pieces) {
    for (const HeaderPiece& piece : pieces) {
      std::string_view rest = begin_piece(piece);
      while (!rest.empty()) take(take_word(rest));
    }
    return std::move(header_);
  }

  // As read(), but words end where content begins: at the first that is no recipient.
  Header read_with_content(const std::vector<HeaderPiece>& pieces) {
    headless_ = true;
    for (const HeaderPiece& piece : pieces) {
      std::string_view rest = begin_piece(piece);
      for (std::string_view after = rest;;) {
        const std::string_view word = take_word(after);
        if (!word.starts_with(kRecipientMark)) break;
        take(word);
        rest = after;
      }
      if (header_.content.empty())
        rest.remove_prefix(std::min(rest.find_first_not_of(kSpaces), rest.size()));
      header_.content += rest;
    }
    header_.malformed = true;
    return std::move(header_);
  }

 private:
  std::string_view begin_piece(const HeaderPiece& piece);
  void take_role(std::string_view& rest);
  void take_channel(std::string_view& rest);
  void take(std::string_view word);
  void take_recipient(std::string_view name);
  std::string declared(std::string_view name) const;

  bool expects_role_;
  bool headless_ = false;
  bool has_channel_ = false;
  const std::vector<std::string>& declared_tools_;
  Header header_;
};

// Takes what the marker in front of a piece announces; returns the text behind that.
std::string_view HeaderReader::begin_piece(const HeaderPiece& piece) {
  std::string_view rest = piece.text;
  switch (piece.marker) {
    case HeaderMarker::kNone: take_role(rest); break;
    case HeaderMarker::kChannel: take_channel(rest); break;
    case HeaderMarker::kConstrain: {  // a content type: "json"
      rest.remove_prefix(std::min(rest.find_first_not_of(kSpaces), rest.size()));
      const auto is_letter = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
      };
      while (!rest.empty() && is_letter(rest.front())) rest.remove_prefix(1);
      break;
    }
  }
  return rest;
}

void HeaderReader::take_role(std::string_view& rest) {
  constexpr std::string_view kAssistant = "assistant";
  if (!expects_role_) return;
  expects_role_ = false;
  if (rest.starts_with(kAssistant)) {
    rest.remove_prefix(kAssistant.size());
    return;
  }
  std::string_view after = rest;
  const std::string_view role = take_word(after);
  if (role.starts_with(kRecipientMark) || role.empty()) {
    header_.malformed = true;
    return;
  }
  header_.from_assistant = false;
  rest = after;
}

void HeaderReader::take_channel(std::string_view& rest) {
  header_.malformed |= has_channel_;
  has_channel_ = true;
  std::string_view after = rest;
  std::string_view word = take_word(after);
  const std::size_t glued = word.find(kRecipientMark);
  if (glued != std::string_view::npos) {  // "commentaryto=f", or a recipient and no name
    header_.malformed = true;
    after = rest.substr(static_cast<std::size_t>(word.data() - rest.data()) + glued);
    word = word.substr(0, glued);
  }
  Channel channel = exact_channel(word);
  if (channel == Channel::kNone) {
    header_.malformed = true;
    if (headless_) return;  // the word is content
    channel = channel_within(word);
  }
  // The last channel wins, but a marker without a name takes nothing back.
  if (channel != Channel::kNone) header_.channel = channel;
  rest = after;
}

void HeaderReader::take(std::string_view word) {
  if (word.empty()) return;
  if (word.starts_with(kRecipientMark)) {
    take_recipient(word.substr(kRecipientMark.size()));
    return;
  }
  if (const std::string tool = declared(word); !tool.empty() && header_.tool.empty()) {
    header_.malformed = true;
    take_recipient(word);  // a bare name
    return;
  }
  const Channel channel = exact_channel(word);
  if (channel != Channel::kNone && !has_channel_) header_.channel = channel;  // lacks its marker
  const bool is_content_type = word == "json" || word == "code" || word == "text";
  header_.malformed |= !is_content_type;
}

// Of several recipients a declared tool wins, else the last.
void HeaderReader::take_recipient(std::string_view name) {
  header_.malformed |= !header_.recipient.empty() || name.empty();
  if (name.empty() || name == "all" || name == "user") return;
  const std::string tool = declared(name);
  if (tool.empty() && !header_.tool.empty()) return;
  header_.recipient = name;
  header_.tool = tool;
}

std::string HeaderReader::declared(std::string_view name) const {
  constexpr std::string_view kPrefix = "functions.";
  const auto offered = [&](std::string_view text) {
    return std::find(declared_tools_.begin(), declared_tools_.end(), text) != declared_tools_.end();
  };
  if (offered(name)) return std::string(name);
  if (name.starts_with(kPrefix) && offered(name.substr(kPrefix.size())))
    return std::string(name.substr(kPrefix.size()));
  return {};
}

}  // namespace

Header read_header(const std::vector<HeaderPiece>& pieces, bool has_role,
                   const std::vector<std::string>& declared_tools) {
  return HeaderReader(has_role, declared_tools).read(pieces);
}

Header read_headless(const std::vector<HeaderPiece>& pieces, bool has_role,
                     const std::vector<std::string>& declared_tools) {
  return HeaderReader(has_role, declared_tools).read_with_content(pieces);
}

}  // namespace strata::harmony
