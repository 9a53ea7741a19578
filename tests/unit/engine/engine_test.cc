// The engine with its thread: admission, streams, drain, death and rebuild.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <deque>
#include <future>
#include <random>
#include <thread>

#include "engine/fault_model.h"
#include "tests/unit/engine/engine_harness.h"

namespace strata::test {
namespace {

TEST_F(EngineTest, AnswersAndReports) {
  Engine engine(scripted(20), options());
  EXPECT_EQ(engine.info()->health, Health::kReady);
  EXPECT_EQ(engine.info()->max_model_len, 512);
  EXPECT_EQ(engine.info()->total_pages, 399);
  Client client;
  const auto id = engine.submit(request(), client.stream());
  ASSERT_TRUE(id);
  const SequenceEnd end = client.wait_end();
  EXPECT_EQ(end.reason, FinishReason::kStop);
  EXPECT_EQ(end.stop_token, kEnd);
  EXPECT_EQ(end.usage.generated_tokens, 21);
  EXPECT_EQ(client.tokens().size(), 21U);
  wait_idle(engine);
  EXPECT_EQ(engine.info()->generated_tokens, 21U);
  EXPECT_EQ(engine.info()->prompt_tokens, 5U);
}

TEST_F(EngineTest, RefusesWhatCanNeverRunWithNumbers) {
  ModelInfo few_pages = info();
  few_pages.num_pages = 20;
  ScriptedOptions scripted_options;
  scripted_options.scripts = {{1}};
  scripted_options.end_token = kEnd;
  scripted_options.info = few_pages;
  Engine engine(make_scripted_model(scripted_options), options());
  EXPECT_EQ(refusal(engine, request(0)).param, "prompt");
  EXPECT_EQ(refusal(engine, request(5, -1)).param, "max_tokens");
  EngineRequest foreign = request();
  foreign.prompt[2] = 100;
  EXPECT_EQ(refusal(engine, foreign).code, ErrorCode::kInvalidRequest);
  const Error overflow = refusal(engine, request(500, 100));
  EXPECT_EQ(overflow.code, ErrorCode::kContextOverflow);
  EXPECT_EQ(overflow.detail, "context_length_exceeded");
  for (const char* number : {"500", "100", "600", "512"})
    EXPECT_NE(overflow.message.find(number), std::string::npos) << overflow.message;
  const Error pages = refusal(engine, request(200, 100));
  EXPECT_EQ(pages.code, ErrorCode::kContextOverflow);
  EXPECT_EQ(pages.detail, "kv_cache_exceeded");
  for (const char* number : {"200", "100", "41", "19"})
    EXPECT_NE(pages.message.find(number), std::string::npos) << pages.message;
  Client client;
  ASSERT_TRUE(engine.submit(request(5, 20), client.stream())) << "the next request is answered";
  client.wait_end();
}

TEST_F(EngineTest, AFullQueueAnswers429) {
  EngineOptions small = options();
  small.max_num_seqs = 1;
  small.max_queued_requests = 2;
  small.max_queued_tokens = 30;
  Engine engine(scripted(1'000'000, 1000), small);
  Client running;
  ASSERT_TRUE(engine.submit(request(), running.stream()));
  running.wait_tokens(1);
  Client first;
  Client second;
  ASSERT_TRUE(engine.submit(request(25), first.stream()));
  const Error tokens = refusal(engine, request(6));
  EXPECT_EQ(tokens.code, ErrorCode::kRateLimited);
  EXPECT_GE(tokens.retry_after_s, 1);
  const auto id = engine.submit(request(5), second.stream());
  ASSERT_TRUE(id);
  EXPECT_EQ(refusal(engine, request(1)).code, ErrorCode::kRateLimited);
  engine.abort(*id);
  EXPECT_EQ(second.wait_end().reason, FinishReason::kAborted);
  Client third;
  EXPECT_TRUE(engine.submit(request(1), third.stream())) << "there is room again";
}

TEST_F(EngineTest, TwoHundredRequestsAtOnce) {
  Engine engine(scripted(40), options());
  constexpr int kThreads = 4;
  constexpr int kEach = 50;
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < kThreads * kEach; ++i) clients.push_back(std::make_unique<Client>());
  std::vector<std::thread> threads;
  std::atomic<int> aborted{0};
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        Client& client = *clients[static_cast<std::size_t>(t * kEach + i)];
        const auto id = engine.submit(request(1 + (i * 7) % 90), client.stream());
        ASSERT_TRUE(id) << id.error().message;
        if (i % 5 != 0) continue;
        engine.abort(*id);
        ++aborted;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  int complete = 0;
  for (const auto& client : clients) {
    const SequenceEnd end = client->wait_end();
    complete += end.reason == FinishReason::kStop ? 1 : 0;
    if (end.reason == FinishReason::kStop) EXPECT_EQ(client->tokens().size(), 41U);
    else EXPECT_EQ(end.reason, FinishReason::kAborted);
  }
  EXPECT_GE(complete, kThreads * kEach - aborted);
  for (const auto& client : clients) EXPECT_EQ(client->ends(), 1);
  wait_idle(engine);
}

// STRATA_LONG_TESTS: ten thousand, for ./test --full.
TEST_F(EngineTest, StreamsCutAtRandomPlacesLeaveNothingBehind) {
  const int count = std::getenv("STRATA_LONG_TESTS") != nullptr ? 10'000 : 1'000;
  EngineOptions small = options();
  small.max_num_seqs = 4;
  small.max_queued_requests = 64;
  Engine engine(scripted(40, 20), small);
  std::minstd_rand random(1);
  std::deque<std::pair<SeqId, std::unique_ptr<Client>>> open;
  const auto cut_oldest = [&] {
    engine.abort(open.front().first);
    open.front().second->wait_end();
    EXPECT_EQ(open.front().second->ends(), 1);
    open.pop_front();
  };
  for (int i = 0; i < count; ++i) {
    auto client = std::make_unique<Client>();
    const auto id = engine.submit(request(1 + static_cast<int>(random() % 100)), client->stream());
    ASSERT_TRUE(id) << id.error().message;
    open.emplace_back(*id, std::move(client));
    if (random() % 2 == 0) open.front().second->wait_tokens(random() % 30);
    while (open.size() > 4 + random() % 16) cut_oldest();
  }
  while (!open.empty()) cut_oldest();
  wait_idle(engine);
  EXPECT_EQ(engine.info()->running, 0);
  EXPECT_EQ(engine.info()->waiting, 0);
  for (int i = 0; i < 8; ++i) {  // every slot is there
    open.emplace_back(0, std::make_unique<Client>());
    ASSERT_TRUE(engine.submit(request(), open.back().second->stream()));
  }
  for (const auto& [id, client] : open) EXPECT_EQ(client->wait_end().reason, FinishReason::kStop);
}

TEST_F(EngineTest, ASlowReaderIsCutOff) {
  Engine engine(scripted(1000), options());
  Client slow(8);
  slow.stop_reading();
  ASSERT_TRUE(engine.submit(request(), slow.stream()));
  Client fast;
  ASSERT_TRUE(engine.submit(request(5, 300), fast.stream()));
  EXPECT_EQ(fast.wait_end().reason, FinishReason::kLength);
  const SequenceEnd end = slow.wait_end();
  EXPECT_EQ(end.reason, FinishReason::kError);
  EXPECT_EQ(end.error->detail, "slow_reader");
  EXPECT_EQ(slow.tokens().size(), 8U);
}

TEST_F(EngineTest, DrainLetsWorkFinishAndRefusesNewWork) {
  Engine engine(scripted(60, 200), options());
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<Client>());
    ASSERT_TRUE(engine.submit(request(), clients.back()->stream()));
  }
  std::promise<void> drained;
  engine.drain([&] { drained.set_value(); });
  const Error refused = refusal(engine, request());
  EXPECT_EQ(refused.code, ErrorCode::kUnavailable);
  drained.get_future().wait();
  for (const auto& client : clients) {
    EXPECT_EQ(client->ends(), 1) << "before `done` was called";
    EXPECT_EQ(client->wait_end().reason, FinishReason::kStop);
  }
  EXPECT_EQ(engine.info()->health, Health::kDraining);
}

