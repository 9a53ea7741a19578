// Loading: small synthetic files, right and wrong ones.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/result.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/word_splitter.h"

namespace strata::tokenizer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string utf8(unsigned code_point) {
  if (code_point < 0x80) return {static_cast<char>(code_point)};
  return {static_cast<char>(0xc0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3f))};
}

// Byte-level letter of a byte, by the rule of GPT-2's bytes_to_unicode.
std::string letter(unsigned byte) {
  unsigned moved = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    if (b == byte) return utf8(printable ? b : moved);
    if (!printable) ++moved;
  }
  return {};
}

// 256 bytes with ids 0..255, "ab" 256, "bc" 257, "abc" 258, "<|end|>" 300.
Json small_file() {
  Json vocab = Json::object();
  for (unsigned byte = 0; byte < 256; ++byte) vocab[letter(byte)] = byte;
  vocab["ab"] = 256;
  vocab["bc"] = 257;
  vocab["abc"] = 258;
  Json file;
  file["added_tokens"] = Json::array({{{"id", 300}, {"content", "<|end|>"}, {"special", true}}});
  file["normalizer"] = nullptr;
  file["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       Json::array({{{"type", "Split"}, {"pattern", {{"Regex", std::string(kO200kPattern)}}}},
                    {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}})}};
  file["model"] = {{"type", "BPE"},
                   {"ignore_merges", false},
                   {"vocab", vocab},
                   {"merges", Json::array({"b c", "a b", "a bc"})}};
  return file;
}

class TokenizerFileTest : public ::testing::Test {
 protected:
  std::unique_ptr<const Tokenizer> load(const std::string& text) {
    std::ofstream(path_, std::ios::binary) << text;
    return Tokenizer::load(path_);
  }
  std::unique_ptr<const Tokenizer> load(const Json& file) { return load(file.dump()); }

