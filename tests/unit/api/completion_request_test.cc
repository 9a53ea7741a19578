#include "api/completion_request.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace strata::api {
namespace {

constexpr RequestLimits kLimits{100, 20};

TEST(CompletionRequest, TakesEveryShapeOfPrompt) {
  const auto prompts = [](const std::string& json) {
    const auto request = parse_completion_request(R"({"prompt":)" + json + "}", kLimits);
    EXPECT_TRUE(request.has_value()) << json << request.error().message;
    return request ? request->prompts : std::vector<PromptField>{};
  };
  EXPECT_EQ(prompts(R"("a")"), (std::vector<PromptField>{std::string("a")}));
  EXPECT_EQ(prompts(R"(["a","b"])"),
            (std::vector<PromptField>{std::string("a"), std::string("b")}));
  EXPECT_EQ(prompts("[1,99]"), (std::vector<PromptField>{std::vector<TokenId>{1, 99}}));
  EXPECT_EQ(prompts("[[1],[2,3]]"),
            (std::vector<PromptField>{std::vector<TokenId>{1}, std::vector<TokenId>{2, 3}}));
}

TEST(CompletionRequest, HasOpenAisDefaults) {
  const auto request = parse_completion_request(R"({"prompt":"a"})", kLimits);
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(request->max_tokens, 16);
  EXPECT_FALSE(request->echo);
  EXPECT_FALSE(request->logprobs.has_value());
  EXPECT_EQ(parse_completion_request(R"({"prompt":"a","max_tokens":0})", kLimits)->max_tokens, 0);
}

TEST(CompletionRequest, NamesTheFieldThatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({})", "prompt"},
      {R"({"prompt":null})", "prompt"},
      {R"({"prompt":""})", "prompt"},
      {R"({"prompt":[]})", "prompt"},
      {R"({"prompt":[[]]})", "prompt"},
      {R"({"prompt":["a",""]})", "prompt"},
      {R"({"prompt":{}})", "prompt"},
      {R"({"prompt":[true]})", "prompt"},
      {R"({"prompt":[100]})", "prompt"},
      {R"({"prompt":[-1]})", "prompt"},
      {R"({"prompt":[1.5]})", "prompt"},
      {R"({"prompt":[1,"a"]})", "prompt"},
      {R"({"prompt":"a","max_tokens":-5})", "max_tokens"},
      {R"({"prompt":"a","logprobs":21})", "logprobs"},
      {R"({"prompt":"a","logprobs":true})", "logprobs"},
      {R"({"prompt":"a","suffix":"b"})", "suffix"},
      {R"({"prompt":"a","echo":1})", "echo"},
      {R"({"prompt":"a","best_of":2})", "best_of"},
      {R"({"prompt":"a","response_format":{"type":"json_object"}})", "response_format.type"},
      {R"({"prompt":["a","a","a","a","a","a","a","a","a"],"n":16})", "n"},
  };
  for (const auto& [body, param] : cases) {
    const auto request = parse_completion_request(body, kLimits);
    ASSERT_FALSE(request.has_value()) << body;
    EXPECT_EQ(request.error().param, param) << body;
  }
}

TEST(TokenizeRequest, TakesAPromptOrLeavesMessagesToTheChatParser) {
  EXPECT_EQ(parse_tokenize_request(R"({"prompt":""})")->prompt, "");
  EXPECT_EQ(parse_tokenize_request(R"({"content":"x"})")->prompt, "x");
  EXPECT_FALSE(parse_tokenize_request(R"({"messages":[]})")->prompt.has_value());
  EXPECT_EQ(parse_tokenize_request(R"({"prompt":7})").error().param, "prompt");
  EXPECT_EQ(parse_tokenize_request(R"({})").error().param, "prompt");
}

TEST(DetokenizeRequest, ChecksTheIds) {
  EXPECT_EQ(*parse_detokenize_request(R"({"tokens":[1,2]})", kLimits),
            (std::vector<TokenId>{1, 2}));
  EXPECT_EQ(parse_detokenize_request(R"({"tokens":[100]})", kLimits).error().param, "tokens");
  EXPECT_EQ(parse_detokenize_request(R"({"tokens":"1"})", kLimits).error().param, "tokens");
  EXPECT_EQ(parse_detokenize_request(R"({})", kLimits).error().param, "tokens");
}

}  // namespace
}  // namespace strata::api
