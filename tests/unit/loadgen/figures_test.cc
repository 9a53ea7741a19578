#include "loadgen/figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "loadgen/five_users.h"

namespace strata::loadgen {
namespace {

using testing::ElementsAre;
using testing::Pair;

Outcome answer(double start, double ttft, std::vector<double> itl) {
  Outcome out;
  out.success = true;
  out.status = 200;
  out.start = out.due = start;
  out.ttft = ttft;
  out.latency = ttft;
  for (const double gap : itl) out.latency += gap;
  out.itl = std::move(itl);
  out.input_tokens = 10;
  out.output_tokens = static_cast<std::int64_t>(out.itl.size()) + 1;
  return out;
}

Outcome failure(int status, std::string error, double server_time = -1) {
  Outcome out;
  out.status = status;
  out.error = std::move(error);
  out.latency = 0.004;
  out.server_time = server_time;
  return out;
}

TEST(Statistics, OfKnownValues) {
  const std::vector<double> values = {1, 2, 3, 4};
  EXPECT_EQ(mean(values), 2.5);
  EXPECT_NEAR(standard_deviation(values), 1.118034, 1e-6);
  EXPECT_EQ(percentile(values, 0), 1);
  EXPECT_EQ(percentile(values, 100), 4);
  EXPECT_NEAR(percentile(values, 99), 3.97, 1e-12);  // numpy's default
  EXPECT_EQ(spread_of({4, 1, 3, 2}, {}).median, 2.5);
}

TEST(Statistics, OfNothing) {
  EXPECT_EQ(mean({}), 0);
  EXPECT_EQ(standard_deviation({}), 0);
  EXPECT_EQ(percentile({}, 50), 0);
}

TEST(Figures, VllmsDefinitions) {
  LoadOptions options;
  options.percentiles = {50, 99};
  const std::vector<Outcome> outcomes = {answer(0.0, 0.1, {0.2, 0.4}), answer(0.05, 0.3, {0.1})};
  const Figures figures = figures_of(outcomes, 2.0, options);
  EXPECT_EQ(figures.completed, 2);
  EXPECT_EQ(figures.total_input, 20);
  EXPECT_EQ(figures.total_output, 5);
  EXPECT_EQ(figures.per_second(figures.total_output), 2.5);
  EXPECT_NEAR(figures.ttft.mean, 0.2, 1e-12);
  EXPECT_NEAR(figures.tpot.mean, (0.3 + 0.1) / 2, 1e-12);
  EXPECT_NEAR(figures.itl.mean, 0.7 / 3, 1e-12);
  EXPECT_NEAR(figures.e2el.mean, (0.7 + 0.4) / 2, 1e-12);
  EXPECT_THAT(figures.ttft.percentiles, ElementsAre(Pair(50, testing::DoubleNear(0.2, 1e-12)),
                                                    Pair(99, testing::DoubleNear(0.298, 1e-12))));
}

// vLLM leaves answers of one token out of TPOT and counts the text's tokens where the server does.
TEST(Figures, AnAnswerOfOneTokenHasNoTpot) {
  const std::vector<Outcome> outcomes = {answer(0, 0.1, {})};
  const Figures figures = figures_of(outcomes, 1.0, {});
  EXPECT_EQ(figures.tpot.mean, 0);
  EXPECT_EQ(figures.total_output, 1);
}

TEST(Figures, PeaksAreOverHalfOpenIntervalsAndWholeSeconds) {
  const std::vector<Outcome> outcomes = {answer(0.0, 0.5, {0.5}), answer(0.2, 0.1, {0.1}),
                                         answer(1.0, 0.5, {0.25, 0.1, 0.05})};
  const Figures figures = figures_of(outcomes, 2.0, {});
  EXPECT_EQ(figures.max_concurrent_requests, 2);
  EXPECT_EQ(figures.max_output_tokens_per_s, 5);  // of second 1
}

TEST(Figures, RefusalsAndFailuresAreCountedByKind) {
  const std::vector<Outcome> outcomes = {answer(0, 0.1, {}), failure(429, "HTTP 429: full", 0.002),
                                         failure(429, "HTTP 429: full"), failure(0, "refused")};
  const Figures figures = figures_of(outcomes, 1.0, {});
  EXPECT_EQ(figures.completed, 1);
  EXPECT_EQ(figures.failed, 3);
  EXPECT_EQ(figures.rejected, 2);
  EXPECT_EQ(figures.rejected_with_server_time, 1);
  EXPECT_EQ(figures.rejected_server_time.mean, 0.002);
  EXPECT_THAT(figures.errors, ElementsAre(Pair("HTTP 429: full", 2), Pair("refused", 1)));
}

TEST(Figures, GoodputKeepsEveryLimit) {
  LoadOptions options;
  options.goodput = {150.0, 250.0, std::nullopt};
  const std::vector<Outcome> outcomes = {answer(0, 0.1, {0.2}), answer(0, 0.2, {0.2}),
                                         answer(0, 0.1, {0.3}), answer(0, 0.1, {})};
  EXPECT_EQ(figures_of(outcomes, 1.0, options).good, 2);
  options.goodput.e2el_ms = 200;
  EXPECT_EQ(figures_of(outcomes, 1.0, options).good, 1);
}

TEST(Figures, LagIsWhatConcurrencyDoesNotExplain) {
  Outcome late = answer(1.5, 0.1, {});
  late.due = 1.0;
  late.queue = 0.3;
  const std::vector<Outcome> outcomes = {late};
  EXPECT_NEAR(figures_of(outcomes, 2.0, {}).lag.mean, 0.2, 1e-12);
}

TEST(FiveUsers, EndsAreDropped) {
  std::vector<Outcome> natural(50, answer(0, 0.2, {0.1}));
  for (std::size_t i : {0U, 4U, 45U, 49U}) natural[i].ttft = 100;
  natural[20].ttft = 0.6;
  std::vector<Outcome> longer(50, answer(0, 0.1, std::vector<double>(255, 0.01)));
  longer[30] = failure(500, "HTTP 500");
  const FiveUsers figures = five_users_of(natural, longer);
  EXPECT_NEAR(figures.ttft_ms.mean, 210, 1e-9);
  EXPECT_NEAR(figures.ttft_ms.std, 62.45, 0.01);
  EXPECT_NEAR(figures.ttft_ms.median, 200, 1e-9);
  EXPECT_GT(figures.ttft_ms.percentiles.front().second, 400);
  EXPECT_NEAR(figures.e2e_s.mean, 0.3, 1e-9);
  EXPECT_NEAR(figures.tokens_per_s.mean, 100, 1e-6);
  EXPECT_EQ(figures.failed, 1);
}

TEST(FiveUsers, AreAChatUnlessSomethingElseWasAskedFor) {
  LoadOptions options;
  apply_five_users(options);
  EXPECT_EQ(options.api, Api::kChat);
  options.api = Api::kCompletions;
  options.api_given = true;
  apply_five_users(options);
  EXPECT_EQ(options.api, Api::kCompletions);
  EXPECT_EQ(options.num_prompts, 50);
}

}  // namespace
}  // namespace strata::loadgen
