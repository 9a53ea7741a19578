#include "api/chat_request.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace strata::api {
namespace {

constexpr RequestLimits kLimits{4096, 20};

Result<ChatRequest> parse(const std::string& members) {
  return parse_chat_request("{" + members + "}", kLimits);
}

const std::string kHello = R"("messages":[{"role":"user","content":"hi"}])";

Result<ChatRequest> with(const std::string& member) { return parse(kHello + "," + member); }

std::string repeat(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

TEST(ChatRequest, TakesEverythingAClientMaySend) {
  const auto request = parse(R"(
    "model": "gpt-oss-20b",
    "messages": [
      {"role":"system","content":"S"},
      {"role":"user","content":[{"type":"text","text":"a"},{"type":"input_text","text":"b"}]},
      {"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[
        {"id":"c1","type":"function","function":{"name":"add","arguments":"{\"x\":1}"}}]},
      {"role":"tool","tool_call_id":"c1","content":"3"}],
    "tools":[{"type":"function","function":{"name":"add","description":"Adds.",
      "parameters":{"type":"object","properties":{"z":{"type":"number"},"a":{}}},"strict":true}}],
    "temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.1,"repetition_penalty":1.1,
    "presence_penalty":-1,"frequency_penalty":2,"logit_bias":{"17":-100,"4095":3.5},
    "seed":-3,"stop":["a","","b"],"n":2,"max_tokens":5,"max_completion_tokens":7,
    "logprobs":true,"top_logprobs":3,"stream":true,"stream_options":{"include_usage":true},
    "reasoning_effort":"minimal","user":"u","metadata":{"k":[1]},"service_tier":"auto",
    "response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"b":1,"a":2}}})");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  EXPECT_EQ(request->model, "gpt-oss-20b");
  ASSERT_EQ(request->messages.size(), 4U);
  EXPECT_EQ(request->messages[1].content, "ab");
  EXPECT_FALSE(request->messages[2].has_content);
  EXPECT_EQ(request->messages[2].reasoning, "hm");
  EXPECT_EQ(request->messages[2].tool_calls.at(0).arguments, R"({"x":1})");
  EXPECT_EQ(request->messages[3].tool_name, "add");
  ASSERT_EQ(request->tools.size(), 1U);
  EXPECT_EQ(request->tools[0].parameters,
            R"({"type":"object","properties":{"z":{"type":"number"},"a":{}}})");
  EXPECT_EQ(request->sampling.temperature, 0.5);
  EXPECT_EQ(request->sampling.top_k, 40);
  EXPECT_EQ(request->sampling.seed, static_cast<std::uint64_t>(-3));
  EXPECT_EQ(request->sampling.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(request->sampling.n, 2);
  ASSERT_EQ(request->sampling.logit_bias.size(), 2U);
  EXPECT_EQ(request->sampling.logit_bias[1], (std::pair<TokenId, float>{4095, 3.5F}));
  EXPECT_EQ(request->max_tokens, 7) << "max_completion_tokens wins";
  EXPECT_EQ(request->top_logprobs, 3);
  EXPECT_TRUE(request->stream.stream);
  EXPECT_TRUE(request->stream.include_usage);
  EXPECT_EQ(request->effort, EffortField::kLow);
  EXPECT_EQ(request->response_format.schema, R"({"b":1,"a":2})") << "key order is kept";
}

TEST(ChatRequest, ToleratesWhatClientsSendWithoutMeaningIt) {
  for (const char* member : {R"("model":"")",
                             R"("n":null)",
                             R"("stop":null)",
                             R"("tools":[])",
                             R"("tool_choice":null)",
                             R"("max_tokens":null)",
                             R"("max_tokens":-1)",
                             R"("temperature":null)",
                             R"("stream_options":{"include_usage":true})",
                             R"("logit_bias":{})",
                             R"("top_k":-1)",
                             R"("unknown_field":{"a":[]})",
                             R"("modalities":["text"])",
                             R"("best_of":1)",
                             R"("structured_outputs":null)",
                             R"("use_beam_search":false)",
                             R"("tool_choice":"auto")",
                             R"("response_format":{"type":"text"})",
                             R"("n":1.0)",
                             R"("seed":18446744073709551615)",
                             R"("parallel_tool_calls":false)",
                             R"("reasoning":{"effort":"high","exclude":true})",
                             R"("chat_template_kwargs":{"reasoning_effort":"low","other":1})",
                             R"("stop":[])"}) {
    const auto request = with(member);
    EXPECT_TRUE(request.has_value()) << member << ": " << request.error().message;
  }
}

TEST(ChatRequest, EffortComesFromAnyOfItsNames) {
  EXPECT_EQ(with(R"("reasoning_effort":"none")")->effort, EffortField::kNone);
  EXPECT_EQ(with(R"("reasoning_effort":"max")")->effort, EffortField::kHigh);
  EXPECT_EQ(with(R"("reasoning":{"enabled":false})")->effort, EffortField::kNone);
  EXPECT_EQ(with(R"("chat_template_kwargs":{"reasoning_effort":"low"})")->effort,
            EffortField::kLow);
  EXPECT_EQ(with(R"("reasoning_effort":"high","reasoning":{"effort":"low"})")->effort,
            EffortField::kHigh);
  EXPECT_FALSE(with(R"("reasoning":{"exclude":true})")->include_reasoning);
  EXPECT_FALSE(parse(kHello)->effort.has_value());
}

TEST(ChatRequest, NoneTakesTheToolsAway) {
  const std::string tools = R"("tools":[{"type":"function","function":{"name":"f"}}])";
  EXPECT_EQ(with(tools)->tools.size(), 1U);
  EXPECT_TRUE(with(tools + R"(,"tool_choice":"none")")->tools.empty());
}

TEST(ChatRequest, OlderFunctionFieldsAreTools) {
  const auto request = parse(R"("messages":[
    {"role":"assistant","function_call":{"name":"f","arguments":null}},
    {"role":"function","name":"f","content":"1"}],
    "functions":[{"name":"f"}],"function_call":"auto")");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  EXPECT_EQ(request->messages[0].tool_calls.at(0).arguments, "");
  EXPECT_EQ(request->messages[1].tool_name, "f");
  EXPECT_EQ(request->tools.at(0).name, "f");
  EXPECT_EQ(request->tools.at(0).parameters, "");
}

TEST(ChatRequest, ContinuesTheLastMessage) {
  const auto request = parse(
      R"("messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],
         "continue_final_message":true)");
  ASSERT_TRUE(request.has_value()) << request.error().message;
  EXPECT_TRUE(request->continue_final_message);
  EXPECT_FALSE(request->add_generation_prompt);
}

