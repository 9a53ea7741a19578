// Cuts text into the pieces that byte-pair encoding works on: the o200k pattern by hand.
#pragma once

#include <cstddef>
#include <string_view>

#include "tokenizer/unicode.h"

namespace strata::tokenizer {

// The pattern this splitter implements, as written in tokenizer.json. The first alternative that
// matches wins; inside one, quantifiers are greedy and give back.
inline constexpr std::string_view kO200kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Every text is covered by pieces without gaps, in time linear in its length.
class WordSplitter {
 public:
  explicit WordSplitter(std::string_view text) : text_(text) {}
  // The piece that begins at byte `at` < size; the next one begins at its end.
  std::string_view piece_at(std::size_t at) { return text_.substr(at, piece_end(at) - at); }

 private:
  struct Char {
    CodePoint point;
    CharClass kind = CharClass::kOther;
  };
  Char char_at(std::size_t at);
  std::size_t piece_end(std::size_t at);
  std::size_t word_end(std::size_t at);
  std::size_t lower_word_end(std::size_t at);
  std::size_t upper_word_end(std::size_t at);
  std::size_t contraction_end(std::size_t at) const;
  std::size_t number_end(std::size_t at);
  std::size_t symbols_end(std::size_t at);
  std::size_t spaces_end(std::size_t at);

  std::string_view text_;
  CharClassifier classify_;
};

}  // namespace strata::tokenizer
