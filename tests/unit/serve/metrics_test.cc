// /metrics as dashboards, autoscalers and endpoint pickers read it.
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>
#include <string>

#include "tests/unit/serve/service_harness.h"

namespace strata::testing {
namespace {

const std::string kScript =
    "<|channel|>analysis<|message|>one two three<|end|><|start|>assistant"
    "<|channel|>final<|message|>four five<|return|>";

// Sample values by name and labels, and types by name, of the text format.
struct Scrape {
  std::map<std::string, double> values;
  std::map<std::string, std::string> types;

  double operator[](const std::string& name) const {
    const auto found = values.find(name);
    EXPECT_NE(found, values.end()) << name;
    return found == values.end() ? -1 : found->second;
  }
};

Scrape scrape(ServiceHarness& harness) {
  Scrape out;
  std::istringstream lines(harness.get("/metrics").body);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# TYPE ")) {
      const auto space = line.find(' ', 7);
      out.types[line.substr(7, space - 7)] = line.substr(space + 1);
    } else if (!line.starts_with("#")) {
      const auto space = line.rfind(' ');
      EXPECT_TRUE(out.values.emplace(line.substr(0, space), std::stod(line.substr(space))).second)
          << "twice: " << line;
    }
  }
  return out;
}

std::string labelled(const std::string& name, const std::string& more = {}) {
  return name + R"({engine="0",)" + (more.empty() ? "" : more + ",") +
         R"(model_name="strata-tiny"})";
}

TEST(Metrics, NamesAndTypesAreVllms) {
  ServiceHarness harness({kScript});
  harness.post_json("/v1/chat/completions", chat_body());
  const auto found = scrape(harness);
  const std::map<std::string, std::set<std::string>> wanted = {
      {"gauge",
       {"vllm:num_requests_running", "vllm:num_requests_waiting",
        "vllm:num_requests_waiting_by_reason", "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc", "vllm:gpu_cache_usage_ratio", "vllm:gpu_prefix_cache_hit_rate",
        "vllm:cache_config_info", "vllm:lora_requests_info", "vllm:engine_sleep_state",
        "vllm:model_weights_memory_bytes", "strata:safe_mode", "process_resident_memory_bytes",
        "process_virtual_memory_bytes", "process_open_fds", "process_max_fds",
        "process_start_time_seconds"}},
      {"counter",
       {"vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total",
        "vllm:gpu_prefix_cache_queries_total",
        "vllm:gpu_prefix_cache_hits_total",
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:prompt_tokens_by_source_total",
        "vllm:prompt_tokens_cached_total",
        "vllm:num_preemptions_total",
        "vllm:request_success_total",
        "strata:step_seconds_total",
        "strata:steps_total",
        "strata:answers_cut_total",
        "strata:breaker_trips_total",
        "strata:memory_failures_total",
        "strata:kv_pages_swapped_total",
        "strata:preemptions_total",
        "strata:rebuilds_total",
        "strata:unloads_total",
        "http_requests_total",
        "process_cpu_seconds_total"}},
      {"histogram",
       {"vllm:time_to_first_token_seconds",        "vllm:inter_token_latency_seconds",
        "vllm:time_per_output_token_seconds",      "vllm:request_time_per_output_token_seconds",
        "vllm:e2e_request_latency_seconds",        "vllm:request_queue_time_seconds",
        "vllm:request_inference_time_seconds",     "vllm:request_prefill_time_seconds",
        "vllm:request_decode_time_seconds",        "vllm:request_prompt_tokens",
        "vllm:request_generation_tokens",          "vllm:request_max_num_generation_tokens",
        "vllm:request_params_max_tokens",          "vllm:request_params_n",
        "vllm:request_prefill_kv_computed_tokens", "vllm:iteration_tokens_total",
        "strata:inter_token_latency_seconds",      "strata:time_to_first_answer_token_seconds",
        "http_request_duration_seconds",           "http_request_duration_highr_seconds"}},
      {"summary", {"http_request_size_bytes", "http_response_size_bytes"}},
  };
  for (const auto& [type, names] : wanted)
    for (const auto& name : names) {
      ASSERT_TRUE(found.types.contains(name)) << name;
      EXPECT_EQ(found.types.at(name), type) << name;
    }
}