TEST_F(EngineTest, DrainOfAnIdleEngineIsDoneAtOnce) {
  Engine engine(scripted(1), options());
  std::promise<void> drained;
  engine.drain([&] { drained.set_value(); });
  drained.get_future().wait();
}

TEST_F(EngineTest, DestructionEndsEveryStream) {
  std::vector<std::unique_ptr<Client>> clients;
  {
    Engine engine(scripted(1'000'000, 500), options());
    for (int i = 0; i < 20; ++i) {
      clients.push_back(std::make_unique<Client>());
      ASSERT_TRUE(engine.submit(request(), clients.back()->stream()));
    }
    clients[0]->wait_tokens(1);
  }
  for (const auto& client : clients) {
    EXPECT_EQ(client->wait_end().reason, FinishReason::kAborted);
    EXPECT_EQ(client->ends(), 1);
  }
}

class EngineDeath : public EngineTest, public testing::WithParamInterface<const char*> {};

TEST_P(EngineDeath, WithoutAFactoryEveryoneIsToldAndTheEngineStaysDead) {
  ASSERT_TRUE(fault::arm(std::string(GetParam()) + ":30"));
  Engine engine(make_fault_model(scripted(1'000'000)), options());
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<Client>());
    if (!engine.submit(request(), clients.back()->stream())) clients.pop_back();
  }
  const bool memory = std::string(GetParam()).find("oom") != std::string::npos;
  for (const auto& client : clients) {
    const SequenceEnd end = client->wait_end();
    EXPECT_EQ(end.reason, FinishReason::kError);
    const ErrorCode code = end.error->code;
    EXPECT_TRUE(code == ErrorCode::kUnavailable ||
                code == (memory ? ErrorCode::kInsufficientMemory : ErrorCode::kInternal));
  }
  wait_health(engine, Health::kDead);
  EXPECT_NE(engine.info()->death_reason.find("injected"), std::string::npos);
  EXPECT_EQ(refusal(engine, request()).code, ErrorCode::kUnavailable);
  std::promise<void> drained;
  engine.drain([&] { drained.set_value(); });
  drained.get_future().wait();
}

