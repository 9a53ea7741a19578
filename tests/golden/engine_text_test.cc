// A request with a seed gives the same text alone and in any batch, with prefix hits, preemptions
// and swaps, on the real model. Every setting has too few pages for its load.
#include <gtest/gtest.h>

#include <thread>

#include "base/fault.h"
#include "base/log.h"
#include "engine/fault_model.h"
#include "tests/golden/tiny_engine.h"

namespace strata::test {
namespace {

constexpr int kRequests = 9;
constexpr std::int32_t kTokens = 120;

std::vector<std::vector<TokenId>> texts_of(const std::vector<Answer>& list) {
  std::vector<std::vector<TokenId>> texts;
  for (const Answer& answer : list) {
    EXPECT_EQ(answer.end->reason, FinishReason::kLength);
    texts.push_back(answer.tokens);
  }
  return texts;
}

std::vector<EngineRequest> requests(const TinyModel& model) {
  std::vector<EngineRequest> list;
  for (int i = 1; i <= kRequests; ++i) list.push_back(model.request(i, kTokens));
  return list;
}

// Each by itself, nothing cached.
const std::vector<std::vector<TokenId>>& alone() {
  static const std::vector<std::vector<TokenId>> texts = [] {
    const TinyModel model({.prefix_caching = false});
    Engine engine(model.load(), model.engine_options());
    std::vector<std::vector<TokenId>> list;
    for (const EngineRequest& request : requests(model))
      list.push_back(texts_of(answers(engine, {request})).front());
    return list;
  }();
  return texts;
}

EngineInfo expect_same_texts(const TinySetting& setting) {
  const TinyModel model(setting);
  Engine engine(model.load(), model.engine_options());
  for (int round = 0; round < 2; ++round)  // the second round finds the first one's pages
    EXPECT_EQ(texts_of(answers(engine, requests(model))), alone()) << "round " << round;
  return *engine.info();
}

TEST(EngineText, TwoSeedsGiveTwoTexts) {
  const TinyModel model({});
  Engine engine(model.load(), model.engine_options());
  EngineRequest other = model.request(1, kTokens);
  ++other.sampling.seed;
  EXPECT_NE(texts_of(answers(engine, {other})).front(), alone().front());
}

class EngineTextUnderPressure : public testing::TestWithParam<Preemption> {};

TEST_P(EngineTextUnderPressure, IsTheTextOfTheRequestAlone) {
  set_log_level(LogLevel::kError);
  const EngineInfo info =
      expect_same_texts({.num_pages = 90, .num_swap_pages = 160, .preemption = GetParam()});
  EXPECT_GT(info.preemptions, 3U);
  EXPECT_GT(info.prefix_hit_tokens, 100U);
  const bool forced_swap = GetParam() == Preemption::kSwap;
  const bool forced_recompute = GetParam() == Preemption::kRecompute;
  EXPECT_TRUE(!forced_swap || info.preemptions == info.preemptions_swapped);
  EXPECT_TRUE(!forced_recompute || info.preemptions == info.preemptions_recomputed);
  EXPECT_TRUE(!forced_swap || info.pages_swapped_in > 10) << info.pages_swapped_in;
  std::printf("%llu preemptions by swap, %llu by computing again, %llu pages swapped in\n",
              static_cast<unsigned long long>(info.preemptions_swapped),
              static_cast<unsigned long long>(info.preemptions_recomputed),
              static_cast<unsigned long long>(info.pages_swapped_in));
}

INSTANTIATE_TEST_SUITE_P(All, EngineTextUnderPressure,
                         testing::Values(Preemption::kSwap, Preemption::kRecompute,
                                         Preemption::kCheaper));

// What runs when a step hangs or the device fails ends with an error; the engine goes on with a
// fresh model and the same texts.
TEST(EngineText, AFailedStepIsFollowedByTheSameTexts) {
  set_log_level(LogLevel::kError);
  const TinyModel model({.step_deadline_ms = 2000});
  Engine engine(make_fault_model(model.load()), model.engine_options(),
                [&model] { return make_fault_model(model.load()); });
  for (const char* fault : {"model.step=error:5", "model.wait=hang:5"}) {
    ASSERT_TRUE(fault::arm(fault));
    int failed = 0;
    for (const Answer& answer : answers(engine, requests(model)))
      failed += answer.end->reason == FinishReason::kError ? 1 : 0;
    EXPECT_GE(failed, 1) << fault;
    while (engine.info()->health != Health::kReady) std::this_thread::yield();
    fault::disarm();
    EXPECT_EQ(texts_of(answers(engine, requests(model))), alone()) << fault;
  }
  EXPECT_EQ(engine.info()->rebuilds, 2U);
}

TEST(EngineText, SmallStepsWithoutHostMemory) {
  set_log_level(LogLevel::kError);
  const EngineInfo info = expect_same_texts({.threads = 1, .rows = 19, .num_pages = 90});
  EXPECT_GT(info.preemptions, 3U);
}

}  // namespace
}  // namespace strata::test
