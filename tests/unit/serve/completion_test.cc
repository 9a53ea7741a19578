#include <gtest/gtest.h>

#include <string>

#include "tests/unit/serve/service_harness.h"

namespace strata::testing {
namespace {

json body(const json& prompt, const json& more = json::object()) {
  json out = {{"prompt", prompt}};
  out.update(more);
  return out;
}

TEST(Completion, AnswersRawText) {
  ServiceHarness harness({"world of text<|return|>"});
  const auto out = harness.post_json("/v1/completions", body("hello"));
  EXPECT_EQ(out["object"], "text_completion");
  EXPECT_TRUE(out["id"].get<std::string>().starts_with("cmpl-"));
  EXPECT_EQ(out["choices"][0]["text"], "world of text");
  EXPECT_EQ(out["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(out["usage"]["prompt_tokens"], tiny_tokenizer().encode("hello").size());
}

TEST(Completion, StreamsTheSameText) {
  ServiceHarness harness({"world of text<|return|>"});
  bool done = false;
  const auto events = read_events(
      harness
          .post("/v1/completions",
                body("hello", {{"stream", true}, {"stream_options", {{"include_usage", true}}}})
                    .dump())
          .body,
      &done);
  EXPECT_TRUE(done);
  std::string text;
  std::string finish;
  for (const auto& event : events)
    for (const auto& choice : event["choices"]) {
      text += choice["text"].get<std::string>();
      if (!choice["finish_reason"].is_null()) finish = choice["finish_reason"];
    }
  EXPECT_EQ(text, "world of text");
  EXPECT_EQ(finish, "stop");
  EXPECT_GT(events.back()["usage"]["total_tokens"], 0);
}

TEST(Completion, TakesIdsAndSeveralPrompts) {
  ServiceHarness harness({"one<|return|>", "two<|return|>", "three<|return|>", "four<|return|>"});
  const auto ids = tiny_tokenizer().encode("hello");
  auto out = harness.post_json(
      "/v1/completions", body(json::array({ids, ids}), {{"n", 2}, {"return_token_ids", true}}));
  ASSERT_EQ(out["choices"].size(), 4U);
  EXPECT_EQ(out["choices"][0]["text"], "one");
  EXPECT_EQ(out["choices"][3]["text"], "four");
  EXPECT_EQ(out["choices"][3]["index"], 3);
  EXPECT_EQ(out["choices"][1]["prompt_token_ids"].get<std::vector<TokenId>>(), ids);
  EXPECT_EQ(out["choices"][0]["token_ids"].get<std::vector<TokenId>>(),
            tiny_tokenizer().encode_with_specials("one<|return|>"));
  EXPECT_EQ(out["usage"]["prompt_tokens"], 2 * ids.size());
}

TEST(Completion, EchoScoresThePromptWithoutGenerating) {
  ServiceHarness harness({"never"});
  const std::string prompt = "the cat sat on the mat";
  const auto ids = tiny_tokenizer().encode(prompt);
  const auto out = harness.post_json(
      "/v1/completions", body(prompt, {{"echo", true}, {"logprobs", 2}, {"max_tokens", 0}}));
  const auto& choice = out["choices"][0];
  EXPECT_EQ(choice["text"], prompt);
  EXPECT_EQ(choice["finish_reason"], "length");
  const auto& logprobs = choice["logprobs"];
  ASSERT_EQ(logprobs["tokens"].size(), ids.size());
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
  for (std::size_t i = 1; i < ids.size(); ++i) {
    EXPECT_TRUE(logprobs["token_logprobs"][i].is_number());
    EXPECT_EQ(logprobs["top_logprobs"][i].size(), 2U);
  }
  std::size_t offset = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(logprobs["text_offset"][i], offset);
    offset += tiny_tokenizer().token_bytes(ids[i]).size();
  }
  EXPECT_EQ(out["usage"]["completion_tokens"], 0);
  EXPECT_EQ(out["usage"]["prompt_tokens"], ids.size());
}

TEST(Completion, LogprobsOfPromptAndAnswerAreOneList) {
  ServiceHarness harness({" and ran<|return|>"});
  const auto out =
      harness.post_json("/v1/completions", body("the cat", {{"echo", true}, {"logprobs", 0}}));
  const auto& choice = out["choices"][0];
  EXPECT_EQ(choice["text"], "the cat and ran");
  std::string joined;
  for (const auto& token : choice["logprobs"]["tokens"]) joined += token.get<std::string>();
  EXPECT_EQ(joined, "the cat and ran<|return|>");
}

TEST(Completion, SpecialTokensAreShownWhenAsked) {
  ServiceHarness harness({"<|channel|>final<|message|>hi<|return|>"});
  EXPECT_EQ(harness.post_json("/v1/completions", body("a"))["choices"][0]["text"], "finalhi");
  EXPECT_EQ(harness.post_json("/v1/completions",
                              body("a", {{"skip_special_tokens", false}}))["choices"][0]["text"],
            "<|channel|>final<|message|>hi<|return|>");
}

TEST(Completion, StopStringsAndLimitsEndIt) {
  ServiceHarness harness({"one two three four<|return|>"});
  auto out = harness.post_json("/v1/completions", body("a", {{"stop", " three"}}));
  EXPECT_EQ(out["choices"][0]["text"], "one two");
  EXPECT_EQ(out["choices"][0]["stop_reason"], " three");
  out = harness.post_json("/v1/completions",
                          body("a", {{"stop", " three"}, {"include_stop_str_in_output", true}}));
  EXPECT_EQ(out["choices"][0]["text"], "one two three");
  out = harness.post_json("/v1/completions", body("a", {{"max_tokens", 1}}));
  EXPECT_EQ(out["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(out["usage"]["completion_tokens"], 1);
}

TEST(Completion, DefaultsToSixteenTokens) {
  ServiceHarness harness({std::string(200, 'x')});
  const auto out = harness.post_json("/v1/completions", body("a"));
  EXPECT_LE(out["usage"]["completion_tokens"], 16);
}

}  // namespace
}  // namespace strata::testing