TEST_P(EngineDeath, WithAFactoryAtMostWhatHadStartedFails) {
  ASSERT_TRUE(fault::arm(std::string(GetParam()) + ":30"));
  std::atomic<int> built{0};
  Engine engine(make_fault_model(scripted(40)), options(), [&] {
    ++built;
    return make_fault_model(scripted(40));
  });
  std::vector<std::unique_ptr<Client>> clients;
  int failed = 0;
  for (int i = 0; i < 40; ++i) {
    clients.push_back(std::make_unique<Client>());
    if (!engine.submit(request(), clients.back()->stream())) clients.pop_back();
  }
  for (const auto& client : clients) {
    const SequenceEnd end = client->wait_end();
    EXPECT_EQ(client->ends(), 1);
    if (end.reason == FinishReason::kError) ++failed;
    else EXPECT_EQ(client->tokens().size(), 41U);
  }
  EXPECT_EQ(built, 1);
  const bool memory = std::string(GetParam()).find("oom") != std::string::npos;
  EXPECT_EQ(failed == 0, memory) << "after a memory failure everything is computed again";
  EXPECT_LE(failed, 8) << "at most the slots";
  wait_health(engine, Health::kReady);
  wait_idle(engine);
  EXPECT_EQ(engine.info()->rebuilds, 1U);
  EXPECT_EQ(engine.info()->memory_failures, memory ? 1U : 0U);
}

INSTANTIATE_TEST_SUITE_P(All, EngineDeath,
                         testing::Values("model.submit=error", "model.submit=oom",
                                         "model.wait=error", "model.wait=oom"));

TEST_F(EngineTest, AHungStepFailsItsStreamsAndTheEngineGoesOn) {
  EngineOptions strict = options();
  strict.step_deadline_ms = 50;
  Engine engine(make_fault_model(scripted(40)), strict, [] { return scripted(40); });
  ASSERT_TRUE(fault::arm("model.wait=hang"));
  Client hung;
  ASSERT_TRUE(engine.submit(request(1), hung.stream()));
  const SequenceEnd end = hung.wait_end();
  EXPECT_EQ(end.reason, FinishReason::kError);
  EXPECT_EQ(end.error->detail, "device_error");
  wait_health(engine, Health::kReady);
  Client next;
  ASSERT_TRUE(engine.submit(request(), next.stream()));
  EXPECT_EQ(next.wait_end().reason, FinishReason::kStop);
  fault::disarm();  // lets the hung model go
}

TEST_F(EngineTest, AHangInSubmitTurnsHealthRed) {
  EngineOptions strict = options();
  strict.step_deadline_ms = 50;
  Engine engine(make_fault_model(scripted(40)), strict);
  ASSERT_TRUE(fault::arm("model.submit=hang"));
  Client client;
  ASSERT_TRUE(engine.submit(request(), client.stream()));
  wait_health(engine, Health::kDead);
  fault::disarm();
  EXPECT_EQ(client.wait_end().reason, FinishReason::kStop);
  wait_health(engine, Health::kReady);
}

TEST_F(EngineTest, AFactoryThatFailsMeansDeath) {
  ASSERT_TRUE(fault::arm("model.submit=error"));
  Engine engine(make_fault_model(scripted(40)), options(),
                []() -> std::unique_ptr<Model> { throw StartupError("no weights"); });
  Client client;
  ASSERT_TRUE(engine.submit(request(), client.stream()));
  EXPECT_EQ(client.wait_end().reason, FinishReason::kError);
  wait_health(engine, Health::kDead);
  EXPECT_NE(engine.info()->death_reason.find("no weights"), std::string::npos);
}

TEST_F(EngineTest, DyingAgainAndAgainIsDeath) {
  ASSERT_TRUE(fault::arm("model.submit=error:*"));
  std::atomic<int> built{0};
  Engine engine(make_fault_model(scripted(40)), options(), [&] {
    ++built;
    return make_fault_model(scripted(40));
  });
  while (engine.info()->health != Health::kDead) {
    Client client;
    if (engine.submit(request(), client.stream())) client.wait_end();
  }
  EXPECT_EQ(built, 3);
}

}  // namespace
}  // namespace strata::test
