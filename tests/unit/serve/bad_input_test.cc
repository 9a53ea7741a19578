// Bad input as a table: every case asserts status, error type and the named field, and that the
// next request, on the same connection where it may go on, is answered.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/unit/serve/service_harness.h"

namespace strata::testing {
namespace {

struct Case {
  std::string path;
  std::string body;
  int status = 400;
  std::string param;  // "": null
  std::string code;   // "": null
};

const std::string kChat = "/v1/chat/completions";
const std::string kText = "/v1/completions";
const std::string kUser = R"("messages":[{"role":"user","content":"hi"}])";

std::string chat_with(const std::string& member) { return "{" + kUser + "," + member + "}"; }
std::string text_with(const std::string& member) { return R"({"prompt":"a",)" + member + "}"; }

std::string times(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

std::vector<Case> bad_json() {
  return {
      {kChat, "", 400, "", ""},
      {kChat, "{", 400, "", ""},
      {kChat, "[]", 400, "", ""},
      {kChat, "null", 400, "", ""},
      {kChat, "\"text\"", 400, "", ""},
      {kChat, "{} {}", 400, "", ""},
      {kChat, "{'messages':[]}", 400, "", ""},
      {kChat, R"({"a":1,"a":2})", 400, "", ""},
      {kChat, R"({"a":1e999})", 400, "", ""},
      {kChat, R"({"a":01})", 400, "", ""},
      {kChat, R"({"a":NaN})", 400, "", ""},
      {kChat, R"({"a":"\ud800"})", 400, "", ""},
      {kChat, R"({"a":"\x"})", 400, "", ""},
      {kChat, "{\"a\":\"line\nbreak\"}", 400, "", ""},
      {kChat, "{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}", 400, "", ""},
      {kChat, "{\"messages\":[{\"role\":\"user\",\"content\":\"\xc0\x80\"}]}", 400, "", ""},
      {kChat, "{\"messages\":[{\"role\":\"user\",\"content\":\"\xed\xa0\x80\"}]}", 400, "", ""},
      {kChat, "{\"messages\":[{\"role\":\"user\",\"content\":\"\xf4\x90\x80\x80\"}]}", 400, "", ""},
      {kChat, "{\"messages\":[{\"role\":\"user\",\"content\":\"\xe2\x82\"}]}", 400, "", ""},
      {kChat, times("[", 100000), 400, "", ""},
      {kChat, times("{\"a\":", 100000), 400, "", ""},
      {kText, "\xef\xbb\xbf{\"prompt\":", 400, "", ""},
      {"/tokenize", "{", 400, "", ""},
      {"/detokenize", "7", 400, "", ""},
      {"/apply-template", "", 400, "", ""},
  };
}

std::vector<Case> bad_chat_fields() {
  return {
      {kChat, "{}", 400, "messages", ""},
      {kChat, R"({"messages":"hi"})", 400, "messages", ""},
      {kChat, R"({"messages":[]})", 400, "messages", ""},
      {kChat, R"({"messages":[{"role":"king","content":"x"}]})", 400, "messages[0].role", ""},
      {kChat, R"({"messages":[{"role":"user","content":null}]})", 400, "messages[0].content", ""},
      {kChat, R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})", 400,
       "messages[0].content[0].type", "unsupported_value"},
      {kChat, R"({"messages":[{"role":"tool","tool_call_id":"x","content":"y"}]})", 400,
       "messages[0].tool_call_id", ""},
      {kChat, chat_with(R"("model":[])"), 400, "model", ""},
      {kChat, chat_with(R"("temperature":3)"), 400, "temperature", ""},
      {kChat, chat_with(R"("temperature":"1")"), 400, "temperature", ""},
      {kChat, chat_with(R"("top_p":-1)"), 400, "top_p", ""},
      {kChat, chat_with(R"("n":17)"), 400, "n", ""},
      {kChat, chat_with(R"("n":99999999999999999999999)"), 400, "n", ""},
      {kChat, chat_with(R"("n":-1)"), 400, "n", ""},
      {kChat, chat_with(R"("max_tokens":0)"), 400, "max_tokens", ""},
      {kChat, chat_with(R"("max_tokens":1.5)"), 400, "max_tokens", ""},
      {kChat, chat_with(R"("max_completion_tokens":"9")"), 400, "max_completion_tokens", ""},
      {kChat, chat_with(R"("stop":{})"), 400, "stop", ""},
      {kChat, chat_with(R"("logit_bias":{"99999":1})"), 400, "logit_bias", ""},
      {kChat, chat_with(R"("top_logprobs":5)"), 400, "top_logprobs", ""},
      {kChat, chat_with(R"("logprobs":true,"top_logprobs":50)"), 400, "top_logprobs", ""},
      {kChat, chat_with(R"("stream":1)"), 400, "stream", ""},
      {kChat, chat_with(R"("tools":[{}])"), 400, "tools[0].type", ""},
      {kChat, chat_with(R"("tools":[{"type":"function","function":{"name":""}}])"), 400,
       "tools[0].function.name", ""},
      {kChat, chat_with(R"("tool_choice":"required")"), 400, "tool_choice", "unsupported_value"},
      {kChat, chat_with(R"("response_format":{"type":"grammar"})"), 400, "response_format.type",
       ""},
      {kChat, chat_with(R"("reasoning_effort":"ultra")"), 400, "reasoning_effort", ""},
      {kChat, chat_with(R"("guided_json":{"type":"object"})"), 400, "guided_json",
       "unsupported_parameter"},
      {kChat, chat_with(R"("presence_penalty":9)"), 400, "presence_penalty", ""},
      {kChat, chat_with(R"("min_p":2)"), 400, "min_p", ""},
      {kChat, chat_with(R"("seed":"x")"), 400, "seed", ""},
      {kChat, R"({"messages":[{"role":"user","content":")" + times("word ", 2000) + R"("}]})", 400,
       "messages", "context_length_exceeded"},
  };
}

std::vector<Case> bad_text_fields() {
  return {
      {kText, "{}", 400, "prompt", ""},
      {kText, R"({"prompt":""})", 400, "prompt", ""},
      {kText, R"({"prompt":[]})", 400, "prompt", ""},
      {kText, R"({"prompt":[999999]})", 400, "prompt", ""},
      {kText, R"({"prompt":[[1],"a",7]})", 400, "prompt", ""},
      {kText, text_with(R"("suffix":"b")"), 400, "suffix", "unsupported_parameter"},
      {kText, text_with(R"("logprobs":100)"), 400, "logprobs", ""},
      {kText, text_with(R"("echo":"yes")"), 400, "echo", ""},
      {kText, text_with(R"("best_of":5)"), 400, "best_of", "unsupported_parameter"},
      {kText, R"({"prompt":")" + times("word ", 2000) + R"("})", 400, "prompt",
       "context_length_exceeded"},
      {"/tokenize", "{}", 400, "prompt", ""},
      {"/tokenize", R"({"prompt":{}})", 400, "prompt", ""},
      {"/detokenize", R"({"tokens":[-1]})", 400, "tokens", ""},
      {"/detokenize", R"({"tokens":{}})", 400, "tokens", ""},
      {"/apply-template", R"({"messages":[{}]})", 400, "messages[0].role", ""},
  };
}

void expect_error(const RawResponse& response, const Case& c) {
  const auto shown = c.path + " " + c.body.substr(0, 100);
  ASSERT_EQ(response.status, c.status) << shown << "\n" << response.body;
  const auto document = json::parse(response.body, nullptr, false);
  ASSERT_TRUE(document.is_object() && document.contains("error")) << shown << response.body;
  const auto& error = document["error"];
  EXPECT_EQ(error["type"], "invalid_request_error") << shown;
  EXPECT_TRUE(error["message"].is_string() && error["message"] != "") << shown;
  EXPECT_EQ(error["param"], c.param.empty() ? json() : json(c.param)) << shown;
  EXPECT_EQ(error["code"], c.code.empty() ? json() : json(c.code)) << shown;
}

TEST(BadInput, BodiesAreRefusedByNameAndTheConnectionGoesOn) {
  ServiceHarness harness({"<|channel|>final<|message|>ok<|return|>"});
  std::size_t count = 0;
  RawClient client(harness.port());
  for (const auto& cases : {bad_json(), bad_chat_fields(), bad_text_fields()}) {
    for (const auto& c : cases) {
      ++count;
      client.send("POST " + c.path + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
                  std::to_string(c.body.size()) + "\r\n\r\n" + c.body);
      expect_error(client.read_response(), c);
      client.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
      ASSERT_EQ(client.read_response().status, 200) << "after " << c.body.substr(0, 100);
    }
  }
  EXPECT_GE(count, 60U);
  EXPECT_EQ(harness.post("/v1/chat/completions", chat_body().dump()).status, 200);
  EXPECT_EQ(harness.engine().info()->running, 0);
}

TEST(BadInput, TheByteOfBrokenJsonIsNamed) {
  ServiceHarness harness({"x"});
  const auto response = harness.post(kChat, R"({"messages": tru})");
  const auto message = json::parse(response.body)["error"]["message"].get<std::string>();
  EXPECT_NE(message.find("at byte 16"), std::string::npos) << message;
}

TEST(BadInput, ContextErrorsHoldTheNumbers) {
  ServiceHarness harness({"x"});
  const auto response = harness.post(kText, R"({"prompt":")" + times("a ", 600) + R"("})");
  const auto message = json::parse(response.body)["error"]["message"].get<std::string>();
  EXPECT_NE(message.find("512"), std::string::npos) << message;
  EXPECT_NE(message.find("tokens"), std::string::npos) << message;
}

struct WireCase {
  std::string bytes;
  int status;
  std::string code;
};

TEST(BadInput, WhatIsNoRequestGetsAnErrorObjectToo) {
  ServiceHarness harness({"<|channel|>final<|message|>ok<|return|>"});
  const std::string post = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n";
  const std::vector<WireCase> cases = {
      {"NONSENSE\r\n\r\n", 400, "bad_http_request"},
      {"GET / HTTP/1.1\r\n\r\n", 400, "bad_http_request"},
      {"GET /%zz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "bad_http_request"},
      {"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 505, "bad_http_request"},
      {post + "Content-Length: ten\r\n\r\n", 400, "bad_http_request"},
      {post + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad_http_request"},
      {post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "bad_http_request"},
      {post + "Content-Length: 99999999\r\n\r\n", 413, "request_too_large"},
      {post + "X: " + times("y", 20000) + "\r\n\r\n", 431, "headers_too_large"},
      {post + "Expect: wonders\r\nContent-Length: 2\r\n\r\n{}", 417, "bad_http_request"},
  };
  for (const auto& c : cases) {
    RawClient client(harness.port());
    client.send(c.bytes);
    const auto response = client.read_response();
    EXPECT_EQ(response.status, c.status) << c.bytes.substr(0, 100);
    const auto document = json::parse(response.body, nullptr, false);
    ASSERT_TRUE(document.is_object()) << response.body;
    EXPECT_EQ(document["error"]["type"], "invalid_request_error");
    EXPECT_EQ(document["error"]["code"], c.code) << c.bytes.substr(0, 100);
    EXPECT_EQ(harness.get("/health").status, 200);
  }
}

TEST(BadInput, MethodsAndPathsThatDoNotExist) {
  ServiceHarness harness({"x"});
  struct RouteCase {
    std::string method, path;
    int status;
    std::string allow;
  };
  for (const auto& c : std::vector<RouteCase>{{"GET", "/v1/chat/completions", 405, "POST, OPTIONS"},
                                              {"DELETE", "/v1/completions", 405, "POST, OPTIONS"},
                                              {"POST", "/v1/models", 405, "GET, HEAD, OPTIONS"},
                                              {"PUT", "/health", 405, "GET, HEAD, OPTIONS"},
                                              {"GET", "/v1/nothing", 404, ""},
                                              {"POST", "/", 404, ""},
                                              {"GET", "/../etc/passwd", 404, ""},
                                              {"GET", "/%2e%2e/etc/passwd", 404, ""},
                                              {"BREW", "/coffee", 404, ""}}) {
    const auto response = harness.ask(c.method, c.path, "", "");
    EXPECT_EQ(response.status, c.status) << c.method << c.path;
    EXPECT_TRUE(json::parse(response.body)["error"].is_object()) << response.body;
    const auto allow = response.headers.find("allow");
    EXPECT_EQ(allow == response.headers.end() ? "" : allow->second, c.allow) << c.path;
  }
  const auto upload = harness.ask("POST", "/v1/chat/completions",
                                  "Content-Type: multipart/form-data; boundary=x\r\n", "--x--");
  EXPECT_EQ(upload.status, 415);
  EXPECT_EQ(harness.get("/health").status, 200);
}

}  // namespace
}  // namespace strata::testing
