// Memory failures at every named place: each allocation of the accounting allocator fails once, and
// each call into the model. Every request gets its whole text or a 503, and nothing leaks.
#include <gtest/gtest.h>

#include <future>
#include <map>
#include <thread>

#include "base/fault.h"
#include "base/log.h"
#include "base/memory.h"
#include "engine/fault_model.h"
#include "tests/golden/tiny_engine.h"

namespace strata::test {
namespace {

constexpr std::int32_t kTokens = 12;
const TinySetting kSetting{.threads = 1, .seqs = 4, .num_pages = 60, .num_swap_pages = 30};

struct Site {
  std::string name;
  std::size_t allocations = 0;  // of one load
};

std::vector<Site> sites_of_a_load(const TinyModel& model) {
  const auto count = [] {
    std::map<std::string, std::size_t> counts;
    for (const SiteUsage& usage : host_memory_usage()) counts[usage.site] = usage.allocations;
    return counts;
  };
  auto before = count();
  model.load();
  std::vector<Site> sites;
  for (const auto& [name, allocations] : count())
    if (allocations > before[name]) sites.push_back({name, allocations - before[name]});
  return sites;
}

std::vector<EngineRequest> requests(const TinyModel& model) {
  return {model.request(1, kTokens), model.request(2, kTokens), model.request(3, kTokens)};
}

class MemorySweep : public testing::Test {
 protected:
  void SetUp() override {
    set_log_level(LogLevel::kError);
    Engine engine(model_.load(), model_.engine_options());
    for (const Answer& answer : answers(engine, requests(model_))) texts_.push_back(answer.tokens);
  }
  void TearDown() override { fault::disarm(); }

  std::unique_ptr<Engine> engine() {
    return std::make_unique<Engine>(
        make_fault_model(model_.load()), model_.engine_options(),
        [this] { return make_fault_model(model_.load()); }, &clock_);
  }

  // The number of requests that got their text; the others must have got a 503. `refused_`: those
  // that came while the engine was being rebuilt.
  std::size_t expect_text_or_503(Engine& engine) {
    const std::vector<Answer> list = answers(engine, requests(model_));
    std::size_t whole = 0;
    refused_ = 0;
    for (std::size_t i = 0; i < list.size(); ++i) {
      std::vector<TokenId> expected = texts_[i];
      expected.resize(std::min(expected.size(), list[i].tokens.size()));
      EXPECT_EQ(list[i].tokens, expected) << "what came is right, as far as it goes";
      if (list[i].end->reason == FinishReason::kLength) {
        EXPECT_EQ(list[i].tokens, texts_[i]);
        ++whole;
        continue;
      }
      EXPECT_EQ(list[i].end->reason, FinishReason::kError);
      const ErrorCode code = list[i].end->error ? list[i].end->error->code : ErrorCode::kInternal;
      EXPECT_TRUE(code == ErrorCode::kInsufficientMemory || code == ErrorCode::kUnavailable);
      refused_ += code == ErrorCode::kUnavailable ? 1 : 0;
    }
    return whole;
  }