struct Bad {
  std::string members;
  std::string param;
};

TEST(ChatRequest, NamesTheFieldThatIsWrong) {
  const std::string user = R"({"role":"user","content":"hi"})";
  const std::string function = R"({"type":"function","function":{"name":"f"}})";
  const std::vector<Bad> cases = {
      {R"("model":"x")", "messages"},
      {R"("messages":[])", "messages"},
      {R"("messages":null)", "messages"},
      {R"("messages":{})", "messages"},
      {R"("messages":"hi")", "messages"},
      {R"("messages":["hi"])", "messages[0]"},
      {R"("messages":[{}])", "messages[0].role"},
      {R"("messages":[{"role":7}])", "messages[0].role"},
      {R"("messages":[)" + user + R"(,{"role":"wizard","content":"x"}])", "messages[1].role"},
      {R"("messages":[{"role":"user"}])", "messages[0].content"},
      {R"("messages":[{"role":"user","content":7}])", "messages[0].content"},
      {R"("messages":[{"role":"user","content":[7]}])", "messages[0].content[0]"},
      {R"("messages":[{"role":"user","content":[{"type":"text"}]}])",
       "messages[0].content[0].text"},
      {R"("messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}])",
       "messages[0].content[0].type"},
      {R"("messages":[{"role":"user","content":[{"type":"input_audio"}]}])",
       "messages[0].content[0].type"},
      {R"("messages":[{"role":"tool","content":"x"}])", "messages[0].tool_call_id"},
      {R"("messages":[{"role":"tool","tool_call_id":"q","content":"x"}])",
       "messages[0].tool_call_id"},
      {R"("messages":[{"role":"assistant","tool_calls":[{"id":"a"}]}])",
       "messages[0].tool_calls[0].function"},
      {R"("messages":[{"role":"assistant","tool_calls":[{"function":{}}]}])",
       "messages[0].tool_calls[0].function.name"},
      {R"("messages":[{"role":"assistant","tool_calls":{}}])", "messages[0].tool_calls"},
      {kHello + R"(,"model":7)", "model"},
      {kHello + R"(,"temperature":2.1)", "temperature"},
      {kHello + R"(,"temperature":-0.1)", "temperature"},
      {kHello + R"(,"temperature":"hot")", "temperature"},
      {kHello + R"(,"top_p":1.5)", "top_p"},
      {kHello + R"(,"top_k":-2)", "top_k"},
      {kHello + R"(,"top_k":2.5)", "top_k"},
      {kHello + R"(,"min_p":-1)", "min_p"},
      {kHello + R"(,"repetition_penalty":0)", "repetition_penalty"},
      {kHello + R"(,"presence_penalty":3)", "presence_penalty"},
      {kHello + R"(,"frequency_penalty":-3)", "frequency_penalty"},
      {kHello + R"(,"n":0)", "n"},
      {kHello + R"(,"n":17)", "n"},
      {kHello + R"(,"n":1000000000000000000000)", "n"},
      {kHello + R"(,"n":"2")", "n"},
      {kHello + R"(,"max_tokens":0)", "max_tokens"},
      {kHello + R"(,"max_tokens":-2)", "max_tokens"},
      {kHello + R"(,"max_tokens":2147483648)", "max_tokens"},
      {kHello + R"(,"max_completion_tokens":true)", "max_completion_tokens"},
      {kHello + R"(,"seed":1.5)", "seed"},
      {kHello + R"(,"stop":7)", "stop"},
      {kHello + R"(,"stop":[7])", "stop"},
      {kHello + R"(,"stop":[)" + repeat(R"("x",)", 16) + R"("x"])", "stop"},
      {kHello + R"(,"stop":")" + repeat("x", 257) + R"(")", "stop"},
      {kHello + R"(,"logit_bias":[])", "logit_bias"},
      {kHello + R"(,"logit_bias":{"x":1})", "logit_bias"},
      {kHello + R"(,"logit_bias":{"4096":1})", "logit_bias"},
      {kHello + R"(,"logit_bias":{"-1":1})", "logit_bias"},
      {kHello + R"(,"logit_bias":{"1":101})", "logit_bias"},
      {kHello + R"(,"logit_bias":{"1":"x"})", "logit_bias"},
      {kHello + R"(,"logprobs":1)", "logprobs"},
      {kHello + R"(,"top_logprobs":1)", "top_logprobs"},
      {kHello + R"(,"logprobs":true,"top_logprobs":21)", "top_logprobs"},
      {kHello + R"(,"stream":"yes")", "stream"},
      {kHello + R"(,"stream_options":7)", "stream_options"},
      {kHello + R"(,"stream_options":{"include_usage":7})", "stream_options"},
      {kHello + R"(,"tools":{})", "tools"},
      {kHello + R"(,"tools":[7])", "tools[0]"},
      {kHello + R"(,"tools":[{"type":"web_search"}])", "tools[0].type"},
      {kHello + R"(,"tools":[{"type":"function"}])", "tools[0].function"},
      {kHello + R"(,"tools":[{"type":"function","function":{"name":"a b"}}])",
       "tools[0].function.name"},
      {kHello + R"(,"tools":[)" + function + "," + function + "]", "tools[1].function.name"},
      {kHello + R"(,"tools":[{"type":"function","function":{"name":"f","parameters":7}}])",
       "tools[0].function.parameters"},
      {kHello + R"(,"tools":[)" + repeat(function + ",", 128) + function + "]", "tools"},
      {kHello + R"(,"tools":[)" + function + R"(],"tool_choice":"required")", "tool_choice"},
      {kHello + R"(,"tool_choice":{"type":"function","function":{"name":"f"}})", "tool_choice"},
      {kHello + R"(,"tool_choice":"maybe")", "tool_choice"},
      {kHello + R"(,"response_format":"json")", "response_format"},
      {kHello + R"(,"response_format":{"type":"xml"})", "response_format.type"},
      {kHello + R"(,"response_format":{"type":"json_schema"})", "response_format.json_schema"},
      {kHello + R"(,"response_format":{"type":"json_schema","json_schema":{"schema":{}}})",
       "response_format.json_schema.name"},
      {kHello + R"(,"response_format":{"type":"json_schema","json_schema":{"name":"n"}})",
       "response_format.json_schema.schema"},
      {kHello + R"(,"reasoning_effort":"extreme")", "reasoning_effort"},
      {kHello + R"(,"reasoning":{"effort":"extreme"})", "reasoning.effort"},
      {kHello + R"(,"modalities":["text","audio"])", "modalities"},
      {kHello + R"(,"structured_outputs":{"json":{}})", "structured_outputs"},
      {kHello + R"(,"guided_regex":"a+")", "guided_regex"},
      {kHello + R"(,"use_beam_search":true)", "use_beam_search"},
      {kHello + R"(,"best_of":3)", "best_of"},
      {kHello + R"(,"continue_final_message":true)", "continue_final_message"},
      {kHello + R"(,"stop_token_ids":[4096])", "stop_token_ids"},
      {kHello + R"(,"echo":true)", "echo"},
  };
  EXPECT_GE(cases.size(), 60U);
  for (const auto& c : cases) {
    const auto request = parse(c.members);
    ASSERT_FALSE(request.has_value()) << c.members;
    EXPECT_EQ(request.error().param, c.param) << c.members;
    EXPECT_EQ(request.error().code, ErrorCode::kInvalidRequest) << c.members;
    EXPECT_NE(request.error().message, "") << c.members;
  }
}

