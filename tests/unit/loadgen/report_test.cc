#include "loadgen/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/json.h"

namespace strata::loadgen {
namespace {

using testing::HasSubstr;
using testing::Not;

RunResult two_answers() {
  RunResult run;
  run.duration = 2;
  run.began = 5'000'000'000;
  for (int i = 0; i < 2; ++i) {
    Outcome out;
    out.success = true;
    out.status = 200;
    out.start = out.due = i;
    out.ttft = 0.25;
    out.latency = 0.75;
    out.itl = {0.5};
    out.input_tokens = 7;
    out.output_tokens = 2;
    out.text = "hi";
    run.outcomes.push_back(out);
  }
  return run;
}

std::string table(const RunResult& run, const LoadOptions& options) {
  return format_table(figures_of(run.outcomes, run.duration, options), options);
}

Json json(const RunResult& run, const LoadOptions& options, const std::string& extra = {}) {
  return Json::parse(result_json(figures_of(run.outcomes, run.duration, options), run, options,
                                 {"20260102-030405", "org/model"}, extra));
}

TEST(Table, IsVllms) {
  LoadOptions options;
  EXPECT_EQ(table(two_answers(), options),
            "============ Serving Benchmark Result ============\n"
            "Successful requests:                     2         \n"
            "Failed requests:                         0         \n"
            "Benchmark duration (s):                  2.00      \n"
            "Total input tokens:                      14        \n"
            "Total generated tokens:                  4         \n"
            "Request throughput (req/s):              1.00      \n"
            "Output token throughput (tok/s):         2.00      \n"
            "Peak output token throughput (tok/s):    2.00      \n"
            "Peak concurrent requests:                1.00      \n"
            "Total token throughput (tok/s):          9.00      \n"
            "---------------Time to First Token----------------\n"
            "Mean TTFT (ms):                          250.00    \n"
            "Median TTFT (ms):                        250.00    \n"
            "P99 TTFT (ms):                           250.00    \n"
            "-----Time per Output Token (excl. 1st token)------\n"
            "Mean TPOT (ms):                          500.00    \n"
            "Median TPOT (ms):                        500.00    \n"
            "P99 TPOT (ms):                           500.00    \n"
            "---------------Inter-token Latency----------------\n"
            "Mean ITL (ms):                           500.00    \n"
            "Median ITL (ms):                         500.00    \n"
            "P99 ITL (ms):                            500.00    \n"
            "==================================================\n");
}

TEST(Table, RowsThatDependOnFlags) {
  LoadOptions options;
  options.max_concurrency = 3;
  options.request_rate = 2.5;
  options.goodput.ttft_ms = 300;
  options.metrics = {"e2el", "client_queue_time", "e2el_including_client_queue"};
  options.percentiles = {50, 99.9};
  const std::string text = table(two_answers(), options);
  for (const char* row : {"Maximum request concurrency:             3 ",
                          "Request rate configured (RPS):           2.50",
                          "Request goodput (req/s):                 1.00",
                          "P50 E2EL (ms):                           750", "P99.9 E2EL (ms):",
                          "Client-side Queueing", "P50 E2EL incl. Client Queue (ms):"})
    EXPECT_THAT(text, HasSubstr(row));
  EXPECT_THAT(text, Not(HasSubstr("TTFT")));
}

TEST(Table, RefusalsAndFailures) {
  RunResult run = two_answers();
  run.outcomes[0] = Outcome{};
  run.outcomes[0].status = 429;
  run.outcomes[0].error = "HTTP 429: the queue is full";
  run.outcomes[0].server_time = 0.003;
  run.outcomes[0].latency = 0.005;
  const std::string text = table(run, {});
  EXPECT_THAT(text, HasSubstr("Failed requests:                         1 "));
  EXPECT_THAT(text, HasSubstr("Refused with 429, of the failed:         1 "));
  EXPECT_THAT(text, HasSubstr("P99 server time (ms):                    3.00"));
  EXPECT_THAT(text, HasSubstr("       1 x HTTP 429: the queue is full\n"));
}

TEST(Table, SaysWhenTheGeneratorWasLate) {
  RunResult run = two_answers();
  EXPECT_THAT(table(run, {}), Not(HasSubstr("late")));
  run.outcomes[1].start = 1.1;
  run.outcomes[1].due = 1.0;
  run.outcomes[0].start = 0.1;  // both are late by as much
  EXPECT_THAT(table(run, {}), HasSubstr("the generator was late: P99 100.0 ms"));
}

TEST(ResultJson, HasVllmsKeys) {
  LoadOptions options;
  options.save_detailed = true;
  options.metrics = {"ttft", "tpot", "itl", "e2el"};
  const Json out = json(two_answers(), options);
  std::set<std::string> keys = {"date",
                                "endpoint_type",
                                "backend",
                                "label",
                                "model_id",
                                "tokenizer_id",
                                "num_prompts",
                                "request_rate",
                                "burstiness",
                                "max_concurrency",
                                "duration",
                                "completed",
                                "failed",
                                "total_input_tokens",
                                "total_output_tokens",
                                "request_throughput",
                                "request_goodput",
                                "output_throughput",
                                "total_token_throughput",
                                "input_lens",
                                "output_lens",
                                "ttfts",
                                "itls",
                                "latencies",
                                "start_times",
                                "queue_times",
                                "generated_texts",
                                "errors",
                                "max_output_tokens_per_s",
                                "max_concurrent_requests"};
  for (const char* metric : {"ttft", "tpot", "itl", "e2el"})
    for (const char* what : {"mean", "median", "std", "p99"})
      keys.insert(std::string(what) + "_" + metric + "_ms");
  for (const std::string& key : keys) EXPECT_TRUE(out.contains(key)) << key;
  EXPECT_EQ(out["request_rate"], "inf");
  EXPECT_EQ(out["model_id"], "org/model");
  EXPECT_EQ(out["start_times"], Json::parse("[5.0, 6.0]"));
  EXPECT_EQ(out["itls"], Json::parse("[[0.5],[0.5]]"));
  EXPECT_EQ(out["mean_ttft_ms"], 250.0);
  EXPECT_EQ(out["request_goodput"], nullptr);
}

TEST(ResultJson, ListsOnlyWhenAskedAndExtraMembers) {
  const Json out = json(two_answers(), {}, R"({"five_users":{"failed":0}})");
  for (const char* key : {"ttfts", "itls", "generated_texts", "errors", "start_times"})
    EXPECT_FALSE(out.contains(key)) << key;
  EXPECT_EQ(out["five_users"]["failed"], 0);
}

TEST(Report, SpeculativeDecodingWhereTheServerTellsIt) {
  Figures figures;
  figures.lag = spread_of({}, std::vector<double>{99});
  figures.spec_decode = SpecDecode{10, 30, 15, 50.0, 2.5, {0.9, 0.6}};
  const std::string text = format_table(figures, {});
  EXPECT_THAT(text, HasSubstr("Acceptance length:                       2.50"));
  EXPECT_THAT(text, HasSubstr("  Position 1:                            60.00"));
  const Json out = Json::parse(result_json(figures, {}, {}, {}));
  EXPECT_EQ(out["spec_decode_num_drafts"], 10);
  EXPECT_EQ(out["spec_decode_per_position_acceptance_rates"], Json::parse("[0.9,0.6]"));
}

TEST(ResultPath, IsVllms) {
  const RunLabels labels{"20260102-030405", "org/model"};
  LoadOptions options;
  EXPECT_EQ(result_path(options, labels), "openai-infqps-model-20260102-030405.json");
  options.request_rate = 2.5;
  options.max_concurrency = 4;
  options.label = "mine";
  options.result_dir = "out";
  EXPECT_EQ(result_path(options, labels),
            "out/mine-2.5qps-concurrency4-model-20260102-030405.json");
  options.result_filename = "x.json";
  EXPECT_EQ(result_path(options, labels), "out/x.json");
}

}  // namespace
}  // namespace strata::loadgen
