#include "serve/routes.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "tests/unit/serve/service_harness.h"

namespace strata::testing {
namespace {

const std::string kScript = "<|channel|>final<|message|>ok<|return|>";

TEST(Routes, CanonicalPaths) {
  EXPECT_EQ(serve::canonical_path("/v1/models"), "/models");
  EXPECT_EQ(serve::canonical_path("//v1//models/"), "/models");
  EXPECT_EQ(serve::canonical_path("/"), "/");
  EXPECT_EQ(serve::canonical_path("/v1"), "/v1");
  EXPECT_EQ(serve::canonical_path("/v1/models/openai/gpt-oss-20b"), "/models/openai/gpt-oss-20b");
}

TEST(Routes, EveryGetAnswersWithAndWithoutPrefix) {
  ServiceHarness harness({kScript});
  for (const char* path : {"/health",
                           "/v1/health",
                           "/health/live",
                           "/health/ready",
                           "/ping",
                           "/version",
                           "/models",
                           "/v1/models",
                           "/v1/models/",
                           "//v1/models",
                           "/v1/models/strata-tiny",
                           "/metrics",
                           "/",
                           "/chat",
                           "/app.js",
                           "/stream.js",
                           "/text.js",
                           "/messages.js",
                           "/style.css",
                           "/icon.svg",
                           "/favicon.ico"}) {
    const auto response = harness.get(path);
    EXPECT_EQ(response.status, 200) << path;
    EXPECT_NE(response.body, "") << path;
    EXPECT_NE(response.headers.at("x-request-id"), "") << path;
    EXPECT_EQ(harness.ask("HEAD", path, "", "").status, 200) << path;
  }
}

TEST(Routes, ModelsShowTheContext) {
  HarnessOptions options;
  options.service.model_names = {"first", "openai/second"};
  ServiceHarness harness({kScript}, options);
  const auto list = json::parse(harness.get("/v1/models").body);
  EXPECT_EQ(list["data"].size(), 2U);
  EXPECT_EQ(list["data"][1]["id"], "openai/second");
  EXPECT_EQ(list["data"][0]["max_model_len"], 512);
  EXPECT_EQ(json::parse(harness.get("/v1/models/openai/second").body)["id"], "openai/second");
  EXPECT_EQ(json::parse(harness.get("/v1/models/openai%2Fsecond").body)["id"], "openai/second");
  EXPECT_EQ(harness.get("/v1/models/other").status, 404);
}

TEST(Routes, AnyModelNameIsServed) {
  HarnessOptions options;
  options.service.model_names = {"first", "second"};
  ServiceHarness harness({kScript}, options);
  auto body = chat_body();
  for (const auto& [asked, shown] : std::vector<std::pair<std::string, std::string>>{
           {"gpt-4o", "first"}, {"", "first"}, {"second", "second"}}) {
    body["model"] = asked;
    EXPECT_EQ(harness.post_json("/v1/chat/completions", body)["model"], shown);
  }
}

TEST(Routes, TokenizeAndBack) {
  ServiceHarness harness({kScript});
  const auto tokens = harness.post_json("/tokenize", {{"prompt", "Hello there"}});
  EXPECT_EQ(tokens["count"], tokens["tokens"].size());
  EXPECT_EQ(tokens["max_model_len"], 512);
  EXPECT_EQ(harness.post_json("/detokenize", {{"tokens", tokens["tokens"]}})["prompt"],
            "Hello there");
  const auto special = harness.post_json("/tokenize", {{"prompt", "<|start|>"}});
  EXPECT_GT(special["count"], 1) << "text is never a special token";
  EXPECT_EQ(harness.post_json("/tokenize", chat_body())["tokens"],
            harness.post_json("/apply-template", chat_body())["tokens"]);
}

TEST(Routes, KeysGuardEverythingButPageAndHealth) {
  HarnessOptions options;
  options.service.api_keys = {"first-key", "second-key"};
  ServiceHarness harness({kScript}, options);
  for (const char* path : {"/", "/app.js", "/health", "/health/ready", "/health/live", "/ping"})
    EXPECT_EQ(harness.get(path).status, 200) << path;
  for (const char* path :
       {"/v1/models", "/models/strata-tiny", "/metrics", "/version", "/nothing"}) {
    const auto response = harness.get(path);
    EXPECT_EQ(response.status, 401) << path;
    EXPECT_EQ(json::parse(response.body)["error"]["code"], "invalid_api_key");
  }
  for (const char* path :
       {"/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/apply-template"})
    EXPECT_EQ(harness.post(path, "{}").status, 401) << path;
  for (const char* header : {"Authorization: Bearer first-key\r\n",
                             "authorization: bearer  second-key\r\n", "X-Api-Key: second-key\r\n"})
    EXPECT_EQ(harness.get("/v1/models", header).status, 200) << header;
  for (const char* header :
       {"Authorization: Bearer first-ke\r\n", "Authorization: first-key\r\n",
        "Authorization: Bearer\r\n", "Authorization: Bearer first-key2\r\n", "X-Api-Key: \r\n"})
    EXPECT_EQ(harness.get("/v1/models", header).status, 401) << header;
}

TEST(Routes, WithoutAKeyAnyKeyIsAccepted) {
  ServiceHarness harness({kScript});
  EXPECT_EQ(harness.get("/v1/models", "Authorization: Bearer whatever\r\n").status, 200);
}

TEST(Routes, ForeignHostNamesAreRefusedWhenAsked) {
  HarnessOptions options;
  options.service.check_host = true;
  options.service.allowed_origins = {"https://box.example:444"};
  ServiceHarness harness({kScript}, options);
  for (const char* host : {"localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000",
                           "app.localhost", "box.example:80", "LOCALHOST"})
    EXPECT_EQ(harness.get("/v1/models", std::string("Host: ") + host + "\r\n").status, 200) << host;
  for (const char* host : {"evil.example", "localhost.evil.example", "127.0.0.1.evil.example",
                           "evil.example:8000", "notlocalhost"}) {
    const auto response = harness.get("/v1/models", std::string("Host: ") + host + "\r\n");
    EXPECT_EQ(response.status, 403) << host;
    EXPECT_EQ(json::parse(response.body)["error"]["code"], "host_not_allowed");
  }
}

TEST(Routes, BrowsersOfAllowedOriginsMayCall) {
  HarnessOptions options;
  options.service.allowed_origins = {"https://app.example"};
  ServiceHarness harness({kScript}, options);
  for (const char* origin : {"https://app.example", "http://localhost:3000", "http://127.0.0.1"}) {
    const auto header = std::string("Origin: ") + origin + "\r\n";
    const auto preflight =
        harness.ask("OPTIONS", "/v1/chat/completions",
                    header +
                        "Access-Control-Request-Method: POST\r\n"
                        "Access-Control-Request-Headers: authorization,x-stainless-os\r\n",
                    "");
    EXPECT_EQ(preflight.status, 204) << origin;
    EXPECT_EQ(preflight.headers.at("access-control-allow-origin"), origin);
    EXPECT_EQ(preflight.headers.at("access-control-allow-headers"), "authorization,x-stainless-os");
    EXPECT_NE(preflight.headers.at("access-control-allow-methods").find("POST"), std::string::npos);
    const auto failed = harness.post("/v1/chat/completions", "{", header);
    EXPECT_EQ(failed.status, 400);
    EXPECT_EQ(failed.headers.at("access-control-allow-origin"), origin)
        << "errors must be readable for the page too";
  }
}

TEST(Routes, ForeignOriginsMayNotStartWork) {
  ServiceHarness harness({kScript});
  const std::string header = "Origin: https://evil.example\r\n";
  const auto response = harness.post("/v1/chat/completions", chat_body().dump(), header);
  EXPECT_EQ(response.status, 403);
  EXPECT_EQ(response.headers.count("access-control-allow-origin"), 0U);
  const auto preflight = harness.ask("OPTIONS", "/v1/chat/completions", header, "");
  EXPECT_EQ(preflight.headers.count("access-control-allow-origin"), 0U);
  HarnessOptions open;
  open.service.allowed_origins = {"*"};
  ServiceHarness any({kScript}, open);
  EXPECT_EQ(any.post("/v1/chat/completions", chat_body().dump(), header).status, 200);
}

TEST(Routes, RequestIdsAreEchoedWhenSafe) {
  ServiceHarness harness({kScript});
  EXPECT_EQ(harness.get("/health", "X-Client-Request-Id: my-id\r\n").headers.at("x-request-id"),
            "my-id");
  EXPECT_TRUE(harness.get("/health", "X-Request-Id: two words\r\n")
                  .headers.at("x-request-id")
                  .starts_with("req_"));
  std::set<std::string> ids;
  for (int i = 0; i < 10; ++i) ids.insert(harness.get("/health").headers.at("x-request-id"));
  EXPECT_EQ(ids.size(), 10U);
}

TEST(Routes, ThePageRunsNothingButItself) {
  ServiceHarness harness({kScript});
  const auto page = harness.get("/");
  const auto policy = page.headers.at("content-security-policy");
  EXPECT_NE(policy.find("default-src 'none'"), std::string::npos);
  EXPECT_NE(policy.find("require-trusted-types-for 'script'"), std::string::npos);
  EXPECT_EQ(policy.find("unsafe"), std::string::npos);
  EXPECT_EQ(page.headers.at("x-content-type-options"), "nosniff");
  for (const char* path :
       {"/", "/app.js", "/stream.js", "/text.js", "/messages.js", "/style.css"}) {
    const auto body = harness.get(path).body;
    for (const char* word : {"innerHTML", "insertAdjacentHTML", "document.write", "eval(",
                             "http://", "https://", "onclick=\"", "style=\""})
      EXPECT_EQ(body.find(word), std::string::npos) << path << " has " << word;
  }
}

TEST(Routes, DrainingRefusesNewWorkAndSaysSo) {
  ServiceHarness harness({kScript});
  EXPECT_EQ(harness.get("/health/ready").status, 200);
  harness.service().begin_drain();
  EXPECT_EQ(harness.get("/health/ready").status, 503);
  EXPECT_EQ(harness.get("/health").status, 200);
  const auto response = harness.post("/v1/chat/completions", chat_body().dump());
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(json::parse(response.body)["error"]["code"], "draining");
  EXPECT_EQ(response.headers.at("retry-after"), "1");
}

TEST(Routes, TheEngineSleepsAndWakesWhenThatIsAllowed) {
  HarnessOptions options;
  options.service.sleep_mode = true;
  ServiceHarness harness({kScript}, options);
  EXPECT_EQ(harness.get("/is_sleeping").body, R"({"is_sleeping":false})");
  EXPECT_EQ(harness.post("/sleep?level=1", "").status, 200);
  EXPECT_EQ(harness.get("/is_sleeping").body, R"({"is_sleeping":true})");
  EXPECT_EQ(harness.get("/health").status, 200);
  EXPECT_EQ(harness.get("/health/ready").status, 503);
  const auto refused = harness.post("/v1/chat/completions", chat_body().dump());
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(json::parse(refused.body)["error"]["code"], "sleeping");
  EXPECT_NE(harness.get("/metrics")
                .body.find(R"(vllm:engine_sleep_state{engine="0",model_name="strata-tiny",)"
                           R"(sleep_state="discard_all"} 1)"),
            std::string::npos);
  EXPECT_EQ(harness.post("/wake_up", "").status, 200);
  EXPECT_EQ(harness.get("/is_sleeping").body, R"({"is_sleeping":false})");
  EXPECT_EQ(harness.post("/v1/chat/completions", chat_body().dump()).status, 200);
}

TEST(Routes, SleepingIsRefusedOtherwise) {
  ServiceHarness harness({kScript});
  for (const char* path : {"/sleep", "/wake_up"}) {
    const auto refused = harness.post(path, "");
    EXPECT_EQ(refused.status, 403);
    EXPECT_EQ(json::parse(refused.body)["error"]["code"], "sleep_mode_off");
  }
}

TEST(Routes, ThePlanIsServedAsItIs) {
  HarnessOptions options;
  options.service.plan_json = R"({"allocations":[],"total_bytes":5})";
  ServiceHarness harness({kScript}, options);
  EXPECT_EQ(harness.get("/plan").body, options.service.plan_json);
  EXPECT_EQ(ServiceHarness({kScript}).get("/v1/plan").status, 404);
}

TEST(Routes, MetricsFollowVllmsNames) {
  ServiceHarness harness({kScript});
  harness.post_json("/v1/chat/completions", chat_body());
  const auto response = harness.get("/metrics");
  EXPECT_TRUE(response.headers.at("content-type").starts_with("text/plain; version=0.0.4"));
  const auto& text = response.body;
  const std::string labels = R"({engine="0",model_name="strata-tiny"})";
  for (const char* name : {"vllm:num_requests_running",
                           "vllm:num_requests_waiting",
                           "vllm:kv_cache_usage_perc",
                           "vllm:gpu_cache_usage_perc",
                           "vllm:prefix_cache_queries_total",
                           "vllm:prefix_cache_hits_total",
                           "vllm:gpu_prefix_cache_queries_total",
                           "vllm:gpu_prefix_cache_hits_total",
                           "vllm:prompt_tokens_total",
                           "vllm:generation_tokens_total",
                           "vllm:num_preemptions_total",
                           "vllm:time_to_first_token_seconds_count",
                           "vllm:inter_token_latency_seconds_count",
                           "vllm:e2e_request_latency_seconds_sum",
                           "vllm:request_queue_time_seconds_sum",
                           "vllm:request_prefill_time_seconds_sum",
                           "vllm:request_decode_time_seconds_sum",
                           "vllm:request_time_per_output_token_seconds_count",
                           "vllm:request_prompt_tokens_sum",
                           "vllm:request_generation_tokens_sum"})
    EXPECT_NE(text.find("\n" + (std::string(name) + labels)), std::string::npos) << name;
  EXPECT_NE(text.find(R"(vllm:request_success_total{engine="0",finished_reason="stop",)"
                      R"(model_name="strata-tiny"} 1)"),
            std::string::npos);
  EXPECT_NE(text.find("vllm:cache_config_info{"), std::string::npos);
  EXPECT_NE(text.find(R"(block_size="16")"), std::string::npos);
  EXPECT_NE(text.find("le=\"0.001\""), std::string::npos);
}

}  // namespace
}  // namespace strata::testing
