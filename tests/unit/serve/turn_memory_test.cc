#include "serve/turn_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/unit/serve/service_harness.h"

namespace strata::testing {
namespace {

using harmony::MessageKind;
using serve::TurnMemory;
using Ids = std::vector<TokenId>;

constexpr std::size_t kPage = 16;

Ids encode(const std::string& text) { return tiny_tokenizer().encode_with_specials(text); }

// The same text in the smallest tokens there are.
Ids by_bytes(const std::string& text) {
  Ids out;
  for (const char c : text) {
    const auto one = tiny_tokenizer().encode(std::string(1, c));
    out.insert(out.end(), one.begin(), one.end());
  }
  EXPECT_NE(out, tiny_tokenizer().encode(text)) << "these tokens are the canonical ones";
  return out;
}

Ids joined(std::initializer_list<Ids> parts) {
  Ids out;
  for (const auto& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

serve::ExactTurn turn_of(const std::string& content, std::size_t tokens) {
  serve::ExactTurn turn;
  turn.fields.content = content;
  turn.messages.emplace_back().tokens.resize(tokens);
  return turn;
}

TEST(TurnMemory, FindsOnlyWhatIsEqualInEveryField) {
  TurnMemory memory(1U << 20);
  auto turn = turn_of("text", 3);
  turn.fields.reasoning = "why";
  turn.fields.calls = {{"f", "{}"}};
  const auto fields = turn.fields;
  memory.remember(std::move(turn), "salt");
  EXPECT_TRUE(memory.find(fields, "salt"));
  EXPECT_FALSE(memory.find(fields, ""));
  for (auto change : {0, 1, 2, 3, 4}) {
    auto other = fields;
    if (change == 0) other.content += " ";
    if (change == 1) other.reasoning.clear();
    if (change == 2) other.calls.clear();
    if (change == 3) other.calls[0].second = "{ }";
    if (change == 4) other.calls.push_back(other.calls[0]);
    EXPECT_FALSE(memory.find(other, "salt")) << change;
  }
}

TEST(TurnMemory, IsBoundedAndKeepsWhatWasUsedLast) {
  TurnMemory memory(8192);
  memory.remember(turn_of("first", 100), "");
  for (int i = 0; i < 100; ++i) {
    memory.remember(turn_of(std::to_string(i), 100), "");
    EXPECT_TRUE(memory.find(turn_of("first", 0).fields, "")) << i;
    EXPECT_LE(memory.bytes(), 8192U);
  }
  EXPECT_FALSE(memory.find(turn_of("0", 0).fields, ""));
  EXPECT_TRUE(memory.find(turn_of("99", 0).fields, ""));
  memory.remember(turn_of("huge", 100000), "");
  EXPECT_FALSE(memory.find(turn_of("huge", 0).fields, ""));
  EXPECT_TRUE(memory.find(turn_of("99", 0).fields, ""));
}

const json& tool_list() {
  static const json tools = json::parse(R"([{"type":"function","function":{"name":"get_weather",
                      "parameters":{"type":"object"}}}])");
  return tools;
}

std::size_t cached(const json& answer) {
  return answer["usage"]["prompt_tokens_details"]["cached_tokens"].get<std::size_t>();
}

// Tokens that are in the KV pages when the turn has ended: all but the last, which was only drawn.
std::size_t kept_tokens(const json& answer) {
  const auto tokens = answer["usage"]["total_tokens"].get<std::size_t>() - 1;
  return tokens / kPage * kPage;
}

json next_turn(json body, const json& answer, const json& following) {
  body["messages"].push_back(answer["choices"][0]["message"]);
  for (const auto& message : following) body["messages"].push_back(message);
  return body;
}

const json kMore = json::array({{{"role", "user"}, {"content", "And then?"}}});

TEST(ExactTurns, TheNextTurnHitsToTheEndOfTheAnswer) {
  const std::string text = "The capital of France is Paris, of course, and has been for long.";
  const auto script =
      joined({encode("<|channel|>final<|message|>"), by_bytes(text), encode("<|return|>")});
  ServiceHarness harness(std::vector<Ids>{script}, {});
  const auto first = harness.post_json("/v1/chat/completions", chat_body());
  EXPECT_EQ(first["choices"][0]["message"]["content"], text);
  const auto body = next_turn(chat_body(), first, kMore);
  const auto second = harness.post_json("/v1/chat/completions", body);
  EXPECT_GE(cached(second), kept_tokens(first));
  // Its text is the same as if nothing had been remembered.
  HarnessOptions forgetful;
  forgetful.service.turn_memory_bytes = 0;
  ServiceHarness plain(std::vector<Ids>{script}, forgetful);
  const auto exact = harness.post_json("/apply-template", body);
  const auto canonical = plain.post_json("/apply-template", body);
  EXPECT_EQ(exact["prompt"], canonical["prompt"]);
  EXPECT_NE(exact["tokens"], canonical["tokens"]);
  // Without it the hit ends where the tokens differ.
  plain.post_json("/v1/chat/completions", chat_body());
  EXPECT_LT(cached(plain.post_json("/v1/chat/completions", body)), kept_tokens(first));
}

TEST(ExactTurns, AnotherTextIsRenderedAsItIs) {
  const auto script = joined(
      {encode("<|channel|>final<|message|>"), by_bytes("Paris it is."), encode("<|return|>")});
  ServiceHarness harness(std::vector<Ids>{script}, {});
  const auto first = harness.post_json("/v1/chat/completions", chat_body());
  auto body = next_turn(chat_body(), first, kMore);
  body["messages"][1]["content"] = "Paris it was.";
  const auto rendered = harness.post_json("/apply-template", body);
  HarnessOptions forgetful;
  forgetful.service.turn_memory_bytes = 0;
  ServiceHarness plain(std::vector<Ids>{script}, forgetful);
  EXPECT_EQ(rendered, plain.post_json("/apply-template", body));
}

TEST(ExactTurns, AgentLoopsHitWithTheirReasoning) {
  // The recipient stands in the role here and behind the channel in the renderer's own form.
  const auto script =
      joined({encode("<|channel|>analysis<|message|>"), by_bytes("I should look it up right now."),
              encode("<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
                     "<|constrain|>json<|message|>"),
              by_bytes(R"({"city": "Paris"})"), encode("<|call|>")});
  ServiceHarness harness(
      std::vector<Ids>{script, encode("<|channel|>final<|message|>Rain.<|return|>")}, {});
  auto body = chat_body("How is the weather in Paris?");
  body["tools"] = tool_list();
  const auto first = harness.post_json("/v1/chat/completions", body);
  const auto& message = first["choices"][0]["message"];
  ASSERT_EQ(message["tool_calls"].size(), 1U);
  const json result = json::array(
      {{{"role", "tool"}, {"tool_call_id", message["tool_calls"][0]["id"]}, {"content", "rain"}}});
  const auto second = harness.post_json("/v1/chat/completions", next_turn(body, first, result));
  EXPECT_EQ(second["choices"][0]["message"]["content"], "Rain.");
  EXPECT_GE(cached(second), kept_tokens(first));
}

TEST(ExactTurns, StreamedTurnsAreRememberedToo) {
  const auto script = joined(
      {encode("<|channel|>final<|message|>"), by_bytes("Paris it is."), encode("<|return|>")});
  ServiceHarness harness(std::vector<Ids>{script}, {});
  auto body = chat_body();
  body["stream"] = true;
  const auto streamed =
      join_chunks(read_events(harness.post("/v1/chat/completions", body.dump()).body));
  const json answer = {
      {"choices", {{{"message", {{"role", "assistant"}, {"content", streamed["content"]}}}}}}};
  const auto rendered = harness.post_json("/apply-template", next_turn(chat_body(), answer, kMore));
  const auto tokens = rendered["tokens"].get<Ids>();
  const auto exact = by_bytes("Paris it is.");
  EXPECT_NE(std::search(tokens.begin(), tokens.end(), exact.begin(), exact.end()), tokens.end());
}

TEST(ExactTurns, ACutAnswerIsContinuedInItsOwnTokens) {
  const auto said = by_bytes("Paris it is.");
  const auto script = joined({encode("<|channel|>final<|message|>"), said});
  ServiceHarness harness(std::vector<Ids>{script}, {});
  auto body = chat_body();
  body["max_tokens"] = script.size();
  const auto first = harness.post_json("/v1/chat/completions", body);
  EXPECT_EQ(first["choices"][0]["finish_reason"], "length");
  auto more = next_turn(chat_body(), first, json::array());
  more["continue_final_message"] = true;
  const auto tokens = harness.post_json("/apply-template", more)["tokens"].get<Ids>();
  ASSERT_GT(tokens.size(), said.size());
  EXPECT_EQ(Ids(tokens.end() - static_cast<std::ptrdiff_t>(said.size()), tokens.end()), said);
}

TEST(ExactTurns, TextBehindAStopStringIsNotPartOfTheTurn) {
  const auto script = joined(
      {encode("<|channel|>final<|message|>"), by_bytes("Paris STOP it is."), encode("<|return|>")});
  ServiceHarness harness(std::vector<Ids>{script}, {});
  auto body = chat_body();
  body["stop"] = "STOP";
  const auto first = harness.post_json("/v1/chat/completions", body);
  ASSERT_EQ(first["choices"][0]["message"]["content"], "Paris ");
  const auto rendered = harness.post_json("/apply-template", next_turn(chat_body(), first, kMore));
  HarnessOptions forgetful;
  forgetful.service.turn_memory_bytes = 0;
  ServiceHarness plain(std::vector<Ids>{script}, forgetful);
  EXPECT_EQ(rendered, plain.post_json("/apply-template", next_turn(chat_body(), first, kMore)));
}

// A turn of the prompt's own opening: no reasoning was asked for.
TEST(ExactTurns, AnswersThePromptOpenedHitToo) {
  const auto script =
      joined({by_bytes("Paris it is, as everybody knows by now."), encode("<|return|>")});
  ServiceHarness harness(std::vector<Ids>{script}, {});
  auto body = chat_body();
  body["reasoning_effort"] = "none";
  const auto first = harness.post_json("/v1/chat/completions", body);
  const auto second = harness.post_json("/v1/chat/completions", next_turn(body, first, kMore));
  EXPECT_GE(cached(second), kept_tokens(first));
}

}  // namespace
}  // namespace strata::testing
