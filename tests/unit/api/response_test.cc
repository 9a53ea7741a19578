#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "api/chat_response.h"
#include "api/completion_response.h"
#include "api/json_writer.h"
#include "api/objects.h"

namespace strata::api {
namespace {

using nlohmann::json;

const AnswerIdentity kIdentity{"chatcmpl-1", "m\"x", 7, "fp"};

// The events of a stream as JSON documents.
std::vector<json> events(const std::string& stream) {
  std::vector<json> out;
  for (std::size_t at = 0; at < stream.size();) {
    EXPECT_EQ(stream.substr(at, 6), "data: ");
    const auto end = stream.find("\n\n", at);
    out.push_back(json::parse(stream.substr(at + 6, end - at - 6)));
    at = end + 2;
  }
  return out;
}

TEST(ChatResponse, HoldsEveryFieldClientsRead) {
  ChatChoice choice;
  choice.content = "hi \xf0\x9f\x98\x80\n";
  choice.reasoning = "because";
  choice.tool_calls = {{"call_1", "add", "{\"x\":1}"}};
  choice.finish_reason = "tool_calls";
  choice.stop.token = 200012;
  choice.logprobs = {{"a", -0.5F, {{"\xf0\x9f", -1.0F}}}};
  const auto out = json::parse(
      chat_response(kIdentity, {choice}, {10, 5, 4, 3}, {.time_to_first_token_ms = 1.5}));
  EXPECT_EQ(out["id"], "chatcmpl-1");
  EXPECT_EQ(out["object"], "chat.completion");
  EXPECT_EQ(out["model"], "m\"x");
  const auto& message = out["choices"][0]["message"];
  EXPECT_EQ(message["role"], "assistant");
  EXPECT_EQ(message["content"], "hi \xf0\x9f\x98\x80\n");
  EXPECT_EQ(message["reasoning"], "because");
  EXPECT_EQ(message["reasoning_content"], "because");
  EXPECT_TRUE(message["refusal"].is_null());
  EXPECT_EQ(message["tool_calls"][0]["function"]["arguments"], "{\"x\":1}");
  EXPECT_EQ(message["tool_calls"][0]["type"], "function");
  EXPECT_EQ(out["choices"][0]["finish_reason"], "tool_calls");
  EXPECT_EQ(out["choices"][0]["stop_reason"], 200012);
  const auto& token = out["choices"][0]["logprobs"]["content"][0];
  EXPECT_EQ(token["token"], "a");
  EXPECT_EQ(token["bytes"], json::parse("[97]"));
  EXPECT_EQ(token["top_logprobs"][0]["token"], "bytes:\\xf0\\x9f");
  EXPECT_EQ(token["top_logprobs"][0]["bytes"], json::parse("[240,159]"));
  EXPECT_EQ(out["usage"]["total_tokens"], 15);
  EXPECT_EQ(out["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
  EXPECT_EQ(out["usage"]["completion_tokens_details"]["reasoning_tokens"], 3);
  EXPECT_EQ(out["metrics"]["time_to_first_token_ms"], 1.5);
  EXPECT_TRUE(out["metrics"]["mean_itl_ms"].is_null());
}

TEST(ChatResponse, NothingVisibleIsNullAndEmptyListsAreLeftOut) {
  ChatChoice choice;
  choice.finish_reason = "length";
  const auto out = json::parse(chat_response(kIdentity, {choice}, {}, {}));
  EXPECT_TRUE(out["choices"][0]["message"]["content"].is_null());
  EXPECT_FALSE(out["choices"][0]["message"].contains("tool_calls"));
  EXPECT_FALSE(out["choices"][0]["message"].contains("reasoning"));
  EXPECT_TRUE(out["choices"][0]["logprobs"].is_null());
}

TEST(ChatChunks, FollowOpenAisOrderAndShape) {
  const ChatChunkWriter writer(kIdentity, true);
  std::string stream;
  writer.role(stream, 0);
  writer.reasoning(stream, 0, "r");
  const std::vector<TokenLogprobText> logprobs = {{"c", -1.0F, {}}};
  writer.content(stream, 1, "c", &logprobs);
  writer.tool_start(stream, 0, 2, {"call_1", "f", ""});
  writer.tool_arguments(stream, 0, 2, "{}");
  StopCause stop;
  stop.text = "END";
  writer.finish(stream, 0, {"stop", &stop, nullptr, nullptr});
  writer.usage(stream, {1, 2, 0, 0}, {});
  const auto out = events(stream);
  ASSERT_EQ(out.size(), 7U);
  for (std::size_t i = 0; i < 7; ++i) {
    EXPECT_EQ(out[i]["id"], "chatcmpl-1");
    EXPECT_EQ(out[i]["object"], "chat.completion.chunk");
    EXPECT_EQ(out[i]["usage"].is_null(), i < 6);
  }
  EXPECT_EQ(out[0]["choices"][0]["delta"], json::parse(R"({"role":"assistant","content":""})"));
  EXPECT_EQ(out[1]["choices"][0]["delta"],
            json::parse(R"({"reasoning":"r","reasoning_content":"r"})"));
  EXPECT_EQ(out[2]["choices"][0]["index"], 1);
  EXPECT_EQ(out[2]["choices"][0]["logprobs"]["content"][0]["token"], "c");
  EXPECT_EQ(out[3]["choices"][0]["delta"]["tool_calls"],
            json::parse(R"([{"index":2,"id":"call_1","type":"function",
                             "function":{"name":"f","arguments":""}}])"));
  EXPECT_EQ(out[4]["choices"][0]["delta"]["tool_calls"],
            json::parse(R"([{"index":2,"function":{"arguments":"{}"}}])"));
  EXPECT_EQ(out[5]["choices"][0]["delta"], json::object());
  EXPECT_EQ(out[5]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(out[5]["choices"][0]["stop_reason"], "END");
  EXPECT_EQ(out[6]["choices"], json::array());
  EXPECT_EQ(out[6]["usage"]["total_tokens"], 3);
}

TEST(ChatChunks, RunningUsageIsInEveryChunk) {
  ChatChunkWriter writer(kIdentity, true);
  writer.set_running_usage({5, 1, 0, 0});
  std::string stream;
  writer.content(stream, 0, "a", nullptr);
  EXPECT_EQ(events(stream)[0]["usage"]["completion_tokens"], 1);
}

TEST(CompletionResponse, WritesParallelLogprobArrays) {
  CompletionChoice choice;
  choice.text = "ab";
  choice.finish_reason = "length";
  choice.logprobs = std::vector<CompletionToken>{
      {{"a", 0.0F, {}}, false, 0},
      {{"b", -std::numeric_limits<float>::infinity(), {{"b", -1.0F}, {"\xe2\x82", -2.0F}}},
       true,
       1}};
  choice.token_ids = std::vector<TokenId>{4};
  choice.prompt_token_ids = std::vector<TokenId>{3};
  const auto out = json::parse(completion_response(kIdentity, {choice}, {1, 1, 0, 0}, {}));
  EXPECT_EQ(out["object"], "text_completion");
  const auto& logprobs = out["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], json::parse(R"(["a","b"])"));
  EXPECT_EQ(logprobs["token_logprobs"], json::parse("[null,-9999.0]"));
  EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
  EXPECT_EQ(logprobs["top_logprobs"][1], json::parse(R"({"b":-1.0,"bytes:\\xe2\\x82":-2.0})"));
  EXPECT_EQ(logprobs["text_offset"], json::parse("[0,1]"));
  EXPECT_EQ(out["choices"][0]["token_ids"], json::parse("[4]"));
  EXPECT_EQ(out["choices"][0]["prompt_token_ids"], json::parse("[3]"));

  std::string stream;
  choice.finish_reason.clear();
  completion_chunk(stream, kIdentity, choice, true, nullptr);
  completion_usage_chunk(stream, kIdentity, {1, 1, 0, 0}, {});
  const auto chunks = events(stream);
  EXPECT_TRUE(chunks[0]["choices"][0]["finish_reason"].is_null());
  EXPECT_TRUE(chunks[0]["usage"].is_null());
  EXPECT_EQ(chunks[1]["usage"]["total_tokens"], 2);
}

TEST(Objects, ErrorsFollowOpenAisShape) {
  auto out = json::parse(
      error_object({ErrorCode::kInvalidRequest, "n must be \"small\"", "n", "", 0}))["error"];
  EXPECT_EQ(out["message"], "n must be \"small\"");
  EXPECT_EQ(out["type"], "invalid_request_error");
  EXPECT_EQ(out["param"], "n");
  EXPECT_TRUE(out["code"].is_null());
  out = json::parse(error_object({ErrorCode::kContextOverflow, "m", "", "", 0}))["error"];
  EXPECT_TRUE(out["param"].is_null());
  EXPECT_EQ(out["code"], "context_length_exceeded");
  out = json::parse(error_object({ErrorCode::kInternal, "m", "", "why", 0}))["error"];
  EXPECT_EQ(out["type"], "server_error");
  EXPECT_EQ(out["code"], "why");
}

TEST(Objects, SmallOnesAreJson) {
  const auto models = json::parse(model_list({{"a", 1, 4096}, {"b", 2, 4096}}));
  EXPECT_EQ(models["object"], "list");
  EXPECT_EQ(models["data"][1]["id"], "b");
  EXPECT_EQ(models["data"][0]["max_model_len"], 4096);
  const std::vector<std::string_view> texts = {"x", "\xff"};
  const auto tokens = json::parse(token_list({1, 2}, 10, &texts));
  EXPECT_EQ(tokens["count"], 2);
  EXPECT_EQ(tokens["token_strs"][1], "bytes:\\xff");
  EXPECT_EQ(json::parse(text_object("prompt", "a\xff"))["prompt"], "a\xef\xbf\xbd");
  EXPECT_EQ(json::parse(template_object("p", {1}))["tokens"], json::parse("[1]"));
}

}  // namespace
}  // namespace strata::api
