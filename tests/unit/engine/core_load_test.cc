// The engine core under load: who waits for whom, what stays in pages, what is found again. Counts,
// with the page and window sizes of gpt-oss.
#include <gtest/gtest.h>

#include "tests/unit/engine/core_harness.h"

namespace strata::test {
namespace {

ModelInfo gpt_oss_info(std::int32_t num_pages, std::int32_t num_swap_pages = 0) {
  ModelInfo info = small_model_info();
  info.vocab = 1000;
  info.max_context = 40'000;
  info.window = 128;
  info.page_tokens = 16;
  info.num_pages = num_pages;
  info.num_swap_pages = num_swap_pages;
  info.max_slots = 64;
  info.max_rows = 256;
  info.max_logits_rows = 256;
  return info;
}

EngineOptions options(std::int32_t seqs) {
  EngineOptions out;
  out.max_num_seqs = seqs;
  out.max_num_batched_tokens = 256;
  return out;
}

EngineRequest endless(std::vector<TokenId> prompt, std::int32_t max_new_tokens) {
  EngineRequest request = make_request(std::move(prompt), max_new_tokens);
  request.sampling.stop_ids.clear();
  return request;
}

std::vector<TokenId> long_prompt(std::int32_t length, std::uint64_t key) {
  std::vector<TokenId> prompt = make_prompt(length, key, 997);
  prompt[0] = static_cast<TokenId>(key);
  return prompt;
}

TEST(CoreLoad, ALongPromptCostsOtherStreamsOneChunkAToken) {
  CoreHarness harness(gpt_oss_info(3000), options(16));
  std::vector<SeqId> streams;
  for (std::uint64_t key = 1; key <= 10; ++key)
    streams.push_back(harness.submit(endless(make_prompt(20, key), 400)));
  for (int i = 0; i < 5; ++i) harness.core.step();
  const SeqId long_one = harness.submit(endless(long_prompt(32'768, 77), 1));
  int chunks = 0;
  harness.model->on_plan = [&](const StepPlan& plan) {
    if (plan.seqs.back().kind != SpanKind::kPrefill) return;
    ++chunks;
    EXPECT_EQ(plan.seqs.size(), 11U);
    for (std::size_t i = 0; i < 10; ++i)
      EXPECT_EQ(plan.seqs[i].kind, SpanKind::kDecode) << "each stream gets a token in each step";
    EXPECT_LE(plan.rows.size(), 256U) << "the chunk is what the budget leaves";
  };
  while (harness.streams[long_one].ends == 0) {
    harness.core.step();
    harness.collect();
  }
  EXPECT_EQ(chunks, (32'768 + 245) / 246);
  ASSERT_TRUE(harness.run());
}

TEST(CoreLoad, AShortPromptBehindALongOneWaitsAtMostTwoChunks) {
  CoreHarness harness(gpt_oss_info(3000), options(16));
  harness.submit(endless(long_prompt(32'768, 77), 1));
  for (int i = 0; i < 20; ++i) harness.core.step();
  int plans = 0;
  int found_in = 0;  // number of the first plan with rows of the short prompt
  harness.model->on_plan = [&](const StepPlan& plan) {
    ++plans;
    if (plan.seqs.size() > 1 && found_in == 0) found_in = plans;
  };
  for (std::uint64_t key = 1; key <= 5; ++key) {
    ASSERT_EQ(harness.model->open(), 2) << "two chunks are on their way";
    plans = 0;
    found_in = 0;
    const SeqId short_one = harness.submit(endless(make_prompt(100, key), 1));
    while (harness.streams[short_one].ends == 0) {
      harness.core.step();
      harness.collect();
    }
    EXPECT_EQ(found_in, 1) << "all of it is in the very next plan, behind those two";
  }
  ASSERT_TRUE(harness.run());
}

// Tokens that rows may still read, against the room of the pages that sequences hold.
TEST(CoreLoad, AtSaturationPagesAreFull) {
  CoreHarness harness(gpt_oss_info(1500), options(32));
  std::uint64_t key = 0;
  const auto top_up = [&] {
    while (harness.core.snapshot().waiting < 4) {
      ++key;
      const auto length = static_cast<std::int32_t>(200 + 97 * (key % 13));
      harness.submit(endless(long_prompt(length, key), 300 + static_cast<int>(key % 7) * 40));
    }
  };
  double live = 0;
  double held = 0;
  for (int step = 0; step < 1200; ++step) {
    top_up();
    harness.core.step();
    if (step < 500 || step % 20 != 0) continue;
    harness.core.check_integrity();
    ASSERT_LT(harness.core.snapshot().free_pages, 1499 / 4) << "the pool is not saturated";
    const EngineCore::KvUse use = harness.core.kv_use();
    live += static_cast<double>(use.live_tokens);
    held += static_cast<double>(use.held_tokens);
  }
  const double share = live / held;
  RecordProperty("kv_live_percent", std::to_string(100 * share));
  std::printf("%.1f %% of the token places in pages that sequences hold are live\n", 100 * share);
  EXPECT_GE(share, 0.92);
  harness.collect();
  for (const auto& [id, got] : harness.streams) harness.core.abort(id);
  ASSERT_TRUE(harness.run());
}

// One turn of a chat: the history, then `more` new tokens; returns the share of the prompt that
// came from the cache and appends the answer to the history.
double turn(CoreHarness& harness, std::vector<TokenId>& history, std::int32_t more,
            std::uint64_t key) {
  const std::vector<TokenId> added = make_prompt(more, key, 900);
  history.insert(history.end(), added.begin(), added.end());
  const SeqId id = harness.submit(endless(history, 50));
  EXPECT_TRUE(harness.run());
  const Collected& got = harness.streams.at(id);
  EXPECT_EQ(got.tokens, expected_answer(harness.model->info(), got.request));
  history.insert(history.end(), got.tokens.begin(), got.tokens.end());
  return static_cast<double>(got.end->usage.cached_tokens) / got.end->usage.prompt_tokens;
}

TEST(CoreLoad, TheSecondTurnOfA8kChatComesFromTheCache) {
  CoreHarness harness(gpt_oss_info(1000), options(4));
  std::vector<TokenId> chat = long_prompt(8192, 5);
  EXPECT_EQ(turn(harness, chat, 0, 1), 0);
  const double cached = turn(harness, chat, 60, 2);
  std::printf("second turn: %.1f %% from the cache\n", 100 * cached);
  EXPECT_GE(cached, 0.95);
}

TEST(CoreLoad, TwoChatsThatDoNotFitTogetherComeFromHostMemory) {
  // A chat holds about 530 pages of the full group; the pool holds one of them and a half.
  CoreHarness harness(gpt_oss_info(800, 1400), options(4));
  std::vector<TokenId> chats[2] = {long_prompt(8192, 5), long_prompt(8192, 6)};
  double cached = 0;
  for (std::uint64_t round = 1; round <= 3; ++round) {
    for (std::vector<TokenId>& chat : chats) {
      cached = turn(harness, chat, round == 1 ? 0 : 60, round);
      EXPECT_GE(cached, round == 3 ? 0.95 : 0.0);
    }
  }
  std::printf("third turn of the second chat: %.1f %% from the cache\n", 100 * cached);
  EXPECT_GT(harness.core.snapshot().pages_swapped_in, 1000U);
}

// Four sequences that together do not fit, with a host pool; prompts share a beginning.
std::vector<std::vector<TokenId>> under_pressure(Preemption preemption, EngineInfo& info) {
  EngineOptions wanted = options(8);
  wanted.preemption = preemption;
  CoreHarness harness(gpt_oss_info(110, 300), wanted);
  std::vector<SeqId> ids;
  for (std::uint64_t key = 1; key <= 8; ++key) {
    std::vector<TokenId> prompt = make_prompt(64, 3);
    const std::vector<TokenId> own = make_prompt(30, key);
    prompt.insert(prompt.end(), own.begin(), own.end());
    EngineRequest request = endless(std::move(prompt), 300);
    request.sampling.seed = key;
    ids.push_back(harness.submit(std::move(request)));
  }
  EXPECT_TRUE(harness.run());
  std::vector<std::vector<TokenId>> texts;
  for (const SeqId id : ids) {
    const Collected& got = harness.streams.at(id);
    EXPECT_EQ(got.tokens, expected_answer(harness.model->info(), got.request));
    texts.push_back(got.tokens);
  }
  info = harness.core.snapshot();
  return texts;
}

TEST(CoreLoad, PreemptionBySwapOrRecomputeGivesTheSameText) {
  EngineInfo swapped;
  EngineInfo recomputed;
  const auto by_swap = under_pressure(Preemption::kSwap, swapped);
  const auto by_recompute = under_pressure(Preemption::kRecompute, recomputed);
  EXPECT_EQ(by_swap, by_recompute);
  EXPECT_GT(swapped.preemptions_swapped, 3U);
  EXPECT_EQ(swapped.preemptions_recomputed, 0U);
  EXPECT_GT(recomputed.preemptions_recomputed, 3U);
  EXPECT_EQ(recomputed.preemptions_swapped, 0U);
  EXPECT_GT(swapped.pages_swapped_in, recomputed.pages_swapped_in);
}

TEST(CoreLoad, UnderPriorityTheUrgentStartAndStay) {
  EngineOptions by_priority = options(4);
  by_priority.priority_scheduling = true;
  CoreHarness harness(gpt_oss_info(61), by_priority);
  EngineRequest relaxed = endless(make_prompt(100, 1), 300);
  relaxed.priority = 10;
  const SeqId early = harness.submit(std::move(relaxed));
  for (int i = 0; i < 4; ++i) harness.core.step();
  std::vector<SeqId> urgent;
  for (std::uint64_t key = 2; key <= 3; ++key)
    urgent.push_back(harness.submit(endless(make_prompt(100, key), 200)));
  while (harness.streams[urgent[0]].ends == 0 || harness.streams[urgent[1]].ends == 0) {
    harness.core.step();
    harness.core.check_integrity();
    harness.collect();
  }
  EXPECT_EQ(harness.streams[early].ends, 0) << "it came first, but made room";
  EXPECT_GE(harness.core.snapshot().preemptions, 1U);
  ASSERT_TRUE(harness.run());
  for (const auto& [id, got] : harness.streams)
    EXPECT_EQ(got.tokens, expected_answer(harness.model->info(), got.request));
}

}  // namespace
}  // namespace strata::test
