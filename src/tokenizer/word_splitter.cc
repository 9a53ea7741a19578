#include "tokenizer/word_splitter.h"

#include <array>

namespace strata::tokenizer {
namespace {

constexpr std::size_t kNoMatch = std::string_view::npos;

// The two overlapping letter classes of the pattern.
bool is_head(CharClass kind) {  // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
  return kind == CharClass::kUpper || kind == CharClass::kLetter || kind == CharClass::kMark;
}
bool is_tail(CharClass kind) {  // [\p{Ll}\p{Lm}\p{Lo}\p{M}]
  return kind == CharClass::kLower || kind == CharClass::kLetter || kind == CharClass::kMark;
}
bool is_letter(CharClass kind) {  // \p{L}
  return kind == CharClass::kUpper || kind == CharClass::kLower || kind == CharClass::kLetter;
}
bool is_symbol(CharClass kind) {  // [^\s\p{L}\p{N}]
  return kind == CharClass::kOther || kind == CharClass::kMark;
}
bool is_newline(std::uint32_t value) { return value == '\r' || value == '\n'; }

std::size_t length_of(const CodePoint& point) { return static_cast<std::size_t>(point.length); }

}  // namespace

WordSplitter::Char WordSplitter::char_at(std::size_t at) {
  const CodePoint point = code_point_at(text_, at);
  return {point, classify_(point.value)};
}

std::size_t WordSplitter::piece_end(std::size_t at) {
  if (const std::size_t end = word_end(at); end != kNoMatch) return end;
  if (const std::size_t end = number_end(at); end != kNoMatch) return end;
  if (const std::size_t end = symbols_end(at); end != kNoMatch) return end;
  return spaces_end(at);
}

// The first two alternatives. Both may take one leading character that is neither letter, number
// nor newline, and try without it when that fails: a mark can lead a word or be part of it.
std::size_t WordSplitter::word_end(std::size_t at) {
  const Char first = char_at(at);
  const bool leads =
      !is_newline(first.point.value) && !is_letter(first.kind) && first.kind != CharClass::kNumber;
  const std::size_t after = at + length_of(first.point);
  std::size_t end = leads ? lower_word_end(after) : kNoMatch;
  if (end == kNoMatch) end = lower_word_end(at);
  if (end == kNoMatch && leads) end = upper_word_end(after);
  if (end == kNoMatch) end = upper_word_end(at);
  return end == kNoMatch ? end : contraction_end(end);
}

// head* tail+. The heads are greedy; unless a lower-case letter follows them, they give back up to
// their last character that is also a tail.
std::size_t WordSplitter::lower_word_end(std::size_t at) {
  std::size_t last_tail_end = kNoMatch;
  Char c = char_at(at);
  for (; c.point.length > 0 && is_head(c.kind); c = char_at(at)) {
    at += length_of(c.point);
    if (is_tail(c.kind)) last_tail_end = at;
  }
  if (c.point.length == 0 || !is_tail(c.kind)) return last_tail_end;
  for (; c.point.length > 0 && is_tail(c.kind); c = char_at(at)) at += length_of(c.point);
  return at;
}

// head+ tail*, where head* tail+ did not match: no tail is among or behind the heads.
std::size_t WordSplitter::upper_word_end(std::size_t at) {
  const std::size_t begin = at;
  for (Char c = char_at(at); c.point.length > 0 && is_head(c.kind); c = char_at(at))
    at += length_of(c.point);
  return at > begin ? at : kNoMatch;
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)? Of all letters named here only s has a fold outside ASCII.
std::size_t WordSplitter::contraction_end(std::size_t at) const {
  constexpr std::array<std::string_view, 8> kEndings = {"s",  "\xc5\xbf", "t",  "re",
                                                        "ve", "m",        "ll", "d"};
  if (at >= text_.size() || text_[at] != '\'') return at;
  const std::string_view rest = text_.substr(at + 1, 2);
  for (const std::string_view ending : kEndings) {
    if (rest.size() < ending.size()) continue;
    bool equal = true;
    for (std::size_t i = 0; i < ending.size(); ++i) {
      const char c = rest[i];
      equal &= ending[i] == (c >= 'A' && c <= 'Z' ? static_cast<char>(c + 'a' - 'A') : c);
    }
    if (equal) return at + 1 + ending.size();
  }
  return at;
}

std::size_t WordSplitter::number_end(std::size_t at) {  // \p{N}{1,3}
  const std::size_t begin = at;
  for (int count = 0; count < 3; ++count) {
    const Char c = char_at(at);
    if (c.kind != CharClass::kNumber) break;
    at += length_of(c.point);
  }
  return at > begin ? at : kNoMatch;
}

std::size_t WordSplitter::symbols_end(std::size_t at) {  // ' '?[^\s\p{L}\p{N}]+[\r\n/]*
  if (text_[at] == ' ') ++at;
  const std::size_t begin = at;
  for (Char c = char_at(at); c.point.length > 0 && is_symbol(c.kind); c = char_at(at))
    at += length_of(c.point);
  if (at == begin) return kNoMatch;
  while (at < text_.size() && (text_[at] == '\r' || text_[at] == '\n' || text_[at] == '/')) ++at;
  return at;
}

// \s*[\r\n]+ | \s+(?!\S) | \s+: up to the last newline of the run of white space; without one, the
// run less its last character, which goes to the word behind it.
std::size_t WordSplitter::spaces_end(std::size_t at) {
  const std::size_t begin = at;
  std::size_t newline_end = kNoMatch;
  std::size_t last = at;
  Char c = char_at(at);
  for (; c.point.length > 0 && c.kind == CharClass::kSpace; c = char_at(at)) {
    last = at;
    at += length_of(c.point);
    if (is_newline(c.point.value)) newline_end = at;
  }
  if (newline_end != kNoMatch) return newline_end;
  return at == text_.size() || last == begin ? at : last;
}

}  // namespace strata::tokenizer
