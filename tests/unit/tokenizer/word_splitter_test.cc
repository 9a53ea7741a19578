// The hand-written splitter against hand-made cases and against a backtracking matcher that follows
// the pattern literally.
#include "tokenizer/word_splitter.h"

#include <gmock/gmock.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/random.h"

namespace strata::tokenizer {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> split(std::string_view text) {
  WordSplitter splitter(text);
  std::vector<std::string> out;
  for (std::size_t at = 0; at < text.size();) {
    out.emplace_back(splitter.piece_at(at));
    if (out.back().empty()) {
      ADD_FAILURE() << "an empty piece at " << at;
      break;
    }
    at += out.back().size();
  }
  return out;
}

TEST(WordSplitter, Words) {
  EXPECT_THAT(split("Hello world"), ElementsAre("Hello", " world"));
  EXPECT_THAT(split("camelCaseWord HTTPServer"),
              ElementsAre("camel", "Case", "Word", " HTTPServer"));
  EXPECT_THAT(split("(foo)\"bar"), ElementsAre("(foo", ")\"", "bar"));
  EXPECT_THAT(split("\tx"), ElementsAre("\tx"));
  EXPECT_THAT(split("\nx"), ElementsAre("\n", "x"));
  EXPECT_THAT(split("日本語 テスト"), ElementsAre("日本語", " テスト"));
}

TEST(WordSplitter, HeadsGiveBackToTheLastCaselessLetter) {
  // U+0301 is in both letter classes: the upper-case letters behind the last one stay out.
  EXPECT_THAT(split("A\u0301BC"), ElementsAre("A\u0301", "BC"));
  EXPECT_THAT(split("ABC"), ElementsAre("ABC"));
  EXPECT_THAT(split("語AB語CD"), ElementsAre("語AB語", "CD"));
  EXPECT_THAT(split("語ABc"), ElementsAre("語ABc"));
  // A mark may lead a word, but only where the rest matches without giving back.
  EXPECT_THAT(split("\u0301ab"), ElementsAre("\u0301ab"));
  EXPECT_THAT(split("\u0301AB"), ElementsAre("\u0301", "AB"));
}

TEST(WordSplitter, Contractions) {
  EXPECT_THAT(split("it's we'LL I'd"), ElementsAre("it's", " we'LL", " I'd"));
  EXPECT_THAT(split("he'\u017f"), ElementsAre("he'\u017f"));  // long s folds to s
  EXPECT_THAT(split("x'rex"), ElementsAre("x're", "x"));
  EXPECT_THAT(split("x'l"), ElementsAre("x", "'l"));
  EXPECT_THAT(split("'s"), ElementsAre("'s"));
  EXPECT_THAT(split("5's"), ElementsAre("5", "'s"));
  EXPECT_THAT(split("A'S'S"), ElementsAre("A'S", "'S"));
}

TEST(WordSplitter, Numbers) {
  EXPECT_THAT(split("1234567"), ElementsAre("123", "456", "7"));
  EXPECT_THAT(split(" 12"), ElementsAre(" ", "12"));
  EXPECT_THAT(split("½Ⅷ٣४"), ElementsAre("½Ⅷ٣", "४"));
}

TEST(WordSplitter, SymbolsTakeTheirNewlines) {
  EXPECT_THAT(split(" {\n\n/}"), ElementsAre(" {\n\n/", "}"));
  EXPECT_THAT(split("a //\r\n b"), ElementsAre("a", " //\r\n", " b"));
  EXPECT_THAT(split("\u200b\u200b"), ElementsAre("\u200b\u200b"));  // no white space
}

TEST(WordSplitter, Spaces) {
  EXPECT_THAT(split("a   b"), ElementsAre("a", "  ", " b"));
  EXPECT_THAT(split("a   "), ElementsAre("a", "   "));
  EXPECT_THAT(split("a \n \n  b"), ElementsAre("a", " \n \n", " ", " b"));
  EXPECT_THAT(split("\u00a0\u3000\u2028x"), ElementsAre("\u00a0\u3000", "\u2028x"));
  EXPECT_THAT(split("  1"), ElementsAre(" ", " ", "1"));
  EXPECT_THAT(split("\u0085"), ElementsAre("\u0085"));
}

TEST(WordSplitter, InvalidUtf8IsSymbols) {
  EXPECT_THAT(split("a\xff\xfe b"), ElementsAre("a", "\xff\xfe", " b"));
  EXPECT_THAT(split("\xe4\xb8"), ElementsAre("\xe4\xb8"));
  EXPECT_THAT(split("\xed\xa0\x80x"), ElementsAre("\xed\xa0\x80", "x"));  // a surrogate
}

// --- the pattern by plain backtracking -----------------------------------------------------------

struct Char {
  std::string bytes;
  std::uint32_t value;
  CharClass kind;
};
using Chars = std::vector<Char>;
using Predicate = std::function<bool(const Char&)>;
struct Atom {
  Predicate matches;
  std::size_t least;
  std::size_t most;
};
constexpr std::size_t kMany = 1000;

// Greedy match of atoms[k..] at `at`, longest repeat first; `tail` matches what follows.
std::optional<std::size_t> match(
    const Chars& text, std::size_t at, const std::vector<Atom>& atoms, std::size_t k,
    const std::function<std::optional<std::size_t>(std::size_t)>& tail) {
  if (k == atoms.size()) return tail(at);
  std::size_t count = 0;
  while (count < atoms[k].most && at + count < text.size() && atoms[k].matches(text[at + count]))
    ++count;
  for (;; --count) {
    if (count < atoms[k].least) return std::nullopt;
    if (const auto end = match(text, at + count, atoms, k + 1, tail)) return end;
    if (count == 0) return std::nullopt;
  }
}

bool is(const Char& c, std::initializer_list<CharClass> kinds) {
  return std::find(kinds.begin(), kinds.end(), c.kind) != kinds.end();
}

std::size_t reference_end(const Chars& text, std::size_t at) {
  using enum CharClass;
  const Predicate lead = [](const Char& c) {
    return c.value != '\r' && c.value != '\n' && !is(c, {kUpper, kLower, kLetter, kNumber});
  };
  const Predicate head = [](const Char& c) { return is(c, {kUpper, kLetter, kMark}); };
  const Predicate tail = [](const Char& c) { return is(c, {kLower, kLetter, kMark}); };
  const Predicate number = [](const Char& c) { return is(c, {kNumber}); };
  const Predicate symbol = [](const Char& c) { return is(c, {kOther, kMark}); };
  const Predicate space = [](const Char& c) { return is(c, {kSpace}); };
  const Predicate newline = [](const Char& c) { return c.value == '\r' || c.value == '\n'; };
  const Predicate slash = [&](const Char& c) { return newline(c) || c.value == '/'; };
  const Predicate blank = [](const Char& c) { return c.value == ' '; };
  const auto here = [](std::size_t end) { return std::optional(end); };
  const auto contraction = [&](std::size_t end) {
    for (const char* word : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
      std::size_t i = 0;
      while (word[i] != 0 && end + i < text.size()) {
        std::uint32_t c = text[end + i].value;
        if (c >= 'A' && c <= 'Z') c += 'a' - 'A';
        if (c == 0x17f) c = 's';
        if (c != static_cast<unsigned char>(word[i])) break;
        ++i;
      }
      if (word[i] == 0) return std::optional(end + i);
    }
    return std::optional(end);
  };
  const auto no_word_behind = [&](std::size_t end) {
    return end == text.size() || space(text[end]) ? std::optional(end) : std::nullopt;
  };
  if (auto end =
          match(text, at, {{lead, 0, 1}, {head, 0, kMany}, {tail, 1, kMany}}, 0, contraction))
    return *end;
  if (auto end =
          match(text, at, {{lead, 0, 1}, {head, 1, kMany}, {tail, 0, kMany}}, 0, contraction))
    return *end;
  if (auto end = match(text, at, {{number, 1, 3}}, 0, here)) return *end;
  if (auto end = match(text, at, {{blank, 0, 1}, {symbol, 1, kMany}, {slash, 0, kMany}}, 0, here))
    return *end;
  if (auto end = match(text, at, {{space, 0, kMany}, {newline, 1, kMany}}, 0, here)) return *end;
  if (auto end = match(text, at, {{space, 1, kMany}}, 0, no_word_behind)) return *end;
  return match(text, at, {{space, 1, kMany}}, 0, here).value_or(at);
}

TEST(WordSplitter, AgreesWithTheLiteralPatternOnRandomText) {
  const std::vector<std::string> letters = {
      "A",      "\u01c5", "b", "s", "l", "\u017f", "\u02b0", "語",
      "\u0301", "\u0903", "1", "½", " ", " ",      "\u3000", "\t",
      "\r",     "\n",     "/", "'", ".", "€",      "\u200d", "\xff"};
  CharClassifier classify;
  for (std::uint64_t round = 0; round < 20000; ++round) {
    std::string text;
    Chars chars;
    const std::uint64_t length = 1 + random_at(round, 0) % 14;
    for (std::uint64_t i = 1; i <= length; ++i) {
      const std::string& c = letters[random_at(round, i) % letters.size()];
      const std::uint32_t value = code_point_at(c, 0).value;
      text += c;
      chars.push_back({c, value, classify(value)});
    }
    std::vector<std::string> expected;
    for (std::size_t at = 0; at < chars.size();) {
      const std::size_t end = reference_end(chars, at);
      ASSERT_GT(end, at);
      expected.emplace_back();
      for (; at < end; ++at) expected.back() += chars[at].bytes;
    }
    ASSERT_EQ(split(text), expected) << text;
  }
}

TEST(CodePoint, OnlyWellFormedSequencesAreDecoded) {
  EXPECT_EQ(code_point_at("", 0).length, 0);
  const std::vector<std::pair<std::string, std::uint32_t>> good = {{std::string(1, '\0'), 0},
                                                                   {"\x7f", 0x7f},
                                                                   {"\xc2\x80", 0x80},
                                                                   {"\xdf\xbf", 0x7ff},
                                                                   {"\xe0\xa0\x80", 0x800},
                                                                   {"\xed\x9f\xbf", 0xd7ff},
                                                                   {"\xee\x80\x80", 0xe000},
                                                                   {"\xf0\x90\x80\x80", 0x10000},
                                                                   {"\xf4\x8f\xbf\xbf", 0x10ffff}};
  for (const auto& [bytes, value] : good) {
    EXPECT_EQ(code_point_at(bytes, 0).value, value);
    EXPECT_EQ(code_point_at(bytes, 0).length, static_cast<int>(bytes.size()));
  }
  for (const char* bytes : {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2z", "\xe0\x9f\xbf",
                            "\xe1\x80", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf",
                            "\xf1\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff"}) {
    EXPECT_EQ(code_point_at(bytes, 0).value, 0xfffdU);
    EXPECT_EQ(code_point_at(bytes, 0).length, 1);
  }
}

TEST(CharClassifier, KnowsUnicode15) {
  CharClassifier classify;
  const std::vector<std::pair<std::uint32_t, CharClass>> expected = {
      {0, CharClass::kOther},        {'A', CharClass::kUpper},     {'z', CharClass::kLower},
      {'0', CharClass::kNumber},     {' ', CharClass::kSpace},     {0x85, CharClass::kSpace},
      {0xa0, CharClass::kSpace},     {0x180e, CharClass::kOther},  {0x200b, CharClass::kOther},
      {0xfeff, CharClass::kOther},   {0x1c5, CharClass::kUpper},   {0x2b0, CharClass::kLetter},
      {0x4e00, CharClass::kLetter},  {0x9fff, CharClass::kLetter}, {0xac00, CharClass::kLetter},
      {0x0300, CharClass::kMark},    {0x20dd, CharClass::kMark},   {0x2160, CharClass::kNumber},
      {0x1f600, CharClass::kOther},  {0x1df25, CharClass::kLower},  // new in Unicode 15
      {0x323af, CharClass::kLetter}, {0x2ebf0, CharClass::kOther},  // came with Unicode 15.1
      {0xe0100, CharClass::kMark},   {0x10ffff, CharClass::kOther}};
  for (const auto& [point, kind] : expected) EXPECT_EQ(classify(point), kind) << std::hex << point;
}

}  // namespace
}  // namespace strata::tokenizer
