#include "tokenizer/unicode.h"

#include <algorithm>

namespace strata::tokenizer {
namespace {

constexpr CodePoint kInvalidByte{0xfffd, 1};

}  // namespace

CodePoint code_point_at(std::string_view text, std::size_t at) {
  if (at >= text.size()) return {};
  const auto byte = [&](std::size_t i) -> std::uint32_t {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0;
  };
  const std::uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xc2 || lead > 0xf4) return kInvalidByte;
  const int length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  std::uint32_t value = lead & (0xffU >> (length + 1));
  for (int i = 1; i < length; ++i) {
    if ((byte(static_cast<std::size_t>(i)) & 0xc0U) != 0x80U) return kInvalidByte;
    value = value << 6 | (byte(static_cast<std::size_t>(i)) & 0x3fU);
  }
  // Overlong forms, surrogates and what lies beyond the last plane.
  if (length == 3 && (value < 0x800 || (value >= 0xd800 && value < 0xe000))) return kInvalidByte;
  if (length == 4 && (value < 0x10000 || value > 0x10ffff)) return kInvalidByte;
  return {value, length};
}

void CharClassifier::find(std::uint32_t code_point) {
  const auto runs = char_runs();
  const std::uint32_t after_all_classes = code_point << 3 | 7U;
  const auto next = std::upper_bound(runs.begin(), runs.end(), after_all_classes);
  const std::uint32_t run = *(next - 1);  // the first run begins at 0
  first_ = run >> 3;
  end_ = next == runs.end() ? 0x110000U : *next >> 3;
  class_ = static_cast<CharClass>(run & 7U);
}

}  // namespace strata::tokenizer