TEST(Metrics, LabelsAreModelAndEngine) {
  ServiceHarness harness({kScript});
  harness.post_json("/v1/chat/completions", chat_body());
  const auto found = scrape(harness);
  for (const auto& [sample, _] : found.values) {
    if (!sample.starts_with("vllm:") && !sample.starts_with("strata:")) continue;
    EXPECT_NE(sample.find(R"(engine="0")"), std::string::npos) << sample;
    EXPECT_NE(sample.find(R"(model_name="strata-tiny")"), std::string::npos) << sample;
  }
  for (const char* reason : {"stop", "length", "abort", "error"})
    EXPECT_EQ(found[labelled("vllm:request_success_total",
                             std::string("finished_reason=\"") + reason + '"')],
              std::string(reason) == "stop" ? 1 : 0);
  for (const char* part : {"compute", "host", "sample", "schedule"})
    EXPECT_GE(found[R"(strata:step_seconds_total{engine="0",model_name="strata-tiny",part=")" +
                    std::string(part) + "\"}"],
              0);
}

TEST(Metrics, EachTokenIsCountedOnce) {
  ServiceHarness harness({kScript});
  std::int64_t prompt = 0;
  std::int64_t answer = 0;
  for (int n = 1; n <= 3; ++n) {
    auto body = chat_body();
    body["n"] = n;
    const auto usage = harness.post_json("/v1/chat/completions", body)["usage"];
    prompt += usage["prompt_tokens"].get<std::int64_t>();
    answer += usage["completion_tokens"].get<std::int64_t>();
  }
  const auto found = scrape(harness);
  const auto value = [&](const std::string& name) {
    return static_cast<std::int64_t>(found[labelled(name)]);
  };
  EXPECT_EQ(value("vllm:prompt_tokens_total"), prompt);
  EXPECT_EQ(value("vllm:generation_tokens_total"), answer);
  EXPECT_EQ(value("vllm:request_prompt_tokens_sum"), prompt);
  EXPECT_EQ(value("vllm:request_generation_tokens_sum"), answer);
  // One gap less than there are tokens, in each choice.
  EXPECT_EQ(value("vllm:inter_token_latency_seconds_count") + 6, answer);
  EXPECT_EQ(value("strata:inter_token_latency_seconds_count") + 6, answer);
  const auto by_source = [&](const std::string& source) {
    return static_cast<std::int64_t>(
        found[R"(vllm:prompt_tokens_by_source_total{engine="0",model_name="strata-tiny",source=")" +
              source + "\"}"]);
  };
  EXPECT_EQ(by_source("local_compute") + by_source("local_cache_hit"), prompt);
  EXPECT_EQ(by_source("local_cache_hit"), value("vllm:prompt_tokens_cached_total"));
}

TEST(Metrics, GapsFallIntoTheBucketsOfEveryHistogram) {
  metrics::ServerMetrics metrics("m");
  metrics.tokens_generated(6, 5, 0.003);
  metrics.render({});  // a scrape in between loses and doubles nothing
  metrics.tokens_generated(2, 2, 0.0111);
  metrics.tokens_generated(1, 1, 500.0);
  const auto text = metrics.render({});
  const auto value = [&](const std::string& name, const std::string& bound) {
    const auto sample = name + R"(_bucket{engine="0",model_name="m",le=")" + bound + "\"} ";
    const auto at = text.find(sample);
    EXPECT_NE(at, std::string::npos) << sample;
    return at == std::string::npos ? -1 : std::stoi(text.substr(at + sample.size()));
  };
  EXPECT_EQ(value("strata:inter_token_latency_seconds", "0.002"), 0);
  EXPECT_EQ(value("strata:inter_token_latency_seconds", "0.003"), 5);
  EXPECT_EQ(value("strata:inter_token_latency_seconds", "0.012"), 7);
  EXPECT_EQ(value("strata:inter_token_latency_seconds", "+Inf"), 8);
  for (const char* name :
       {"vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"}) {
    EXPECT_EQ(value(name, "0.01"), 5);
    EXPECT_EQ(value(name, "0.025"), 7);
    EXPECT_EQ(value(name, "80"), 7);
    EXPECT_EQ(value(name, "+Inf"), 8);
  }
  EXPECT_NE(text.find("vllm:inter_token_latency_seconds_sum{engine=\"0\",model_name=\"m\"} 500.03"),
            std::string::npos);
}

