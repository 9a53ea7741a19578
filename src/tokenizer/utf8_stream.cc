#include "tokenizer/tokenizer.h"

namespace strata::tokenizer {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

int sequence_length(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

// May `byte` be the second byte after `lead`? (Unicode 15, table 3-7: no overlong forms, no
// surrogates, nothing beyond U+10FFFF.)
bool second_byte_fits(unsigned char lead, unsigned char byte) {
  const unsigned low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  const unsigned high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  return byte >= low && byte <= high;
}

}  // namespace

void Utf8Stream::push(std::string_view bytes, std::string& out) {
  for (std::size_t i = 0; i < bytes.size();) {
    const auto byte = static_cast<unsigned char>(bytes[i]);
    if (held_ == 0) {
      ++i;
      const int length = sequence_length(byte);
      if (length == 1) out.push_back(bytes[i - 1]);
      else if (length == 0) out += kReplacement;
      else buffer_[static_cast<std::size_t>(held_++)] = bytes[i - 1];
      continue;
    }
    const auto lead = static_cast<unsigned char>(buffer_[0]);
    const bool fits = held_ == 1 ? second_byte_fits(lead, byte) : (byte & 0xc0U) == 0x80U;
    if (!fits) {  // the byte starts afresh
      out += kReplacement;
      held_ = 0;
      continue;
    }
    ++i;
    buffer_[static_cast<std::size_t>(held_++)] = static_cast<char>(byte);
    if (held_ == sequence_length(lead)) {
      out.append(buffer_.data(), static_cast<std::size_t>(held_));
      held_ = 0;
    }
  }
}

void Utf8Stream::finish(std::string& out) {
  if (held_ > 0) out += kReplacement;
  held_ = 0;
}

}  // namespace strata::tokenizer
