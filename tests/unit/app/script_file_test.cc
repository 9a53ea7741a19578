#include "app/script_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "app/exit_code.h"
#include "base/result.h"

namespace strata::app {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class ScriptFile : public testing::Test {
 protected:
  static constexpr std::int32_t kVocab = 4096;
  ScriptFile()
      : tokenizer_(
            tokenizer::Tokenizer::load(STRATA_SOURCE_DIR "/models/strata-tiny/tokenizer.json")) {}
  void TearDown() override { fs::remove(file_); }
  std::vector<std::vector<TokenId>> read(const std::string& text) {
    std::ofstream(file_) << text;
    return read_script(file_, *tokenizer_, kVocab);
  }
  std::string failure(const std::string& text) {
    try {
      read(text);
    } catch (const StartupError& error) {
      EXPECT_EQ(error.exit_code(), kExitModel);
      EXPECT_FALSE(error.hint().empty());
      return error.what();
    }
    return "accepted";
  }

  const fs::path file_ = fs::path(testing::TempDir()) / "script_file_test.jsonl";
  std::unique_ptr<const tokenizer::Tokenizer> tokenizer_;
};

TEST_F(ScriptFile, TextRecognisesSpecials) {
  const auto scripts = read("{\"text\": \"<|channel|>final<|message|>hi<|return|>\"}\n");
  ASSERT_EQ(scripts.size(), 1U);
  const auto& ids = tokenizer_->specials();
  EXPECT_EQ(scripts[0].front(), ids.channel);
  EXPECT_EQ(scripts[0].back(), ids.return_);
  EXPECT_THAT(scripts[0], testing::Contains(ids.message));
  EXPECT_EQ(tokenizer_->decode(scripts[0]), "<|channel|>final<|message|>hi<|return|>");
}

TEST_F(ScriptFile, TokensAndBlankLines) {
  EXPECT_THAT(read("\n{\"tokens\": [1, 2, 3]}\r\n\n{\"tokens\": []}"),
              ElementsAre(ElementsAre(1, 2, 3), testing::IsEmpty()));
}

TEST_F(ScriptFile, BadLinesNameFileAndLine) {
  struct Case {
    const char* text;
    const char* message;
  };
  const std::vector<Case> cases = {
      {"{\"tokens\": [1]}\n{\"text\": }", "script_file_test.jsonl:2:"},
      {"\n\nnot json", "script_file_test.jsonl:3:"},
      {"[1, 2]", "needs one key"},
      {"{}", "needs one key"},
      {"{\"text\": \"a\", \"tokens\": [1]}", "needs one key"},
      {"{\"txt\": \"a\"}", "unknown key \"txt\""},
      {"{\"text\": 5}", "\"text\" must be a string"},
      {"{\"tokens\": \"a\"}", "\"tokens\" must be a list"},
      {"{\"tokens\": [1.5]}", "\"tokens\" must be a list"},
      {"{\"tokens\": [4096]}", "token 4096 is outside the vocabulary of 4096"},
      {"{\"tokens\": [-1]}", "token -1 is outside"},
      {"\n \n", "holds no line"},
      {"", "holds no line"},
  };
  for (const Case& bad : cases) {
    EXPECT_THAT(failure(bad.text), HasSubstr(bad.message)) << bad.text;
    EXPECT_THAT(failure(bad.text), HasSubstr("script_file_test.jsonl")) << bad.text;
  }
}

TEST_F(ScriptFile, AMissingFileIsNamed) {
  EXPECT_THROW(read_script("/nonexistent/a.jsonl", *tokenizer_, kVocab), StartupError);
}

}  // namespace
}  // namespace strata::app
