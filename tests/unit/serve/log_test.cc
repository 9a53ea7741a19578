// The log holds no text of prompts or answers, and every line about a request its id.
#include "base/log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "tests/unit/serve/service_harness.h"

namespace strata::testing {
namespace {

const std::string kCanary = "canary4711";

// The lines `work` makes the server log at the lowest level.
template <typename Work>
std::vector<std::string> lines_of(ServiceHarness& harness, Work work) {
  ::testing::internal::CaptureStderr();
  set_log_level(LogLevel::kDebug);
  work();
  harness.stop_server();
  set_log_level(LogLevel::kError);
  std::istringstream text(::testing::internal::GetCapturedStderr());
  std::vector<std::string> out;
  for (std::string line; std::getline(text, line);) out.push_back(line);
  return out;
}

json canary_body() {
  const auto call = R"({"messages":[
    {"role":"system","content":"CANARY"},
    {"role":"user","content":"CANARY"},
    {"role":"assistant","content":"CANARY","reasoning":"CANARY","tool_calls":[
      {"id":"CANARY","function":{"name":"CANARY","arguments":"CANARY"}}]},
    {"role":"tool","tool_call_id":"CANARY","content":"CANARY"}],
    "tools":[{"type":"function","function":{"name":"CANARY","description":"CANARY"}}],
    "model":"CANARY","stop":"CANARY","user":"CANARY","cache_salt":"CANARY"})";
  std::string text = call;
  for (auto at = text.find("CANARY"); at != std::string::npos; at = text.find("CANARY"))
    text.replace(at, 6, kCanary);
  return json::parse(text);
}

TEST(Log, HoldsNoTextOfPromptsAndAnswers) {
  HarnessOptions options;
  options.max_model_len = 2048;
  options.service.key_limits.tokens_per_minute = 100'000;
  ServiceHarness harness({"<|channel|>analysis<|message|>" + kCanary +
                          "<|end|><|start|>assistant<|channel|>final"
                          "<|message|>" +
                          kCanary + " and more<|return|>"},
                         options);
  const auto lines = lines_of(harness, [&] {
    auto body = canary_body();
    harness.post("/v1/chat/completions", body.dump());
    body["stream"] = true;
    body["resumable"] = true;
    harness.post("/v1/chat/completions", body.dump());
    body["max_tokens"] = 3;
    body["thinking_token_budget"] = 1;
    harness.post("/v1/chat/completions", body.dump());
    // Refused ones: broken, of the wrong type, unsupported, too long.
    harness.post("/v1/chat/completions", "{\"" + kCanary);
    for (const char* field : {"temperature", "response_format", "guided_json", "logit_bias"}) {
      auto wrong = canary_body();
      wrong[field] = kCanary;
      harness.post("/v1/chat/completions", wrong.dump());
    }
    std::string long_text;
    for (int i = 0; i < 2000; ++i) long_text += kCanary;
    harness.post("/v1/completions", json{{"prompt", long_text}}.dump());
    harness.post("/v1/completions", json{{"prompt", kCanary}, {"echo", true}}.dump());
    harness.post("/tokenize", json{{"prompt", kCanary}}.dump());
    harness.post("/apply-template", canary_body().dump());
    harness.get("/v1/" + kCanary + "?" + kCanary);
    harness.get("/v1/models/" + kCanary);
    // A client that leaves in the middle.
    RawClient client(harness.port());
    const auto bytes = body.dump();
    client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: " +
                std::to_string(bytes.size()) + "\r\n\r\n" + bytes);
    client.read_until("\n\n");
    client.reset();
  });
  EXPECT_GE(lines.size(), 14U);
  for (const auto& line : lines) EXPECT_EQ(line.find(kCanary), std::string::npos) << line;
}

TEST(Log, LinesOfARequestHoldItsId) {
  HarnessOptions options;
  ServiceHarness harness({"<|channel|>final<|message|>one two three<|return|>"}, options);
  const auto lines = lines_of(harness, [&] {
    harness.post("/v1/chat/completions", chat_body().dump(), "X-Client-Request-Id: mine-1\r\n");
    auto body = chat_body();
    body["max_tokens"] = 1;
    harness.post("/v1/chat/completions", body.dump(), "X-Client-Request-Id: mine-2\r\n");
    harness.post("/v1/chat/completions", "{", "X-Client-Request-Id: mine-3\r\n");
    harness.get("/v1/models", "X-Client-Request-Id: mine-4\r\n");
  });
  for (const char* id : {"mine-1", "mine-2", "mine-3", "mine-4"}) {
    const auto mark = "request " + std::string(id) + ":";
    EXPECT_TRUE(std::any_of(lines.begin(), lines.end(), [&](const std::string& line) {
      return line.find(mark) != std::string::npos;
    })) << id;
  }
  for (const auto& line : lines) {
    const bool about_one = line.find("POST") != std::string::npos ||
                           line.find("GET") != std::string::npos ||
                           line.find("answer") != std::string::npos;
    EXPECT_TRUE(!about_one || line.find("request mine-") != std::string::npos) << line;
  }
}

}  // namespace
}  // namespace strata::testing
