// How the engine keeps its model: sleep, idling, memory failures, the breaker, a full device.
#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "base/clock.h"
#include "engine/fault_model.h"
#include "tests/unit/engine/engine_harness.h"

namespace strata::test {
namespace {

constexpr Nanos kSecond = 1'000'000'000;

// An engine whose model can be made again, on a clock that stands still.
class KeeperTest : public EngineTest {
 protected:
  Engine& start(const EngineOptions& wanted, int answer_tokens = 20, int delay_us = 0) {
    const auto make = [answer_tokens, delay_us] {
      return make_fault_model(scripted(answer_tokens, delay_us));
    };
    const auto build = [this, make]() -> std::unique_ptr<Model> {
      ++tries_;
      if (const std::string error = load_error(); error == "memory") throw MemoryError("no room");
      else if (!error.empty()) throw StartupError(error);
      ++built_;
      return make();
    };
    engine_ = std::make_unique<Engine>(make(), wanted, build, &clock_);
    return *engine_;
  }

  void set_load_error(const std::string& error) {
    const std::lock_guard lock(mutex_);
    load_error_ = error;
  }
  std::string load_error() {
    const std::lock_guard lock(mutex_);
    return load_error_;
  }

  // The engine thread looks at the clock when it is woken.
  void advance(Nanos nanos) {
    clock_.advance(nanos);
    engine_->abort(0);
  }
  // Until the engine did what was due; it is awake.
  void settle() {
    EXPECT_TRUE(wake());
    EXPECT_TRUE(wake());
  }
  template <typename Fn>
  void wait(Fn&& fn) {
    while (!fn(*engine_->info())) std::this_thread::yield();
  }
  Result<void> sleep() {
    std::promise<Result<void>> slept;
    engine_->sleep([&](const Result<void>& result) { slept.set_value(result); });
    return slept.get_future().get();
  }
  Result<void> wake() {
    std::promise<Result<void>> woken;
    engine_->wake([&](const Result<void>& result) { woken.set_value(result); });
    return woken.get_future().get();
  }
  FinishReason answer(std::size_t tokens = 21) {
    Client client;
    const auto id = engine_->submit(request(), client.stream());
    EXPECT_TRUE(id) << id.error().message;
    const SequenceEnd end = client.wait_end();
    EXPECT_EQ(client.tokens().size(), end.reason == FinishReason::kStop ? tokens : 0);
    return end.reason;
  }