  // The engine tries again by itself once the pause is over.
  void wait_ready(Engine& engine) {
    while (engine.info()->health != Health::kReady) {
      clock_.advance(1'000'000'000);
      engine.abort(0);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  void expect_idle(const Engine& engine) {
    while (engine.info()->free_pages != engine.info()->total_pages) std::this_thread::yield();
    EXPECT_EQ(engine.info()->running, 0);
    EXPECT_EQ(engine.info()->waiting, 0);
  }

  const TinyModel model_{kSetting};
  ManualClock clock_;
  std::vector<std::vector<TokenId>> texts_;
  std::size_t refused_ = 0;
};

TEST_F(MemorySweep, AnyAllocationOfALoadMayFail) {
  const std::size_t before = host_memory_live_bytes();
  const std::vector<Site> sites = sites_of_a_load(model_);
  EXPECT_EQ(sites.size(), 5U) << "dense weights, experts, KV pool, swap space, activations";
  for (const Site& site : sites) {
    for (std::size_t n = 1; n <= site.allocations; ++n) {
      ASSERT_TRUE(fault::arm("alloc." + site.name + "=oom:" + std::to_string(n)));
      try {
        model_.load();
        ADD_FAILURE() << site.name << " " << n << " did not fail";
      } catch (const MemoryError& error) {
        EXPECT_NE(std::string(error.what()).find(site.name), std::string::npos) << error.what();
      }
      ASSERT_EQ(host_memory_live_bytes(), before) << site.name << " " << n << " leaks";
    }
    std::printf("%s: %zu allocations\n", site.name.c_str(), site.allocations);
  }
}

// Some of each site, first and last among them; all of them failed in a load above.
std::vector<std::size_t> spread_over(std::size_t allocations) {
  constexpr std::size_t kSome = 6;
  std::vector<std::size_t> out;
  for (std::size_t n = 1; n < allocations; n += allocations / kSome + 1) out.push_back(n);
  out.push_back(allocations);
  return out;
}

TEST_F(MemorySweep, AnyAllocationOfARebuildMayFail) {
  const std::size_t before = host_memory_live_bytes();
  for (const Site& site : sites_of_a_load(model_)) {
    for (const std::size_t n : spread_over(site.allocations)) {
      const auto running = engine();
      ASSERT_TRUE(fault::arm("model.step=oom:6,alloc." + site.name + "=oom:" + std::to_string(n)));
      EXPECT_EQ(expect_text_or_503(*running), 0U) << "there was no model to go on with";
      wait_ready(*running);
      EXPECT_EQ(running->info()->memory_failures, 2U);
      EXPECT_EQ(expect_text_or_503(*running), 3U);
      expect_idle(*running);
    }
  }
  EXPECT_EQ(host_memory_live_bytes(), before);
}

TEST_F(MemorySweep, AnAllocationThatFailsInTheMiddleOfAWakeIs503) {
  const auto running = engine();
  for (const Site& site : sites_of_a_load(model_)) {
    std::promise<Result<void>> slept;
    running->sleep([&](const Result<void>& result) { slept.set_value(result); });
    ASSERT_TRUE(slept.get_future().get());
    ASSERT_TRUE(fault::arm("alloc." + site.name + "=oom"));
    for (const bool fits : {false, true}) {
      std::promise<Result<void>> woken;
      running->wake([&](const Result<void>& result) { woken.set_value(result); });
      const Result<void> result = woken.get_future().get();
      EXPECT_EQ(result.has_value(), fits);
      EXPECT_TRUE(fits || result.error().code == ErrorCode::kInsufficientMemory);
    }
    EXPECT_EQ(expect_text_or_503(*running), 3U);
  }
}

class MemorySweepOfCalls : public MemorySweep, public testing::WithParamInterface<const char*> {};

TEST_P(MemorySweepOfCalls, EveryCallMayFailOnceAndNobodyLosesText) {
  const std::size_t before = host_memory_live_bytes();
  for (int n = 1; n <= 18; ++n) {
    const auto running = engine();
    ASSERT_TRUE(fault::arm(std::string(GetParam()) + "=oom:" + std::to_string(n)));
    EXPECT_EQ(expect_text_or_503(*running) + refused_, 3U) << "call " << n;
    EXPECT_LT(refused_, 3U);
    expect_idle(*running);
    EXPECT_LE(running->info()->memory_failures, 1U);
    EXPECT_EQ(running->info()->rebuilds, running->info()->memory_failures);
  }
  EXPECT_EQ(host_memory_live_bytes(), before);
}

TEST_P(MemorySweepOfCalls, EveryCallMayFailForAWhile) {
  const auto running = engine();
  ASSERT_TRUE(fault::arm(std::string(GetParam()) + "=oom:*"));
  EXPECT_EQ(expect_text_or_503(*running), 0U);
  EXPECT_TRUE(running->info()->safe_mode);
  fault::disarm();
  wait_ready(*running);
  EXPECT_EQ(expect_text_or_503(*running), 3U) << "with smaller steps, the same text";
}

INSTANTIATE_TEST_SUITE_P(All, MemorySweepOfCalls,
                         testing::Values("model.submit", "model.step", "model.wait"));

}  // namespace
}  // namespace strata::test
