#include "serve/stop_matcher.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/random.h"
#include "serve/visible_text.h"

namespace strata::serve {
namespace {

TEST(StopMatcher, ReleasesEverythingWithoutStops) {
  StopMatcher matcher;
  std::string out;
  EXPECT_FALSE(matcher.push("abc", out));
  EXPECT_EQ(out, "abc");
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBeAStop) {
  StopMatcher matcher({"END"});
  std::string out;
  EXPECT_FALSE(matcher.push("one E", out));
  EXPECT_EQ(out, "one ");
  EXPECT_FALSE(matcher.push("N", out));
  EXPECT_EQ(out, "one ");
  EXPECT_FALSE(matcher.push("x EN", out));
  EXPECT_EQ(out, "one ENx ");
  EXPECT_TRUE(matcher.push("D more", out));
  EXPECT_EQ(out, "one ENx ");
  EXPECT_EQ(matcher.matched(), "END");
  EXPECT_TRUE(matcher.push("later", out));
  EXPECT_EQ(out, "one ENx ");
}

TEST(StopMatcher, FlushGivesBackWhatWasNoStop) {
  StopMatcher matcher({"\n\n"});
  std::string out;
  matcher.push("a\n", out);
  EXPECT_EQ(out, "a");
  matcher.flush(out);
  EXPECT_EQ(out, "a\n");
}

TEST(StopMatcher, MayIncludeTheStop) {
  StopMatcher matcher({"END"}, true);
  std::string out;
  EXPECT_TRUE(matcher.push("aENDb", out));
  EXPECT_EQ(out, "aEND");
}

// The reference: the stop that is complete after the fewest bytes, the longest of these.
std::string cut(const std::string& text, const std::vector<std::string>& stops) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t longest = 0;
    for (const auto& stop : stops)
      if (end >= stop.size() && text.compare(end - stop.size(), stop.size(), stop) == 0)
        longest = std::max(longest, stop.size());
    if (longest > 0) return text.substr(0, end - longest);
  }
  return text;
}

TEST(StopMatcher, IsTheSameHoweverTheTextIsCut) {
  const std::vector<std::vector<std::string>> stop_sets = {
      {"aab"}, {"ab", "abc"}, {"aba", "bb"}, {"abcabd", "cab"}, {"a"}, {"bca", "abca", "ca"}};
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    std::string text;
    for (std::uint64_t i = 0; i < 12; ++i) text += static_cast<char>('a' + random_at(seed, i) % 4);
    const auto& stops = stop_sets[seed % stop_sets.size()];
    StopMatcher matcher(stops);
    std::string out;
    bool stopped = false;
    for (std::size_t at = 0; at < text.size() && !stopped;) {
      const std::size_t size = 1 + random_at(seed, 100 + at) % 4;
      stopped = matcher.push(text.substr(at, size), out);
      at += size;
    }
    if (!stopped) matcher.flush(out);
    ASSERT_EQ(out, cut(text, stops)) << text << " " << stops[0];
  }
}

api::TokenLogprobText token(const std::string& bytes) { return {bytes, -1.0F, {}}; }

TEST(VisibleText, TokensFollowTheirText) {
  VisibleText text({"END"}, false);
  text.add_token(token("a "));
  text.push("a ");
  text.add_token(token("E"));
  text.push("E");
  auto piece = text.take();
  EXPECT_EQ(piece.text, "a ");
  ASSERT_EQ(piece.tokens.size(), 1U) << "the held back token's logprob is held back too";
  text.add_token(token("x"));
  text.push("x");
  piece = text.take();
  EXPECT_EQ(piece.text, "Ex");
  EXPECT_EQ(piece.tokens.size(), 2U);
}

TEST(VisibleText, TokensOfAStopStringAreDropped) {
  VisibleText text({"END"}, false);
  text.add_token(token("aE"));
  text.push("aE");
  text.add_token(token("ND"));
  EXPECT_TRUE(text.push("ND"));
  const auto piece = text.take();
  EXPECT_EQ(piece.text, "a");
  ASSERT_EQ(piece.tokens.size(), 1U);
  EXPECT_EQ(piece.tokens[0].bytes, "aE");
}

TEST(VisibleText, PartsOfACharacterComeWithIt) {
  VisibleText text({}, false);
  text.add_token(token("\xf0\x9f"));
  EXPECT_TRUE(text.take().tokens.empty());
  text.add_token(token("\x98\x80"));
  text.push("\xf0\x9f\x98\x80");
  EXPECT_EQ(text.take().tokens.size(), 2U);
}

}  // namespace
}  // namespace strata::serve