  ManualClock clock_;
  std::atomic<int> built_{0};
  std::atomic<int> tries_{0};
  std::mutex mutex_;
  std::string load_error_;  // GUARDED_BY(mutex_)
  std::unique_ptr<Engine> engine_;
};

TEST_F(KeeperTest, SleepLetsWorkFinishAndWakeLoadsAgain) {
  Engine& engine = start(options(), 60, 200);
  Client client;
  ASSERT_TRUE(engine.submit(request(), client.stream()));
  std::promise<Result<void>> slept;
  engine.sleep([&](const Result<void>& result) { slept.set_value(result); });
  const Error refused = refusal(engine, request());
  EXPECT_EQ(refused.code, ErrorCode::kUnavailable);
  EXPECT_EQ(refused.detail, "sleeping");
  EXPECT_TRUE(slept.get_future().get());
  EXPECT_EQ(client.wait_end().reason, FinishReason::kStop) << "it was accepted before";
  wait([](const EngineInfo& info) { return info.health == Health::kSleeping && !info.loaded; });
  EXPECT_EQ(engine.info()->unloads, 1U);
  EXPECT_TRUE(sleep()) << "it sleeps already";
  EXPECT_EQ(built_, 0);
  EXPECT_TRUE(wake());
  EXPECT_EQ(built_, 1);
  wait([](const EngineInfo& info) { return info.health == Health::kReady && info.loaded; });
  EXPECT_TRUE(wake()) << "it is awake already";
  EXPECT_EQ(built_, 1);
  EXPECT_EQ(answer(61), FinishReason::kStop);
}

TEST_F(KeeperTest, AWakeThatComesFirstEndsTheAttemptToSleep) {
  Engine& engine = start(options(), 1'000'000, 500);
  Client client;
  const auto id = engine.submit(request(), client.stream());
  ASSERT_TRUE(id);
  client.wait_tokens(1);
  std::promise<Result<void>> slept;
  engine.sleep([&](const Result<void>& result) { slept.set_value(result); });
  EXPECT_TRUE(wake());
  const Result<void> result = slept.get_future().get();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kUnavailable);
  engine.abort(*id);
  EXPECT_EQ(client.wait_end().reason, FinishReason::kAborted);
  EXPECT_EQ(built_, 0) << "nothing was unloaded";
}

TEST_F(KeeperTest, WithoutAFactoryItCannotSleep) {
  engine_ = std::make_unique<Engine>(scripted(20), options());
  EXPECT_FALSE(sleep());
  EXPECT_EQ(answer(), FinishReason::kStop);
}

TEST_F(KeeperTest, WakingWithoutMemoryFailsAndCanBeTriedAgain) {
  start(options());
  ASSERT_TRUE(sleep());
  set_load_error("memory");
  const Result<void> woken = wake();
  ASSERT_FALSE(woken);
  EXPECT_EQ(woken.error().code, ErrorCode::kInsufficientMemory);
  EXPECT_EQ(engine_->info()->health, Health::kSleeping);
  set_load_error("");
  EXPECT_TRUE(wake());
  EXPECT_EQ(answer(), FinishReason::kStop);
  EXPECT_EQ(engine_->info()->memory_failures, 1U);
}

TEST_F(KeeperTest, DestructionAnswersWhoWaitsForSleep) {
  Result<void> slept;
  Client client;
  start(options(), 1'000'000, 500);
  ASSERT_TRUE(engine_->submit(request(), client.stream()));
  client.wait_tokens(1);
  engine_->sleep([&](const Result<void>& result) { slept = result; });
  engine_.reset();
  EXPECT_FALSE(slept);
  EXPECT_EQ(client.wait_end().reason, FinishReason::kAborted);
}

TEST_F(KeeperTest, AnIdleModelIsUnloadedAndTheNextRequestLoadsIt) {
  EngineOptions idle = options();
  idle.idle_unload_s = 600;
  start(idle);
  EXPECT_EQ(answer(), FinishReason::kStop);
  wait([](const EngineInfo& info) { return info.running == 0; });
  advance(599 * kSecond);
  EXPECT_EQ(answer(), FinishReason::kStop);
  EXPECT_EQ(built_, 0) << "that request was in time";
  wait([](const EngineInfo& info) { return info.running == 0; });
  advance(600 * kSecond);
  wait([](const EngineInfo& info) { return !info.loaded; });
  EXPECT_EQ(engine_->info()->health, Health::kReady) << "requests are welcome";
  EXPECT_EQ(answer(), FinishReason::kStop);
  EXPECT_EQ(built_, 1);
  EXPECT_EQ(engine_->info()->unloads, 1U);
}

TEST_F(KeeperTest, AnIdleModelThatFindsNoMemoryAnswers503AndIsTriedAgain) {
  EngineOptions idle = options();
  idle.idle_unload_s = 60;
  start(idle);
  advance(60 * kSecond);
  wait([](const EngineInfo& info) { return !info.loaded; });
  set_load_error("memory");
  Client client;
  ASSERT_TRUE(engine_->submit(request(), client.stream()));
  const SequenceEnd end = client.wait_end();
  ASSERT_EQ(end.reason, FinishReason::kError);
  EXPECT_EQ(end.error->code, ErrorCode::kInsufficientMemory);
  EXPECT_EQ(refusal(*engine_, request()).code, ErrorCode::kUnavailable) << "the breaker is open";
  set_load_error("");
  advance(kSecond);
  wait_health(*engine_, Health::kReady);
  EXPECT_EQ(answer(), FinishReason::kStop);
}

TEST_F(KeeperTest, AMemoryFailureCostsNobodyTheirText) {
  start(options(), 40);
  ASSERT_TRUE(fault::arm("model.wait=oom:25"));
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 30; ++i) {
    clients.push_back(std::make_unique<Client>());
    if (!engine_->submit(request(), clients.back()->stream())) clients.pop_back();
  }
  for (const auto& client : clients) {
    EXPECT_EQ(client->wait_end().reason, FinishReason::kStop);
    EXPECT_EQ(client->tokens().size(), 41U);
  }
  EXPECT_EQ(built_, 1);
  wait_idle(*engine_);
  EXPECT_EQ(engine_->info()->generated_tokens, 41U * clients.size()) << "each token counts once";
}

TEST_F(KeeperTest, ThreeMemoryFailuresSwitchToSafeModeUntilItIsQuiet) {
  start(options());
  ASSERT_TRUE(fault::arm("model.submit=oom:*"));
  Client client;
  ASSERT_TRUE(engine_->submit(request(), client.stream()));
  const SequenceEnd end = client.wait_end();
  ASSERT_EQ(end.reason, FinishReason::kError) << "it was there every time";
  EXPECT_EQ(end.error->code, ErrorCode::kInsufficientMemory);
  fault::disarm();
  wait_health(*engine_, Health::kReady);
  const auto info = engine_->info();
  EXPECT_TRUE(info->safe_mode);
  EXPECT_EQ(info->memory_failures, 3U);
  EXPECT_EQ(info->breaker_trips, 1U);
  EXPECT_EQ(answer(), FinishReason::kStop);
  advance(59 * kSecond);
  EXPECT_EQ(answer(), FinishReason::kStop);
  EXPECT_TRUE(engine_->info()->safe_mode);
  advance(kSecond);
  wait([](const EngineInfo& now) { return !now.safe_mode; });
  EXPECT_EQ(engine_->info()->breaker_trips, 1U);
}