TEST(ChatRequest, BodiesThatAreNoObjectAreRefused) {
  for (const char* body : {"", "[]", "7", "{", "{\"a\":1,\"a\":2}", "{\"a\":1e999}", "{} x",
                           "{\"a\":\"\xff\"}", "{\"a\":\"\\ud800\"}"}) {
    const auto request = parse_chat_request(body, kLimits);
    ASSERT_FALSE(request.has_value()) << body;
    EXPECT_EQ(request.error().code, ErrorCode::kInvalidRequest) << body;
    EXPECT_EQ(request.error().param, "") << body;
  }
  EXPECT_FALSE(parse_chat_request(std::string(200'000, '['), kLimits).has_value());
}

TEST(ChatRequest, BigSchemasAreRefused) {
  const std::string schema = R"({"description":")" + std::string(kMaxSchemaBytes, 'x') + R"("})";
  EXPECT_EQ(
      with(R"("tools":[{"type":"function","function":{"name":"f","parameters":)" + schema + "}}]")
          .error()
          .param,
      "tools[0].function.parameters");
  EXPECT_EQ(with(R"("response_format":{"type":"json_schema","json_schema":{"name":"n","schema":)" +
                 schema + "}}")
                .error()
                .param,
            "response_format.json_schema.schema");
}

}  // namespace
}  // namespace strata::api
