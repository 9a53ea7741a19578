// Ends of reasoning that the model did not choose: budgets and "answer now".
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/unit/serve/service_harness.h"

namespace strata::testing {
namespace {

using Ids = std::vector<TokenId>;

const std::string kThoughts = "one two three four five six seven eight nine ten";
const std::string kForced = "<|end|><|start|>assistant<|channel|>final<|message|>";

Ids encode(const std::string& text) { return tiny_tokenizer().encode_with_specials(text); }

// What the scripted model says when its reasoning is ended after `kept` tokens: it goes on in its
// script behind as many tokens as were forced on it.
Ids script(std::size_t kept, const std::string& answer) {
  Ids out = encode("<|channel|>analysis<|message|>");
  const auto thoughts = encode(kThoughts);
  EXPECT_GT(thoughts.size(), kept);
  for (std::size_t i = 0; i < kept; ++i) out.push_back(thoughts[i]);
  out.resize(out.size() + encode(kForced).size(), thoughts[0]);
  const auto rest = encode(answer + "<|return|>");
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

std::string text_of(const std::string& thoughts, std::size_t tokens) {
  auto ids = encode(thoughts);
  ids.resize(tokens);
  return tiny_tokenizer().decode(ids);
}

json budget_body(int budget, bool stream = false) {
  auto body = chat_body();
  body["thinking_token_budget"] = budget;
  body["return_token_ids"] = true;
  if (stream) {
    body["stream"] = true;
    body["stream_options"] = {{"include_usage", true}};
  }
  return body;
}

TEST(ThinkingBudget, EndsTheReasoningAndAsksForTheAnswer) {
  ServiceHarness harness(std::vector<Ids>{script(4, "Hello there.")}, {});
  const auto out = harness.post_json("/v1/chat/completions", budget_body(4));
  const auto& message = out["choices"][0]["message"];
  EXPECT_EQ(message["reasoning"], text_of(kThoughts, 4));
  EXPECT_EQ(message["content"], "Hello there.");
  EXPECT_EQ(out["choices"][0]["finish_reason"], "stop");
  // The answer's tokens are what the model said and what it was made to say, each once.
  Ids whole = encode("<|channel|>analysis<|message|>");
  const auto thoughts = encode(kThoughts);
  whole.insert(whole.end(), thoughts.begin(), thoughts.begin() + 4);
  const auto rest = encode(kForced + "Hello there.<|return|>");
  whole.insert(whole.end(), rest.begin(), rest.end());
  EXPECT_EQ(out["choices"][0]["token_ids"].get<Ids>(), whole);
  EXPECT_EQ(out["usage"]["completion_tokens"], whole.size());
  const auto prompt = harness.post_json("/apply-template", chat_body());
  EXPECT_EQ(out["usage"]["prompt_tokens"], prompt["tokens"].size());
  EXPECT_GE(out["metrics"]["time_to_first_token_ms"], 0.0);
}

TEST(ThinkingBudget, StreamsTheSame) {
  ServiceHarness harness(std::vector<Ids>{script(4, "Hello there.")}, {});
  const auto whole = harness.post_json("/v1/chat/completions", budget_body(4));
  const auto response = harness.post("/v1/chat/completions", budget_body(4, true).dump());
  bool done = false;
  const auto events = read_events(response.body, &done);
  EXPECT_TRUE(done);
  const auto message = join_chunks(events);
  EXPECT_EQ(message["content"], "Hello there.");
  EXPECT_EQ(message["reasoning"], text_of(kThoughts, 4));
  EXPECT_EQ(events.back()["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
}

TEST(ThinkingBudget, TokensAreCountedOnce) {
  ServiceHarness harness(std::vector<Ids>{script(4, "Hello there.")}, {});
  const auto usage = harness.post_json("/v1/chat/completions", budget_body(4))["usage"];
  const auto metrics = harness.get("/metrics").body;
  const auto value = [&](const std::string& name) {
    const auto at = metrics.find("\n" + name + "{");
    EXPECT_NE(at, std::string::npos) << name;
    return std::stod(metrics.substr(metrics.find("} ", at) + 2));
  };
  EXPECT_EQ(value("vllm:prompt_tokens_total"), usage["prompt_tokens"].get<double>());
  EXPECT_EQ(value("vllm:generation_tokens_total"), usage["completion_tokens"].get<double>());
  EXPECT_EQ(value("vllm:prefix_cache_queries_total"), usage["prompt_tokens"].get<double>());
  EXPECT_EQ(value("vllm:request_generation_tokens_sum"), usage["completion_tokens"].get<double>());
  EXPECT_EQ(value("vllm:request_prompt_tokens_count"), 1.0);
}

TEST(ThinkingBudget, IsEnoughWhenTheModelEndsEarlier) {
  ServiceHarness harness(
      {"<|channel|>analysis<|message|>one two<|end|><|start|>assistant"
       "<|channel|>final<|message|>Hi.<|return|>"});
  for (const int budget : {-1, 100}) {
    const auto choice =
        harness.post_json("/v1/chat/completions", budget_body(budget))["choices"][0];
    EXPECT_EQ(choice["message"]["reasoning"], "one two");
    EXPECT_EQ(choice["message"]["content"], "Hi.");
  }
}

TEST(ThinkingBudget, ZeroSkipsTheReasoning) {
  ServiceHarness harness({"Hi.<|return|>"});
  const auto prompt =
      harness.post_json("/apply-template", budget_body(0))["prompt"].get<std::string>();
  EXPECT_TRUE(prompt.ends_with("<|start|>assistant<|channel|>final<|message|>"));
  EXPECT_EQ(
      harness.post_json("/v1/chat/completions", budget_body(0))["choices"][0]["message"]["content"],
      "Hi.");
}

TEST(ThinkingBudget, OpenRoutersFieldMeansTheSame) {
  ServiceHarness harness(std::vector<Ids>{script(4, "Hello there.")}, {});
  auto body = chat_body();
  body["reasoning"] = {{"max_tokens", 4}};
  const auto message = harness.post_json("/v1/chat/completions", body)["choices"][0]["message"];
  EXPECT_EQ(message["reasoning"], text_of(kThoughts, 4));
  body["reasoning"] = {{"max_tokens", -2}};
  const auto refused = harness.post("/v1/chat/completions", body.dump());
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(json::parse(refused.body)["error"]["param"], "reasoning.max_tokens");
}

TEST(ThinkingBudget, TheAnswersLimitHoldsForBothParts) {
  ServiceHarness harness(std::vector<Ids>{script(4, "one two three four five")}, {});
  auto body = budget_body(4);
  const auto forced = encode(kForced).size();
  body["max_tokens"] = 3 + 4 + forced + 2;
  auto out = harness.post_json("/v1/chat/completions", body);
  EXPECT_EQ(out["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(out["usage"]["completion_tokens"], body["max_tokens"]);
  EXPECT_NE(out["choices"][0]["message"]["content"], "");
  // No room is left behind the forced tokens: the reasoning is all there is.
  body["max_tokens"] = 3 + 4 + forced;
  out = harness.post_json("/v1/chat/completions", body);
  EXPECT_EQ(out["choices"][0]["finish_reason"], "length");
  EXPECT_TRUE(out["choices"][0]["message"]["content"].is_null());
  EXPECT_EQ(out["choices"][0]["message"]["reasoning"], text_of(kThoughts, 4));
}

TEST(ThinkingBudget, HoldsForEveryChoice) {
  ServiceHarness harness(std::vector<Ids>{script(4, "Hello."), script(4, "Good day.")}, {});
  auto body = budget_body(4);
  body["n"] = 2;
  const auto out = harness.post_json("/v1/chat/completions", body);
  for (const auto& choice : out["choices"]) {
    EXPECT_EQ(choice["message"]["reasoning"], text_of(kThoughts, 4));
    EXPECT_EQ(choice["finish_reason"], "stop");
  }
}

// A full queue and a drain refuse new requests, not what goes on.
TEST(ThinkingBudget, GoesOnWhileTheServerDrains) {
  HarnessOptions options;
  options.step_delay_us = 3000;
  options.max_num_seqs = 1;
  options.max_queued_requests = 1;
  ServiceHarness harness(std::vector<Ids>{script(4, "Hello there.")}, options);
  RawClient client(harness.port());
  const auto text = budget_body(4, true).dump();
  client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
              std::to_string(text.size()) + "\r\n\r\n" + text);
  ASSERT_NE(client.read_until("\n\n"), "");
  harness.service().begin_drain();
  harness.engine().drain([] {});
  EXPECT_NE(client.read_until("there"), "");
  EXPECT_NE(client.read_until("data: [DONE]"), "");
}

TEST(AnswerNow, EndsARunningReasoning) {
  HarnessOptions options;
  options.step_delay_us = 2000;
  options.max_model_len = 2048;
  // The script goes on for long; where it is cut does not matter to what follows.
  std::string long_thoughts;
  for (int i = 0; i < 300; ++i) long_thoughts += " think";
  ServiceHarness harness({"<|channel|>analysis<|message|>" + long_thoughts + "<|end|>"}, options);
  RawClient client(harness.port());
  auto body = chat_body();
  body["stream"] = true;
  body["max_tokens"] = 250;
  const auto text = body.dump();
  client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
              std::to_string(text.size()) + "\r\n\r\n" + text);
  const auto opening = client.read_until("\"reasoning\"");
  const auto at = opening.find("\"id\":\"") + 6;
  const auto id = opening.substr(at, opening.find('"', at) - at);
  const auto path = "/v1/chat/completions/" + id + "/answer_now";
  const auto first = harness.post(path, "");
  EXPECT_EQ(first.status, 200) << first.body;
  EXPECT_EQ(json::parse(first.body)["status"], "requested");
  // From here on the same script is the answer.
  EXPECT_NE(client.read_until("\"delta\":{\"content\":\""), "");
  EXPECT_EQ(json::parse(harness.post(path, "").body)["status"], "answering");
  EXPECT_NE(client.read_until("data: [DONE]"), "");
  EXPECT_EQ(harness.post(path, "").status, 404);
}

TEST(AnswerNow, UnknownChatsAndOtherKeysAreRefused) {
  HarnessOptions options;
  options.service.api_keys = {"one"};
  ServiceHarness harness({"<|channel|>final<|message|>Hi.<|return|>"}, options);
  const auto path = "/v1/chat/completions/chatcmpl-0123/answer_now";
  EXPECT_EQ(harness.post(path, "").status, 401);
  EXPECT_EQ(harness.post(path, "", "Authorization: Bearer one\r\n").status, 404);
  EXPECT_EQ(harness.get(path, "Authorization: Bearer one\r\n").status, 405);
}

}  // namespace
}  // namespace strata::testing
