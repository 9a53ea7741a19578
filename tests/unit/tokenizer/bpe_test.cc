#include <gmock/gmock.h>

#include <map>

#include "base/random.h"
#include "tokenizer/vocabulary.h"

namespace strata::tokenizer {
namespace {

// A vocabulary over four letters, its merges drawn at random: many overlap and share results.
struct RandomVocabulary {
  explicit RandomVocabulary(std::uint64_t seed) {
    std::vector<std::string> tokens;
    for (unsigned byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
    std::vector<std::string> pool = {"a", "b", "c", "d"};
    std::vector<std::pair<std::string, std::string>> pairs;
    for (std::uint64_t i = 0; i < 60; ++i) {
      const std::string& left = pool[random_at(seed, 2 * i) % pool.size()];
      const std::string& right = pool[random_at(seed, 2 * i + 1) % pool.size()];
      const std::string joined = left + right;
      pairs.emplace_back(left, right);
      if (std::find(tokens.begin(), tokens.end(), joined) == tokens.end()) {
        tokens.push_back(joined);
        pool.push_back(joined);
      }
    }
    for (std::size_t i = 0; i < tokens.size(); ++i)
      vocabulary.add(static_cast<TokenId>(i), tokens[i]);
    vocabulary.index();
    vocabulary.reserve_merges(pairs.size());
    for (const auto& [left, right] : pairs) {
      const auto rank = static_cast<std::uint32_t>(ranks.size());
      if (!ranks.emplace(std::pair(left, right), rank).second) continue;
      vocabulary.add_merge(vocabulary.find(left), vocabulary.find(right),
                           {rank, vocabulary.find(left + right)});
    }
  }

  // The definition: join the pair of lowest rank, leftmost first, until none is left.
  std::vector<TokenId> expected(const std::string& piece) const {
    std::vector<std::string> parts;
    for (const char c : piece) parts.emplace_back(1, c);
    for (;;) {
      std::uint32_t best = Merge::kNoRank;
      std::size_t at = 0;
      for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
        const auto found = ranks.find({parts[i], parts[i + 1]});
        if (found == ranks.end() || found->second >= best) continue;
        best = found->second;
        at = i;
      }
      if (best == Merge::kNoRank) break;
      parts[at] += parts[at + 1];
      parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
    std::vector<TokenId> out;
    for (const std::string& part : parts) out.push_back(vocabulary.find(part));
    return out;
  }

  Vocabulary vocabulary;
  std::map<std::pair<std::string, std::string>, std::uint32_t> ranks;
};

TEST(EncodePiece, FollowsTheDefinitionForShortAndLongPieces) {
  BpeScratch scratch;  // shared, as the tokenizer does
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const RandomVocabulary random(seed);
    for (std::uint64_t round = 0; round < 30; ++round) {
      std::string piece;
      const std::uint64_t length = 1 + random_at(seed, 1000 + round) % 120;
      for (std::uint64_t i = 0; i < length; ++i)
        piece.push_back("abcd"[random_at(seed * 1000 + round, i) % (1 + round % 4)]);
      std::vector<TokenId> ids;
      encode_piece(random.vocabulary, piece, scratch, ids);
      ASSERT_EQ(ids, random.expected(piece)) << piece;
    }
  }
}

TEST(EncodePiece, AppendsToWhatIsThere) {
  const RandomVocabulary random(1);
  BpeScratch scratch;
  std::vector<TokenId> ids = {7};
  encode_piece(random.vocabulary, "", scratch, ids);
  encode_piece(random.vocabulary, "x", scratch, ids);
  EXPECT_THAT(ids, ::testing::ElementsAre(7, 'x'));
}

TEST(Vocabulary, FindsTokensAndReportsTwins) {
  Vocabulary vocabulary;
  vocabulary.add(5, "five");
  vocabulary.add(2, "two");
  EXPECT_EQ(vocabulary.index(), kNoToken);
  EXPECT_EQ(vocabulary.size(), 6);
  EXPECT_EQ(vocabulary.find("five"), 5);
  EXPECT_EQ(vocabulary.find("three"), kNoToken);
  EXPECT_FALSE(vocabulary.has(3));
  EXPECT_EQ(vocabulary.bytes(2), "two");
  vocabulary.add(9, "two");
  EXPECT_EQ(vocabulary.index(), 9);
}

}  // namespace
}  // namespace strata::tokenizer
