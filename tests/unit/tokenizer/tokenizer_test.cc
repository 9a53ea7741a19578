// The tokenizer of the embedded model: a closed subset of o200k with its own ids.
#include "tokenizer/tokenizer.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <set>

#include "base/random.h"

namespace strata::tokenizer {
namespace {

using ::testing::ElementsAre;

class TinyTokenizer : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    tokenizer_ = Tokenizer::load(STRATA_SOURCE_DIR "/models/strata-tiny/tokenizer.json");
  }
  static void TearDownTestSuite() { tokenizer_.reset(); }

  static std::vector<std::string> pieces(std::string_view text) {
    std::vector<std::string> out;
    for (const TokenId id : tokenizer_->encode(text)) out.emplace_back(tokenizer_->token_bytes(id));
    return out;
  }
  static std::unique_ptr<const Tokenizer> tokenizer_;
};
std::unique_ptr<const Tokenizer> TinyTokenizer::tokenizer_;

TEST_F(TinyTokenizer, EncodesKnownTextInWords) {
  EXPECT_THAT(pieces("Hello, how are you?"),
              ElementsAre("Hello", ",", " how", " are", " you", "?"));
}

TEST_F(TinyTokenizer, DecodesWhatItEncoded) {
  for (const std::string text :
       {"", " ", "plain words", "你好，世界。", "emoji \U0001F469\u200d\U0001F469\u200d\U0001F467",
        "tabs\t\tand\r\nlines\n\n", "a\u0301e\u0301", "x\u00a0y\u3000z"}) {
    EXPECT_EQ(tokenizer_->decode(tokenizer_->encode(text)), text);
  }
}

TEST_F(TinyTokenizer, DecodesArbitraryBytesToThemselves) {
  for (std::uint64_t round = 0; round < 500; ++round) {
    std::string bytes;
    for (std::uint64_t i = 0; i < round % 97; ++i)
      bytes.push_back(static_cast<char>(random_at(round, i)));
    EXPECT_EQ(tokenizer_->decode(tokenizer_->encode(bytes)), bytes);
  }
}

TEST_F(TinyTokenizer, TextNeverBecomesASpecialToken) {
  for (TokenId id = 0; id < tokenizer_->size(); ++id) {
    if (!tokenizer_->is_special(id)) continue;
    const std::string text = "a" + std::string(tokenizer_->token_bytes(id)) + "b";
    for (const TokenId piece : tokenizer_->encode(text))
      EXPECT_FALSE(tokenizer_->is_special(piece));
  }
}

TEST_F(TinyTokenizer, OperatorTextMayNameSpecials) {
  const SpecialIds& ids = tokenizer_->specials();
  const auto encoded = tokenizer_->encode_with_specials("<|start|><|start|>user<|message|>hi<|end");
  ASSERT_GE(encoded.size(), 6U);
  EXPECT_EQ(encoded[0], ids.start);
  EXPECT_EQ(encoded[1], ids.start);
  EXPECT_EQ(encoded[3], ids.message);
  EXPECT_EQ(std::count(encoded.begin(), encoded.end(), ids.end), 0);
  EXPECT_EQ(tokenizer_->decode(encoded), "<|start|><|start|>user<|message|>hi<|end");
}

TEST_F(TinyTokenizer, SpecialsAreResolvedByName) {
  const SpecialIds& ids = tokenizer_->specials();
  const std::vector<std::pair<TokenId, const char*>> expected = {
      {ids.start_of_text, "<|startoftext|>"},
      {ids.end_of_text, "<|endoftext|>"},
      {ids.return_, "<|return|>"},
      {ids.constrain, "<|constrain|>"},
      {ids.channel, "<|channel|>"},
      {ids.start, "<|start|>"},
      {ids.end, "<|end|>"},
      {ids.message, "<|message|>"},
      {ids.call, "<|call|>"}};
  for (const auto& [id, text] : expected) {
    EXPECT_EQ(tokenizer_->token_bytes(id), text);
    EXPECT_TRUE(tokenizer_->is_special(id));
  }
  EXPECT_THAT(tokenizer_->stop_ids(), ElementsAre(ids.return_, ids.call, ids.end_of_text));
}

TEST_F(TinyTokenizer, IdsWithoutTokenHaveNoBytes) {
  for (const TokenId id : {kNoToken, tokenizer_->size(), TokenId{1} << 30}) {
    EXPECT_EQ(tokenizer_->token_bytes(id), "");
    EXPECT_FALSE(tokenizer_->is_special(id));
  }
}

TEST_F(TinyTokenizer, NeverEmitsReservedSpecialsAndRowsWithoutToken) {
  const TokenId rows = tokenizer_->size() + 5;
  const auto ids = tokenizer_->never_emit(rows);
  const std::set<TokenId> banned(ids.begin(), ids.end());
  const SpecialIds& s = tokenizer_->specials();
  EXPECT_TRUE(banned.contains(s.start_of_text));
  for (TokenId id = tokenizer_->size(); id < rows; ++id) EXPECT_TRUE(banned.contains(id));
  for (const TokenId id :
       {s.end_of_text, s.return_, s.constrain, s.channel, s.start, s.end, s.message, s.call})
    EXPECT_FALSE(banned.contains(id));
  for (TokenId id = 0; id < tokenizer_->size(); ++id) {
    const std::string_view text = tokenizer_->token_bytes(id);
    if (!tokenizer_->is_special(id)) {
      EXPECT_FALSE(banned.contains(id)) << text;
    } else if (text.starts_with("<|reserved_") || text == "<|endofprompt|>") {
      EXPECT_TRUE(banned.contains(id)) << text;
    }
  }
}

// A piece of a million bytes: only an encoder that is not quadratic comes back from it.
TEST_F(TinyTokenizer, EncodesOneVeryLongPiece) {
  std::string text;
  while (text.size() < 1'000'000) text += "the";
  const auto ids = tokenizer_->encode(text);
  EXPECT_EQ(tokenizer_->decode(ids), text);
  EXPECT_LT(ids.size(), text.size());
}

}  // namespace
}  // namespace strata::tokenizer
