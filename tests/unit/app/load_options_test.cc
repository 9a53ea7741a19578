// The command line of `strata bench serve`.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "app/options.h"
#include "base/result.h"

namespace strata::app {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ParsedCommandLine parse(const std::vector<std::string>& arguments) {
  return parse_command_line(arguments, {});
}

// Message and hint of what is refused.
std::string usage_of(const std::vector<std::string>& arguments) {
  try {
    parse(arguments);
  } catch (const StartupError& error) {
    return std::string(error.what()) + "; " + error.hint();
  }
  return "accepted";
}

TEST(BenchServe, TakesVllmsFlags) {
  const auto load = parse({"bench",
                           "serve",
                           "--backend",
                           "openai-chat",
                           "--base-url",
                           "http://h:1",
                           "--model",
                           "m",
                           "--dataset-name",
                           "random",
                           "--random-input-len",
                           "64",
                           "--random-output-len",
                           "32",
                           "--random-range-ratio",
                           "0.25",
                           "--num-prompts",
                           "7",
                           "--request-rate",
                           "2.5",
                           "--burstiness",
                           "0.5",
                           "--max-concurrency",
                           "3",
                           "--num-warmups",
                           "1",
                           "--goodput",
                           "ttft:200",
                           "tpot:50",
                           "--percentile-metrics",
                           "ttft,e2el",
                           "--metric-percentiles",
                           "50,99.9",
                           "--save-result",
                           "--result-filename",
                           "x.json",
                           "--seed",
                           "9",
                           "--header",
                           "A=b=c",
                           "--disable-tqdm",
                           "--extra-body",
                           "{\"top_k\":1}"})
                        .options.load;
  EXPECT_EQ(load.api, loadgen::Api::kChat);
  EXPECT_EQ(load.base_url, "http://h:1");
  EXPECT_EQ(load.model, "m");
  EXPECT_EQ(load.input_tokens, 64);
  EXPECT_EQ(load.output_tokens, 32);
  EXPECT_EQ(load.range_ratio, 0.25);
  EXPECT_EQ(load.num_prompts, 7);
  EXPECT_EQ(load.request_rate, 2.5);
  EXPECT_EQ(load.burstiness, 0.5);
  EXPECT_EQ(load.max_concurrency, 3);
  EXPECT_EQ(load.num_warmups, 1);
  EXPECT_EQ(load.goodput.ttft_ms, 200);
  EXPECT_EQ(load.goodput.tpot_ms, 50);
  EXPECT_FALSE(load.goodput.e2el_ms);
  EXPECT_THAT(load.metrics, ElementsAre("ttft", "e2el"));
  EXPECT_THAT(load.percentiles, ElementsAre(50, 99.9));
  EXPECT_TRUE(load.save_result && load.ignore_eos);
  EXPECT_EQ(load.seed, 9U);
  EXPECT_EQ(load.headers.at(0).second, "b=c");
}

TEST(BenchServe, IsBelowBenchAndApartFromIt) {
  EXPECT_EQ(parse({"bench", "serve"}).options.command, Command::kBenchServe);
  EXPECT_EQ(parse({"bench", "./serve"}).options.model, "./serve");
  EXPECT_EQ(parse({"bench", "serve", "--request-rate", "inf"}).options.load.request_rate,
            std::numeric_limits<double>::infinity());
  EXPECT_THAT(*parse({"bench", "serve", "--help"}).text, HasSubstr("--request-rate"));
  EXPECT_THAT(*parse({"bench", "--help"}).text, HasSubstr("serve"));
  EXPECT_THAT(usage_of({"bench", "--batch", "2", "serve"}), HasSubstr("--batch stands before"));
  EXPECT_THAT(usage_of({"bench", "serve", "--batch", "2"}), HasSubstr("strata bench takes it"));
  EXPECT_THAT(usage_of({"bench", "serve", "model"}), HasSubstr("--model names"));
  EXPECT_THAT(usage_of({"serve", "--request-rate", "2"}), HasSubstr("strata bench serve takes"));
}

TEST(BenchServe, BadValuesAreNamed) {
  const auto bad = [](std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"bench", "serve"});
    return usage_of(flags);
  };
  EXPECT_THAT(bad({"--goodput", "ttft"}), HasSubstr("KEY:MILLISECONDS"));
  EXPECT_THAT(bad({"--goodput", "itl:5"}), HasSubstr("'itl'"));
  EXPECT_THAT(bad({"--percentile-metrics", "ttft,x"}), HasSubstr("'x'"));
  EXPECT_THAT(bad({"--metric-percentiles", "101"}), HasSubstr("--metric-percentiles"));
  EXPECT_THAT(bad({"--request-rate", "0"}), HasSubstr("--request-rate"));
  EXPECT_THAT(bad({"--endpoint", "v1"}), HasSubstr("--endpoint"));
  EXPECT_THAT(bad({"--extra-body", "[1]"}), HasSubstr("JSON object"));
  EXPECT_THAT(bad({"--header", "a"}), HasSubstr("KEY=VALUE"));
  EXPECT_THAT(bad({"--preset", "six-users"}), HasSubstr("six-users"));
  EXPECT_THAT(bad({"--dataset-name", "custom"}), HasSubstr("--dataset-path"));
  EXPECT_THAT(bad({"--dataset-path", "x"}), HasSubstr("--dataset-name custom"));
}

TEST(BenchServe, TheKeyComesFromTheFlagBeforeTheEnvironment) {
  Environment environment;
  environment.openai_api_key = "outer";
  EXPECT_EQ(parse_command_line({"bench", "serve"}, environment).options.load.api_key, "outer");
  EXPECT_EQ(
      parse_command_line({"bench", "serve", "--api-key", "k"}, environment).options.load.api_key,
      "k");
}

}  // namespace
}  // namespace strata::app