  void expect_refused(const std::string& text, const std::string& why) {
    try {
      load(text);
      ADD_FAILURE() << "accepted; expected: " << why;
    } catch (const StartupError& error) {
      EXPECT_THAT(error.what(), HasSubstr(path_.string()));
      EXPECT_THAT(error.what(), HasSubstr(why));
    }
  }
  void expect_refused(const Json& file, const std::string& why) {
    expect_refused(file.dump(), why);
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::filesystem::path path_ =
      std::filesystem::path(::testing::TempDir()) /
      (std::string("tokenizer_") + ::testing::UnitTest::GetInstance()->current_test_info()->name() +
       ".json");
};

TEST_F(TokenizerFileTest, MergesByTheOrderOfTheMergeList) {
  // "b c" has the lower rank although the id of "ab" is lower.
  EXPECT_THAT(load(small_file())->encode("abc"), ElementsAre(258));
  Json file = small_file();
  file["model"]["merges"] = Json::array({"b c", "a b"});
  EXPECT_THAT(load(file)->encode("abc"), ElementsAre('a', 257));
  file["model"]["merges"] = Json::array({"a b", "b c"});
  EXPECT_THAT(load(file)->encode("abc"), ElementsAre(256, 'c'));
  file["model"]["merges"] = Json::array({"a b", "b c", "a b"});  // the last of twins counts
  EXPECT_THAT(load(file)->encode("abc"), ElementsAre('a', 257));
}

TEST_F(TokenizerFileTest, IgnoreMergesTakesAWholePieceThatIsAToken) {
  Json file = small_file();
  file["model"]["merges"] = Json::array({"a b"});
  EXPECT_THAT(load(file)->encode("abc"), ElementsAre(256, 'c'));
  file["model"]["ignore_merges"] = true;
  EXPECT_THAT(load(file)->encode("abc"), ElementsAre(258));
}

TEST_F(TokenizerFileTest, ReadsMergesAsPairsToo) {
  Json file = small_file();
  file["model"]["merges"] = Json::array({Json::array({"b", "c"}), Json::array({"a", "bc"})});
  EXPECT_THAT(load(file)->encode("abcab"), ElementsAre(258, 'a', 'b'));
}

TEST_F(TokenizerFileTest, HolesInTheIdsHaveNoToken) {
  const auto tokenizer = load(small_file());
  EXPECT_EQ(tokenizer->size(), 301);
  EXPECT_EQ(tokenizer->token_bytes(258), "abc");
  EXPECT_EQ(tokenizer->token_bytes(259), "");
  EXPECT_EQ(tokenizer->token_bytes(300), "<|end|>");
  EXPECT_EQ(tokenizer->specials().end, 300);
  EXPECT_EQ(tokenizer->specials().start, kNoToken);
  EXPECT_TRUE(tokenizer->stop_ids().empty());
  EXPECT_EQ(tokenizer->never_emit(302).size(), 302U - 259U - 1U);
}

TEST_F(TokenizerFileTest, AVocabularyMayListItsSpecials) {
  Json file = small_file();
  file["model"]["vocab"]["<|end|>"] = 300;
  const auto tokenizer = load(file);
  EXPECT_TRUE(tokenizer->is_special(300));
  for (const TokenId id : tokenizer->encode("<|end|>")) EXPECT_LT(id, 256);
}

TEST_F(TokenizerFileTest, RefusesOtherPatterns) {
  Json file = small_file();
  Json& split = file["pre_tokenizer"]["pretokenizers"][0];
  split["pattern"]["Regex"] = "\\w+|\\s+";
  expect_refused(file, "the word pattern is not that of o200k but \"\\w+|\\s+\"");
  split["pattern"] = Json::object();
  expect_refused(file, "the word pattern");
}

TEST_F(TokenizerFileTest, RefusesWhatIsNotByteLevelBpe) {
  Json file = small_file();
  file["model"]["type"] = "WordPiece";
  expect_refused(file, "model.type is \"WordPiece\"");
  file = small_file();
  file["normalizer"] = {{"type", "NFC"}};
  expect_refused(file, "normalizer");
  file = small_file();
  file["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = true;
  expect_refused(file, "ByteLevel");
  file = small_file();
  file["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true;
  expect_refused(file, "add_prefix_space");
  file = small_file();
  file["model"]["byte_fallback"] = true;
  expect_refused(file, "byte_fallback");
  file = small_file();
  file["model"]["end_of_word_suffix"] = "</w>";
  expect_refused(file, "end_of_word_suffix");
}

TEST_F(TokenizerFileTest, RefusesBrokenVocabularies) {
  Json file = small_file();
  file["model"]["vocab"]["zz"] = 7;
  expect_refused(file, "two tokens have the id 7");
  file = small_file();
  file["model"]["vocab"].erase(letter(0x0a));
  expect_refused(file, "no token for the byte 0x0a");
  file = small_file();
  file["model"]["vocab"]["z z"] = 400;
  expect_refused(file, "\"z z\" is not written in byte-level letters");
  for (const Json& id : {Json(-1), Json(1.5), Json("7"), Json(1LL << 40), Json(~0ULL)}) {
    file = small_file();
    file["model"]["vocab"]["zz"] = id;
    expect_refused(file, "token \"zz\" has no valid id");
  }
  file = small_file();
  file["added_tokens"][0]["id"] = 97;
  expect_refused(file, "id 97");
  file = small_file();
  file["added_tokens"][0].erase("id");
  expect_refused(file, "added token");
}

TEST_F(TokenizerFileTest, RefusesBrokenMerges) {
  Json file = small_file();
  file["model"].erase("merges");
  expect_refused(file, "model.merges is missing");
  for (const char* merge : {"a z", "ax b", "c a"}) {
    file = small_file();
    file["model"]["merges"][1] = merge;
    expect_refused(file, "merge 1 names a token that is not in model.vocab");
  }
  file = small_file();
  file["model"]["merges"][1] = "ab";
  expect_refused(file, "merge \"ab\" is not a pair");
  file["model"]["merges"][1] = Json::array({"a", "b", "c"});
  expect_refused(file, "a merge has 3 parts");
}

TEST_F(TokenizerFileTest, RefusesDuplicateBytes) {
  const std::string text = small_file().dump();
  const std::string with_twin =
      std::string(text).replace(text.find("\"abc\":258"), 9, "\"abc\":258,\"abc\":259");
  expect_refused(with_twin, "token 259 has the bytes of another token");
}

TEST_F(TokenizerFileTest, RefusesWhatIsNoJson) {
  const std::string text = small_file().dump();
  expect_refused(text.substr(0, text.size() / 2), "byte");
  expect_refused(std::string(), "byte");
  expect_refused(std::string("[]"), "ByteLevel");
  std::filesystem::remove(path_);
  EXPECT_THROW(Tokenizer::load(path_), StartupError);
}

}  // namespace
}  // namespace strata::tokenizer
