#include <gtest/gtest.h>

#include "base/random.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"

namespace strata::tokenizer {
namespace {

#define BAD "\xef\xbf\xbd"

std::string decode(std::string_view bytes) {
  Utf8Stream stream;
  std::string out;
  stream.push(bytes, out);
  stream.finish(out);
  return out;
}

TEST(Utf8Stream, KeepsWellFormedText) {
  for (const char* text : {"", "plain", "é", "你好", "\U0001F600", "\u07ff\u0800\uffff\U00010000",
                           "\ud7ff\ue000", "\U0010ffff"})
    EXPECT_EQ(decode(text), text);
}

// Cases of the Unicode standard, section 3.9 (best practice), and of the WHATWG decoder.
TEST(Utf8Stream, ReplacesEachMaximalInvalidPrefixOnce) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\x80", BAD},
      {"\xc0\xaf", BAD BAD},
      {"\xe0\x80\xaf", BAD BAD BAD},
      {"\xf0\x80\x80\xaf", BAD BAD BAD BAD},
      {"\xed\xa0\x80", BAD BAD BAD},
      {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", BAD BAD BAD BAD BAD "A" BAD BAD "B"},
      {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", BAD BAD BAD BAD "A"},
      {"\xf5", BAD},
      {"\xe4\xb8", BAD},
      {"a\xe4\xb8z", "a" BAD "z"},
      {" \xf0\x9f \xf0\x9f", " " BAD " " BAD},
      {"\xe4\xe4\xb8\xad", BAD "\xe4\xb8\xad"},
  };
  for (const auto& [bytes, expected] : cases) EXPECT_EQ(decode(bytes), expected);
}

TEST(Utf8Stream, HoldsBackOnlyUnfinishedCharacters) {
  Utf8Stream stream;
  std::string out;
  stream.push("a\xf0\x9f", out);
  EXPECT_EQ(out, "a");
  EXPECT_TRUE(stream.pending());
  stream.push("\x98", out);
  EXPECT_EQ(out, "a");
  stream.push(
      "\x80"
      "b",
      out);
  EXPECT_EQ(out, "a\U0001F600b");
  EXPECT_FALSE(stream.pending());
  stream.finish(out);
  EXPECT_EQ(out, "a\U0001F600b");
}

TEST(Utf8Stream, FinishLeavesItReadyForTheNextText) {
  Utf8Stream stream;
  std::string out;
  stream.push("\xe4\xb8", out);
  stream.finish(out);
  stream.push("\xad", out);
  stream.push("x", out);
  EXPECT_EQ(out, BAD BAD "x");
}

TEST(Utf8Stream, SplitsDoNotMatterAndOutputIsAlwaysWellFormed) {
  // Bytes that begin, continue and break sequences.
  const std::string letters =
      "aZ\x80\xbf\xc2\xc3\xe0\xa0\xe4\xb8\xad\xed\x9f\xf0\x90\x9f\x98\xf4\x8f\xff";
  for (std::uint64_t round = 0; round < 5000; ++round) {
    std::string bytes;
    const std::uint64_t length = random_at(round, 0) % 20;
    for (std::uint64_t i = 1; i <= length; ++i)
      bytes.push_back(letters[random_at(round, i) % letters.size()]);
    Utf8Stream stream;
    std::string out;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t take = 1 + random_at(round, 100 + at) % 4;
      const std::size_t before = out.size();
      stream.push(std::string_view(bytes).substr(at, take), out);
      for (std::size_t i = before; i < out.size();) {  // each delta stands alone
        const CodePoint point = code_point_at(out, i);
        ASSERT_FALSE(point.value == 0xfffd && point.length == 1);
        i += static_cast<std::size_t>(point.length);
      }
      at += take;
    }
    stream.finish(out);
    ASSERT_EQ(out, decode(bytes));
  }
}

}  // namespace
}  // namespace strata::tokenizer
