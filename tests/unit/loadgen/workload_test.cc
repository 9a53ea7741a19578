#include "loadgen/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/result.h"

namespace strata::loadgen {
namespace {

using testing::HasSubstr;

LoadOptions small_random(Api api) {
  LoadOptions options;
  options.api = api;
  options.num_prompts = 200;
  options.input_tokens = 20;
  options.output_tokens = 10;
  options.range_ratio = 0.5;
  return options;
}

TEST(RandomPrompts, LengthsFillTheRange) {
  std::int32_t shortest = 1000, longest = 0;
  for (const Prompt& prompt : random_prompts(small_random(Api::kCompletions))) {
    EXPECT_EQ(prompt.ids.size(), static_cast<std::size_t>(prompt.input_tokens));
    shortest = std::min(shortest, prompt.input_tokens);
    longest = std::max(longest, prompt.input_tokens);
    EXPECT_GE(prompt.output_tokens, 5);
    EXPECT_LE(prompt.output_tokens, 15);
    for (const std::int32_t id : prompt.ids) EXPECT_TRUE(id >= 256 && id < 4000) << id;
  }
  EXPECT_EQ(shortest, 10);
  EXPECT_EQ(longest, 30);
}

TEST(RandomPrompts, AreAFunctionOfTheSeed) {
  LoadOptions options = small_random(Api::kCompletions);
  const auto first = random_prompts(options);
  EXPECT_EQ(random_prompts(options)[7].ids, first[7].ids);
  EXPECT_NE(first[6].ids, first[7].ids);
  options.seed = 1;
  EXPECT_NE(random_prompts(options)[7].ids, first[7].ids);
}

TEST(RandomPrompts, ShareTheirPrefix) {
  LoadOptions options = small_random(Api::kCompletions);
  options.prefix_tokens = 5;
  options.range_ratio = 0;
  const auto prompts = random_prompts(options);
  for (const Prompt& prompt : prompts) {
    EXPECT_EQ(prompt.input_tokens, 25);
    EXPECT_TRUE(std::equal(prompt.ids.begin(), prompt.ids.begin() + 5, prompts[0].ids.begin()));
  }
}

TEST(RandomPrompts, AreWordsForAChat) {
  LoadOptions options = small_random(Api::kChat);
  options.range_ratio = 0;
  const Prompt prompt = random_prompts(options)[0];
  EXPECT_TRUE(prompt.ids.empty());
  EXPECT_EQ(std::count(prompt.text.begin(), prompt.text.end(), ' '), 19);
}

TEST(CustomPrompts, AreTakenInTurn) {
  LoadOptions options;
  options.num_prompts = 3;
  const auto prompts =
      custom_prompts(options, "{\"prompt\":\"a\"}\n\n{\"prompt\":\"b\",\"output_tokens\":7}\r\n");
  ASSERT_EQ(prompts.size(), 3U);
  EXPECT_EQ(prompts[0].text + prompts[1].text + prompts[2].text, "aba");
  EXPECT_EQ(prompts[0].output_tokens, 256);
  EXPECT_EQ(prompts[1].output_tokens, 7);
}

TEST(CustomPrompts, BadLinesAreNamed) {
  LoadOptions options;
  options.dataset_path = "set.jsonl";
  const auto message = [&](const char* text) -> std::string {
    try {
      custom_prompts(options, text);
    } catch (const StartupError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(message("{\"prompt\":\"a\"}\n{\"prompt\":1}"), HasSubstr("set.jsonl line 2"));
  EXPECT_THAT(message("{"), HasSubstr("set.jsonl line 1"));
  EXPECT_THAT(message("[1]"), HasSubstr("line 1"));
  EXPECT_THAT(message("{\"prompt\":\"a\",\"output_tokens\":0}"), HasSubstr("output_tokens"));
  EXPECT_THAT(message("\n"), HasSubstr("no prompts"));
}

TEST(RequestBody, OfACompletion) {
  LoadOptions options;
  options.model = "m";
  options.ignore_eos = true;
  options.temperature = 0;
  options.extra_body = R"({"top_k":5,"stream_options":{"include_usage":true,"x":1}})";
  const auto body = Json::parse(request_body(options, Prompt{"", {5, 6}, 2, 9}));
  EXPECT_EQ(body, Json::parse(R"({"model":"m","prompt":[5,6],"max_tokens":9,"stream":true,
      "stream_options":{"include_usage":true,"x":1},"ignore_eos":true,"temperature":0.0,"top_k":5})"));
}

TEST(RequestBody, OfAChat) {
  LoadOptions options;
  options.model = "m";
  options.api = Api::kChat;
  const auto body = Json::parse(request_body(options, Prompt{"say \"hi\"", {}, 0, 9}));
  EXPECT_EQ(body, Json::parse(R"({"model":"m","messages":[{"role":"user","content":"say \"hi\""}],
      "max_completion_tokens":9,"stream":true,"stream_options":{"include_usage":true}})"));
}

}  // namespace
}  // namespace strata::loadgen
