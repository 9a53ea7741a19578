// However bytes are cut, the stream gives the same well-formed text, and gives it early: nothing
// complete is held back.
#include <cstdint>

#include "base/check.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"

using strata::tokenizer::CodePoint;
using strata::tokenizer::Utf8Stream;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t cut = 1 + data[0] % 7;
  const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);

  Utf8Stream whole;
  std::string expected;
  whole.push(bytes, expected);
  whole.finish(expected);

  Utf8Stream stream;
  std::string text;
  for (std::size_t at = 0; at < bytes.size(); at += cut) stream.push(bytes.substr(at, cut), text);
  const std::size_t early = text.size();
  const bool pending = stream.pending();
  stream.finish(text);
  STRATA_CHECK(text == expected);
  STRATA_CHECK(text.size() == early + (pending ? 3 : 0));
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint point = strata::tokenizer::code_point_at(text, i);
    STRATA_CHECK(point.length > 1 || point.value < 0x80, "not UTF-8 at {}", i);
    i += static_cast<std::size_t>(point.length);
  }
  return 0;
}
