// What the engine core does with single requests and small mixes, step by step.
#include <gtest/gtest.h>

#include "tests/unit/engine/core_harness.h"

namespace strata::test {
namespace {

EngineOptions options(std::int32_t seqs = 4, std::int32_t rows = 8) {
  EngineOptions out;
  out.max_num_seqs = seqs;
  out.max_num_batched_tokens = rows;
  return out;
}

// A request whose answer never ends by itself.
EngineRequest endless(std::vector<TokenId> prompt, std::int32_t max_new_tokens) {
  EngineRequest request = make_request(std::move(prompt), max_new_tokens);
  request.sampling.stop_ids.clear();
  return request;
}

std::vector<TokenId> expected(const CoreHarness& harness, SeqId id) {
  return expected_answer(harness.model->info(), harness.streams.at(id).request);
}

TEST(EngineCore, AnswersARequestAndGivesEverythingBack) {
  CoreHarness harness(small_model_info(), options());
  const SeqId id = harness.submit(make_request(make_prompt(13, 5), 20));
  ASSERT_TRUE(harness.run());
  const Collected& got = harness.streams.at(id);
  EXPECT_EQ(got.tokens, expected(harness, id));
  EXPECT_EQ(got.ends, 1);
  EXPECT_EQ(got.end->usage.prompt_tokens, 13);
  EXPECT_EQ(got.end->usage.generated_tokens, static_cast<std::int32_t>(got.tokens.size()));
  EXPECT_EQ(harness.core.snapshot().free_pages, 63);
  EXPECT_EQ(harness.core.snapshot().running, 0);
}

TEST(EngineCore, StopTokenAndLengthEndAnAnswer) {
  CoreHarness harness(small_model_info(), options());
  SeqId stopped = 0;
  for (std::uint64_t seed = 1; stopped == 0; ++seed) {
    EngineRequest request = make_request({1, 2}, 40, seed);
    if (expected_answer(harness.model->info(), request).back() == kStopToken)
      stopped = harness.submit(std::move(request));
  }
  const SeqId cut = harness.submit(endless({1, 2, 3}, 5));
  ASSERT_TRUE(harness.run());
  EXPECT_EQ(harness.streams[stopped].end->reason, FinishReason::kStop);
  EXPECT_EQ(harness.streams[stopped].end->stop_token, kStopToken);
  EXPECT_EQ(harness.streams[stopped].tokens.back(), kStopToken);
  EXPECT_EQ(harness.streams[cut].end->reason, FinishReason::kLength);
  EXPECT_EQ(harness.streams[cut].end->stop_token, kNoToken);
  EXPECT_EQ(harness.streams[cut].tokens.size(), 5U);
}

TEST(EngineCore, APromptIsComputedInChunksOfTheBudget) {
  CoreHarness harness(small_model_info(), options(4, 8));
  const SeqId id = harness.submit(make_request(make_prompt(20, 3), 1));
  ASSERT_TRUE(harness.run());
  EXPECT_EQ(harness.core.snapshot().steps, 3U);
  EXPECT_EQ(harness.streams[id].prefilled.back(), 16) << "progress, until the first token";
  EXPECT_EQ(harness.streams[id].tokens, expected(harness, id));
}

TEST(EngineCore, DecodingComesBeforePromptsAndTheBudgetHolds) {
  CoreHarness harness(small_model_info(), options(4, 8));
  harness.submit(endless({1}, 40));
  harness.submit(endless({2}, 40));
  harness.core.step();
  harness.core.step();
  harness.submit(make_request(make_prompt(60, 3), 1));
  harness.core.step();
  const StepPlan& plan = harness.model->last_plan();
  ASSERT_EQ(plan.seqs.size(), 3U);
  EXPECT_EQ(plan.seqs[0].kind, SpanKind::kDecode);
  EXPECT_EQ(plan.seqs[1].kind, SpanKind::kDecode);
  EXPECT_EQ(plan.seqs[2].kind, SpanKind::kPrefill);
  EXPECT_EQ(plan.seqs[2].n_rows, 6);
  EXPECT_EQ(plan.rows.size(), 8U);
  ASSERT_TRUE(harness.run());
}

TEST(EngineCore, AShortPromptDoesNotWaitForALongOne) {
  CoreHarness harness(small_model_info(), options(4, 8));
  const SeqId long_one = harness.submit(make_request(make_prompt(150, 3), 1));
  harness.core.step();
  const SeqId short_one = harness.submit(make_request(make_prompt(4, 4), 1));
  for (int i = 0; i < 3; ++i) harness.core.step();
  harness.collect();
  EXPECT_TRUE(harness.streams[short_one].end.has_value());
  EXPECT_FALSE(harness.streams[long_one].end.has_value());
  ASSERT_TRUE(harness.run());
}

TEST(EngineCore, EqualPromptsAreServedInTheirOrder) {
  EngineOptions one_step = options(4, 8);
  one_step.two_steps_in_flight = false;
  CoreHarness harness(small_model_info(), one_step);
  std::vector<SeqId> ids;
  for (std::uint64_t key = 0; key < 4; ++key)
    ids.push_back(harness.submit(make_request(make_prompt(16, key), 1)));
  std::vector<SeqId> order;
  while (!harness.core.idle()) {
    harness.core.step();
    harness.collect();
    for (const SeqId id : ids) {
      const bool seen = std::find(order.begin(), order.end(), id) != order.end();
      if (harness.streams[id].end && !seen) order.push_back(id);
    }
  }
  EXPECT_EQ(order, ids);
}

TEST(EngineCore, PriorityDecidesWhoStarts) {
  EngineOptions by_priority = options(1, 8);
  by_priority.priority_scheduling = true;
  CoreHarness harness(small_model_info(), by_priority);
  harness.submit(endless({1}, 3));
  harness.core.step();
  EngineRequest late = endless({2}, 3);
  late.priority = 5;
  EngineRequest urgent = endless({3}, 3);
  urgent.priority = -1;
  const SeqId last = harness.submit(std::move(late));
  const SeqId first = harness.submit(std::move(urgent));
  while (!harness.streams[first].end) {
    harness.core.step();
    harness.collect();
    EXPECT_FALSE(harness.streams[last].end);
  }
  ASSERT_TRUE(harness.run());
}

TEST(EngineCore, WaitingRequestsHearTheirPosition) {
  CoreHarness harness(small_model_info(), options(1, 8));
  harness.submit(endless({1}, 4));
  harness.core.step();
  const SeqId second = harness.submit(endless({2}, 4));
  const SeqId third = harness.submit(endless({3}, 4));
  for (int i = 0; i < 1000 && !harness.core.idle(); ++i) {
    harness.core.step();
    harness.collect();
  }
  EXPECT_EQ(harness.streams[second].queue_positions, (std::vector<std::int32_t>{0}));
  EXPECT_EQ(harness.streams[third].queue_positions, (std::vector<std::int32_t>{1, 0}));
}

TEST(EngineCore, PromptLogprobsCrossChunksAndEndWithoutAnAnswer) {
  CoreHarness harness(small_model_info(), options(4, 7));
  EngineRequest request = make_request(make_prompt(40, 9), 0);
  request.prompt_logprobs = true;
  const SeqId id = harness.submit(request);
  ASSERT_TRUE(harness.run());
  const Collected& got = harness.streams[id];
  EXPECT_EQ(got.end->reason, FinishReason::kLength);
  EXPECT_TRUE(got.tokens.empty());
  ASSERT_EQ(got.prompt.size(), 39U);
  for (std::size_t i = 0; i < 39; ++i) {
    EXPECT_EQ(got.prompt[i].token, request.prompt[i + 1]);
    EXPECT_EQ(got.prompt[i].logprob, -static_cast<float>(i));
  }
}

TEST(EngineCore, ReportsNeverTakeMoreLogitsRowsThanThereAre) {
  ModelInfo info = small_model_info();
  info.max_logits_rows = 3;
  CoreHarness harness(info, options(3, 24));
  std::vector<SeqId> ids;
  for (std::uint64_t key = 0; key < 5; ++key) {
    EngineRequest request = make_request(make_prompt(20, key), 6);
    request.prompt_logprobs = key != 2;
    ids.push_back(harness.submit(std::move(request)));
  }
  ASSERT_TRUE(harness.run());
  for (const SeqId id : ids) EXPECT_EQ(harness.streams[id].tokens, expected(harness, id));
  EXPECT_EQ(harness.streams[ids[0]].prompt.size(), 19U);
}

TEST(EngineCore, AbortEndsAtOnceAndPagesReturnWithTheLastStep) {
  bool ready = true;
  CoreHarness harness(small_model_info(), options(), [&ready] { return ready; });
  const SeqId id = harness.submit(endless(make_prompt(9, 2), 100));
  for (int i = 0; i < 4; ++i) harness.core.step();
  ready = false;
  harness.core.step();
  ASSERT_EQ(harness.model->open(), 2);
  harness.core.abort(id);
  harness.core.step();
  harness.collect();
  EXPECT_EQ(harness.streams[id].end->reason, FinishReason::kAborted);
  EXPECT_LT(harness.core.snapshot().free_pages, 63) << "two open steps still name them";
  ready = true;
  harness.core.step();
  EXPECT_TRUE(harness.core.idle());
  EXPECT_EQ(harness.core.snapshot().free_pages, 63);
  EXPECT_EQ(harness.model->open(), 0);
  harness.core.abort(id);  // again: ignored
  harness.core.abort(12345);
  EXPECT_EQ(harness.streams[id].ends, 1);
}

TEST(EngineCore, AWaitingRequestCanBeAborted) {
  CoreHarness harness(small_model_info(), options(1));
  harness.submit(endless({1}, 20));
  const SeqId waiting = harness.submit(endless({2}, 20));
  harness.core.step();
  harness.core.abort(waiting);
  harness.core.step();
  harness.collect();
  EXPECT_EQ(harness.streams[waiting].end->reason, FinishReason::kAborted);
  EXPECT_EQ(harness.streams[waiting].end->timings.scheduled, 0);
  EXPECT_EQ(harness.counters.waiting_requests, 0);
  EXPECT_GT(harness.streams[waiting].notified, 0);
  ASSERT_TRUE(harness.run());
}

TEST(EngineCore, ASlowReaderIsCutOffAndOthersGoOn) {
  CoreHarness harness(small_model_info(), options());
  const SeqId slow = harness.submit(endless({1, 2}, 50), 4);
  const SeqId other = harness.submit(endless({3, 4}, 50));
  ASSERT_TRUE(harness.run());
  const Collected& got = harness.streams[slow];
  EXPECT_EQ(got.end->reason, FinishReason::kError);
  EXPECT_EQ(got.end->error->code, ErrorCode::kTimeout);
  EXPECT_EQ(got.tokens.size(), 4U);
  EXPECT_EQ(harness.streams[other].tokens, expected(harness, other));
}

TEST(EngineCore, ASecondTurnHitsTheCacheWithTheSameText) {
  CoreHarness harness(small_model_info(), options(2, 24));
  const SeqId first = harness.submit(endless(make_prompt(60, 4), 30));
  ASSERT_TRUE(harness.run());
  EXPECT_EQ(harness.streams[first].end->usage.cached_tokens, 0);
  std::vector<TokenId> prompt = make_prompt(60, 4);
  prompt.resize(58);
  for (TokenId i = 0; i < 10; ++i) prompt.push_back(i);
  const SeqId second = harness.submit(endless(prompt, 30));
  const SeqId salted = [&] {
    EngineRequest request = endless(prompt, 30);
    request.cache_salt = "other tenant";
    return harness.submit(std::move(request));
  }();
  ASSERT_TRUE(harness.run());
  EXPECT_EQ(harness.streams[second].end->usage.cached_tokens, 56);
  EXPECT_EQ(harness.streams[salted].end->usage.cached_tokens, 0);
  EXPECT_EQ(harness.streams[second].tokens, expected(harness, second));
  EXPECT_EQ(harness.streams[salted].tokens, expected(harness, salted));
  EXPECT_EQ(harness.core.snapshot().prefix_hit_tokens, 56U);
  EXPECT_EQ(harness.core.snapshot().prefix_query_tokens, 60U + 68U + 68U);
}

TEST(EngineCore, PreemptsTheYoungestAndItsTextStaysTheSame) {
  ModelInfo info = small_model_info();
  info.num_pages = 37;
  EngineOptions without_cache = options(4, 16);
  without_cache.prefix_caching = false;
  CoreHarness harness(info, without_cache);
  std::vector<SeqId> ids;
  for (std::uint64_t key = 1; key <= 4; ++key)
    ids.push_back(harness.submit(endless(make_prompt(10, key), 60)));
  std::vector<SeqId> order;
  while (!harness.core.idle()) {
    harness.core.step();
    harness.core.check_integrity();
    harness.collect();
    for (const SeqId id : ids) {
      const bool seen = std::find(order.begin(), order.end(), id) != order.end();
      if (harness.streams[id].end && !seen) order.push_back(id);
    }
  }
  EXPECT_GT(harness.core.snapshot().preemptions, 0U);
  EXPECT_EQ(harness.core.snapshot().preemptions_recomputed, harness.core.snapshot().preemptions)
      << "without host memory there is no choice";
  EXPECT_EQ(order.front(), ids.front()) << "the oldest is never the one that makes room";
  for (const SeqId id : ids) EXPECT_EQ(harness.streams[id].tokens, expected(harness, id));
}

TEST(EngineCore, TimingsFollowTheClock) {
  bool ready = false;
  CoreHarness harness(small_model_info(), options(), [&ready] { return ready; });
  EngineRequest request = endless({1, 2}, 3);
  request.arrival = harness.clock.now();
  const SeqId id = harness.submit(std::move(request));
  harness.clock.advance(10);
  harness.core.step();
  harness.clock.advance(100);
  ready = true;
  harness.core.step();
  harness.clock.advance(1000);
  ASSERT_TRUE(harness.run());
  const SequenceTimings& timings = harness.streams[id].end->timings;
  EXPECT_EQ(timings.scheduled - timings.arrival, 10);
  EXPECT_EQ(timings.first_token - timings.scheduled, 100);
  EXPECT_GE(timings.finished - timings.first_token, 0);
}

TEST(EngineCore, AStepPastItsDeadlineIsReported) {
  bool ready = false;
  EngineOptions strict = options();
  strict.step_deadline_ms = 1000;
  CoreHarness harness(small_model_info(), strict, [&ready] { return ready; });
  const SeqId id = harness.submit(endless({1, 2}, 30));
  harness.core.step();
  ASSERT_TRUE(harness.core.time_to_deadline());
  harness.clock.advance(*harness.core.time_to_deadline() - 1);
  EXPECT_NO_THROW(harness.core.step());
  harness.clock.advance(1);
  EXPECT_THROW(harness.core.step(), StepOverdue);
  harness.core.fail_started(Error{ErrorCode::kInternal, "hung", {}, "device_error", 0});
  harness.collect();
  EXPECT_EQ(harness.streams[id].end->reason, FinishReason::kError);
  EXPECT_TRUE(harness.core.idle());
}

TEST(EngineCore, TheDeadlineFollowsThePaceOfSteps) {
  constexpr Nanos kMs = 1'000'000;
  bool ready = true;
  ASSERT_LT(options().step_deadline_ms, 0) << "the default";
  CoreHarness harness(small_model_info(), options(), [&ready] { return ready; });
  harness.submit(endless({1, 2}, 100));
  harness.core.step();
  EXPECT_GE(*harness.core.time_to_deadline(), 30'000 * kMs) << "no step was measured";
  for (int i = 0; i < 20; ++i) {
    harness.clock.advance(10 * kMs);
    harness.core.step();
  }
  const Nanos left = *harness.core.time_to_deadline();
  EXPECT_GE(left, 4000 * kMs);
  EXPECT_LE(left, 4200 * kMs) << "ten steps of 10 ms more";
  ready = false;
  harness.clock.advance(left);
  EXPECT_THROW(harness.core.step(), StepOverdue);
}

TEST(EngineCore, NoDeadlineMeansNone) {
  EngineOptions patient = options();
  patient.step_deadline_ms = 0;
  CoreHarness harness(small_model_info(), patient, [] { return false; });
  harness.submit(endless({1, 2}, 100));
  harness.core.step();
  EXPECT_FALSE(harness.core.time_to_deadline());
}

TEST(EngineCore, WhatIsPutBackIsComputedAgainWithTheSameText) {
  bool ready = true;
  CoreHarness harness(small_model_info(), options(2, 8), [&ready] { return ready; });
  EngineRequest with_prompt = endless(make_prompt(30, 7), 30);
  with_prompt.prompt_logprobs = true;
  const SeqId first = harness.submit(with_prompt);
  const SeqId second = harness.submit(endless(make_prompt(5, 8), 30));
  const SeqId waiting = harness.submit(endless(make_prompt(5, 9), 30));
  for (int i = 0; i < 2; ++i) {
    ready = true;
    for (int step = 0; step < 3; ++step) harness.core.step();
    ready = false;
    harness.core.step();
    ASSERT_EQ(harness.model->open(), 2) << "they are lost";
    harness.replace_model(2);
  }
  ready = true;
  ASSERT_TRUE(harness.run());
  for (const SeqId id : {first, second, waiting}) {
    EXPECT_EQ(harness.streams[id].tokens, expected(harness, id));
    EXPECT_EQ(harness.streams[id].ends, 1);
  }
  ASSERT_EQ(harness.streams[first].prompt.size(), 29U);
  for (std::size_t i = 0; i < 29; ++i)
    EXPECT_EQ(harness.streams[first].prompt[i].token, with_prompt.prompt[i + 1]);
  EXPECT_EQ(harness.core.snapshot().generated_tokens, 90U);
  EXPECT_EQ(harness.core.snapshot().prompt_tokens, 40U);
}

TEST(EngineCore, WhatIsPutBackTooOftenEnds) {
  CoreHarness harness(small_model_info(), options(1));
  const SeqId started = harness.submit(endless({1, 2}, 30));
  const SeqId waiting = harness.submit(endless({3, 4}, 30));
  const Error error{ErrorCode::kInsufficientMemory, "no memory", {}, "insufficient_memory", 1};
  for (int i = 0; i < 2; ++i) {
    harness.core.step();
    harness.replace_model(1, error);
  }
  ASSERT_TRUE(harness.run());
  EXPECT_EQ(harness.streams[started].end->reason, FinishReason::kError);
  EXPECT_EQ(harness.streams[started].end->error->code, ErrorCode::kInsufficientMemory);
  EXPECT_EQ(harness.streams[waiting].tokens, expected(harness, waiting));
}

TEST(EngineCore, LimitsMayChangeBetweenSteps) {
  CoreHarness harness(small_model_info(), options(4, 16));
  std::vector<SeqId> ids;
  for (std::uint64_t key = 1; key <= 6; ++key)
    ids.push_back(harness.submit(endless(make_prompt(12, key), 12)));
  for (int i = 0; i < 4; ++i) harness.core.step();
  harness.core.set_limits({2, 3});
  while (harness.streams[ids[3]].ends == 0) {
    harness.core.step();
    harness.core.check_integrity();
    harness.collect();
    EXPECT_LE(harness.model->last_plan().rows.size(), 3U);
  }
  harness.core.step();
  EXPECT_LE(harness.core.snapshot().running, 2);
  harness.core.set_limits({4, 16});
  ASSERT_TRUE(harness.run());
  for (const SeqId id : ids) EXPECT_EQ(harness.streams[id].tokens, expected(harness, id));
}

TEST(EngineCore, WhatOnlyWaitedRunsOnTheNextModel) {
  CoreHarness harness(small_model_info(), options(1));
  const SeqId started = harness.submit(endless({1, 2}, 30));
  const SeqId waiting = harness.submit(endless({3, 4}, 30));
  harness.core.step();
  harness.core.fail_started(Error{ErrorCode::kInternal, "gone", {}, "device_error", 0});
  harness.core.detach_model();
  EXPECT_FALSE(harness.core.step()) << "nothing runs without a model";
  auto fresh = std::make_unique<PagedModel>(small_model_info());
  harness.model = fresh.get();
  ModelInfo other = small_model_info();
  other.num_pages = 10;
  EXPECT_THROW(harness.core.attach_model(std::make_unique<PagedModel>(other)), StartupError);
  harness.core.attach_model(std::move(fresh));
  ASSERT_TRUE(harness.run());
  EXPECT_EQ(harness.streams[started].end->reason, FinishReason::kError);
  EXPECT_EQ(harness.streams[waiting].tokens, expected(harness, waiting));
}

TEST(EngineCore, OptionsThatDoNotFitTheModelAreRefused) {
  const auto start = [](EngineOptions wrong) { CoreHarness harness(small_model_info(), wrong); };
  EXPECT_THROW(start(options(7)), StartupError);
  EXPECT_THROW(start(options(0)), StartupError);
  EXPECT_THROW(start(options(4, 25)), StartupError);
  EngineOptions too_long = options();
  too_long.max_model_len = 257;
  EXPECT_THROW(start(too_long), StartupError);
}

TEST(EngineCore, FewerRowsThanSequencesStillServesAll) {
  CoreHarness harness(small_model_info(), options(4, 2));
  std::vector<SeqId> ids;
  for (std::uint64_t key = 1; key <= 4; ++key)
    ids.push_back(harness.submit(endless(make_prompt(5, key), 10)));
  ASSERT_TRUE(harness.run());
  for (const SeqId id : ids) EXPECT_EQ(harness.streams[id].tokens, expected(harness, id));
}

}  // namespace
}  // namespace strata::test