TEST(Metrics, StepsAreAHistogramOfTheirRows) {
  ServiceHarness harness({kScript});
  const auto usage = harness.post_json("/v1/chat/completions", chat_body())["usage"];
  scrape(harness);
  harness.post_json("/v1/chat/completions", chat_body());
  const auto found = scrape(harness);
  const auto name = std::string("vllm:iteration_tokens_total");
  EXPECT_EQ(found[labelled(name + "_count")], found[labelled("strata:steps_total")]);
  EXPECT_EQ(found[labelled(name + "_sum")], static_cast<double>(harness.engine().info()->rows));
  EXPECT_EQ(found[name + R"(_bucket{engine="0",model_name="strata-tiny",le="16384"})"],
            found[labelled(name + "_count")]);
  EXPECT_GE(found[labelled(name + "_sum")], usage["prompt_tokens"].get<double>());
}

TEST(Metrics, TheFirstAnswerTokenComesBehindTheReasoning) {
  HarnessOptions options;
  options.step_delay_us = 2000;
  ServiceHarness harness({kScript}, options);
  harness.post_json("/v1/chat/completions", chat_body());
  const auto found = scrape(harness);
  EXPECT_EQ(found[labelled("strata:time_to_first_answer_token_seconds_count")], 1);
  EXPECT_GT(found[labelled("strata:time_to_first_answer_token_seconds_sum")],
            found[labelled("vllm:time_to_first_token_seconds_sum")]);
}

TEST(Metrics, AnswersThatAreCutAreCountedByTheirLimit) {
  ServiceHarness harness({"<|channel|>final<|message|>" + std::string(3000, 'x')});
  auto body = chat_body();
  body["max_tokens"] = 5;
  harness.post_json("/v1/chat/completions", body);
  harness.post_json("/v1/chat/completions", chat_body());
  body["max_tokens"] = 1'000'000;
  harness.post_json("/v1/chat/completions", body);
  const auto found = scrape(harness);
  const auto cut = [&](const std::string& limit) {
    return found[R"(strata:answers_cut_total{engine="0",limit=")" + limit +
                 R"(",model_name="strata-tiny"})"];
  };
  EXPECT_EQ(cut("max_tokens"), 1);
  EXPECT_EQ(cut("context"), 2);
  EXPECT_EQ(found[labelled("vllm:request_success_total", R"(finished_reason="length")")], 3);
}

// The scheme production-stack's router reads: the last sample of each of these names.
TEST(Metrics, OldNamesFollowTheNew) {
  ServiceHarness harness({kScript});
  for (int i = 0; i < 2; ++i) harness.post_json("/v1/chat/completions", chat_body());
  const auto found = scrape(harness);
  for (const char* name : {"prefix_cache_queries_total", "prefix_cache_hits_total"})
    EXPECT_EQ(found[labelled(std::string("vllm:gpu_") + name)],
              found[labelled(std::string("vllm:") + name)]);
  EXPECT_GT(found[labelled("vllm:prefix_cache_hits_total")], 0);
  EXPECT_DOUBLE_EQ(found[labelled("vllm:gpu_prefix_cache_hit_rate")],
                   found[labelled("vllm:prefix_cache_hits_total")] /
                       found[labelled("vllm:prefix_cache_queries_total")]);
  for (const char* name : {"gpu_cache_usage_perc", "gpu_cache_usage_ratio"})
    EXPECT_EQ(found[labelled(std::string("vllm:") + name)],
              found[labelled("vllm:kv_cache_usage_perc")]);
}

TEST(Metrics, HttpIsCountedByRouteAndBytes) {
  ServiceHarness harness({kScript});
  const auto body = chat_body().dump();
  const auto response = harness.post("/v1/chat/completions", body);
  harness.get("/no/such/path");
  harness.get("/v1/streams/chatcmpl-secret");
  const auto found = scrape(harness);
  EXPECT_EQ(found[R"(http_requests_total{handler="/chat/completions",method="POST",status="2xx"})"],
            1);
  EXPECT_EQ(found[R"(http_requests_total{handler="none",method="GET",status="4xx"})"], 1);
  EXPECT_EQ(found[R"(http_requests_total{handler="/streams/{id}",method="GET",status="4xx"})"], 1);
  EXPECT_EQ(found[R"(http_request_size_bytes_sum{handler="/chat/completions"})"], body.size());
  EXPECT_EQ(found[R"(http_response_size_bytes_sum{handler="/chat/completions"})"],
            response.body.size());
  EXPECT_GT(found["process_resident_memory_bytes"], 1e6);
  EXPECT_GT(found["process_open_fds"], 3);
}

}  // namespace
}  // namespace strata::testing
