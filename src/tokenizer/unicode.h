// Code points: UTF-8 decoding and the character classes of the o200k word pattern.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace strata::tokenizer {

// General categories as far as the word pattern tells them apart. The values are stored in
// unicode_tables.cc; tools/unicode/make_tables.py knows them too.
enum class CharClass : std::uint8_t {
  kOther,   // punctuation, symbols, controls, unassigned; also bytes that are not UTF-8
  kUpper,   // Lu, Lt
  kLower,   // Ll
  kLetter,  // Lm, Lo: letters without case
  kMark,    // M
  kNumber,  // N
  kSpace,   // property White_Space
};

// Generated: runs of code points of one class in order, first code point << 3 | class.
std::span<const std::uint32_t> char_runs();

struct CodePoint {
  std::uint32_t value = 0;  // U+FFFD for a byte that is not part of well-formed UTF-8
  int length = 0;           // bytes taken; 1 for such a byte, 0 at the end of the text
};
CodePoint code_point_at(std::string_view text, std::size_t at);

// Finds the class of code points. Neighbours in a text mostly come from one script, so the run of
// the last look-up is tried first. One per thread.
class CharClassifier {
 public:
  CharClass operator()(std::uint32_t code_point) {
    if (code_point < first_ || code_point >= end_) find(code_point);
    return class_;
  }

 private:
  void find(std::uint32_t code_point);
  std::uint32_t first_ = 0;
  std::uint32_t end_ = 0;
  CharClass class_ = CharClass::kOther;
};

}  // namespace strata::tokenizer