TEST_F(KeeperTest, SafeModeRunsFewerSequences) {
  start(options(), 100, 200);
  ASSERT_TRUE(fault::arm("model.submit=oom:*"));
  Client doomed;
  ASSERT_TRUE(engine_->submit(request(), doomed.stream()));
  doomed.wait_end();
  fault::disarm();
  wait_health(*engine_, Health::kReady);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(std::make_unique<Client>());
    ASSERT_TRUE(engine_->submit(request(), clients.back()->stream()));
  }
  clients[0]->wait_tokens(30);
  EXPECT_EQ(engine_->info()->running, 4) << "of 8";
  for (const auto& client : clients) EXPECT_EQ(client->wait_end().reason, FinishReason::kStop);
}

TEST_F(KeeperTest, TheBreakerStaysOpenWhileTheModelFindsNoMemory) {
  start(options(), 1'000'000, 200);
  Client client;
  ASSERT_TRUE(engine_->submit(request(), client.stream()));
  client.wait_tokens(1);
  set_load_error("memory");
  ASSERT_TRUE(fault::arm("model.submit=error"));
  EXPECT_EQ(client.wait_end().reason, FinishReason::kError);
  wait([](const EngineInfo& info) { return info.memory_failures == 1; });
  EXPECT_EQ(engine_->info()->health, Health::kStarting);
  const Error refused = refusal(*engine_, request());
  EXPECT_EQ(refused.code, ErrorCode::kUnavailable);
  EXPECT_GE(refused.retry_after_s, 1);
  for (std::uint64_t failures = 2; failures <= 5; ++failures) {
    advance(2 * kSecond);
    wait([&](const EngineInfo& info) { return info.memory_failures == failures; });
  }
  EXPECT_TRUE(engine_->info()->safe_mode);
  set_load_error("");
  advance(8 * kSecond);
  wait_health(*engine_, Health::kReady);
  EXPECT_EQ(tries_, 6);
  EXPECT_EQ(built_, 1);
}

TEST_F(KeeperTest, AFullDeviceTriggersOneRebuild) {
  EngineOptions watched = options();
  watched.rebuild_above_memory = 0.95;
  watched.rebuild_after_s = 30;
  watched.step_deadline_ms = 0;  // the clock jumps while steps run
  std::atomic<double> fill{1.0};
  watched.memory_used = [&fill] { return fill.load(); };
  start(watched, 60, 500);
  advance(kSecond);
  settle();
  advance(28 * kSecond);
  settle();
  Client client;
  ASSERT_TRUE(engine_->submit(request(), client.stream()));
  client.wait_tokens(5);
  EXPECT_EQ(engine_->info()->rebuilds, 0U);
  advance(3 * kSecond);
  EXPECT_EQ(client.wait_end().reason, FinishReason::kStop) << "computed again, not lost";
  EXPECT_EQ(client.tokens().size(), 61U);
  EXPECT_EQ(engine_->info()->rebuilds, 1U);
  advance(60 * kSecond);
  settle();
  EXPECT_EQ(answer(61), FinishReason::kStop);
  EXPECT_EQ(engine_->info()->rebuilds, 1U) << "it would not help again so soon";
  engine_.reset();  // it asks `fill`
}

TEST_F(KeeperTest, ADeviceThatIsFullForAShortTimeIsLeftAlone) {
  EngineOptions watched = options();
  watched.rebuild_above_memory = 0.95;
  watched.rebuild_after_s = 30;
  std::atomic<double> fill{0.96};
  std::atomic<int> looks{0};
  watched.memory_used = [&] {
    ++looks;
    return fill.load();
  };
  start(watched);
  // A second at a time; `full` seconds above the bound, then one at it.
  for (int full = 29, round = 0; round < 3; ++round) {
    fill = 0.96;
    for (int second = 0; second < full; ++second) {
      advance(kSecond);
      settle();
    }
    fill = 0.95;
    advance(kSecond);
    settle();
  }
  EXPECT_EQ(engine_->info()->rebuilds, 0U);
  EXPECT_GE(looks, 80) << "once a second";
  EXPECT_LE(looks, 100) << "not at every step";
  fill = 0.96;
  for (int second = 0; second < 31; ++second) {
    advance(kSecond);
    settle();
  }
  EXPECT_EQ(engine_->info()->rebuilds, 1U);
  engine_.reset();
}

TEST_F(KeeperTest, ADeviceOfUnknownFillIsNotWatched) {
  EngineOptions watched = options();
  watched.rebuild_above_memory = 0.01;
  watched.rebuild_after_s = 1;
  start(watched);
  for (int second = 0; second < 5; ++second) {
    advance(kSecond);
    settle();
  }
  EXPECT_EQ(engine_->info()->rebuilds, 0U);
}

}  // namespace
}  // namespace strata::test
