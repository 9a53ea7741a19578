// Random walks over the engine core: submit, abort, step, slow reader, memory failure, with every
// plan checked by PagedModel, an integrity check after each step, and every finished text compared
// with the text that the same request gets alone.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "base/log.h"
#include "tests/unit/engine/core_harness.h"

namespace strata::test {
namespace {

struct Walk {
  std::uint32_t seed;
  std::int32_t num_pages;
  std::int32_t num_swap_pages;
  bool prefix_caching;
  bool two_steps;
  bool window_group;
  Preemption preemption = Preemption::kSwap;
  bool failures = false;
};

class Walker {
 public:
  explicit Walker(const Walk& walk) : walk_(walk), rng_(walk.seed), info_(small_model_info()) {
    info_.num_pages = walk.num_pages;
    info_.num_swap_pages = walk.num_swap_pages;
    info_.has_group[kWindowGroup] = walk.window_group;
    EngineOptions options;
    options.max_num_seqs = 4;
    options.max_num_batched_tokens = 20;
    options.prefix_caching = walk.prefix_caching;
    options.two_steps_in_flight = walk.two_steps;
    options.priority_scheduling = walk.seed % 3 == 0;
    options.preemption = walk.preemption;
    harness_ = std::make_unique<CoreHarness>(info_, options, [this] { return below(3) != 0; });
  }

  void run(std::uint64_t steps) {
    set_log_level(LogLevel::kError);  // thousands of readers are cut off
    while (past_steps_ + harness_->model->steps() < steps) {
      if (walk_.failures && below(200) == 0) {
        past_steps_ += harness_->model->steps();
        harness_->replace_model(1 << 20);
      }
      if (harness_->core.snapshot().waiting < 6 && below(3) == 0) submit();
      if (below(40) == 0) abort_one();
      harness_->core.step();
      harness_->core.check_integrity();
      if (below(8) == 0) reap();
    }
    ASSERT_TRUE(harness_->run());
    reap();
    EXPECT_TRUE(harness_->streams.empty());
    EXPECT_EQ(harness_->counters.live, 0);
    EXPECT_EQ(harness_->counters.waiting_requests, 0);
    EXPECT_EQ(harness_->counters.waiting_tokens, 0);
    EXPECT_EQ(harness_->core.snapshot().free_pages, info_.num_pages - 1);
  }

  EngineInfo info() const { return harness_->core.snapshot(); }
  int complete() const { return complete_; }
  int aborted() const { return aborted_; }
  int cut_off() const { return cut_off_; }

 private:
  int below(int n) { return static_cast<int>(rng_() % static_cast<std::uint32_t>(n)); }

  void submit() {
    // Few keys, so that prompts share prefixes; now and then a long one.
    const int length = 1 + (below(6) == 0 ? below(90) : below(30));
    std::vector<TokenId> prompt = make_prompt(length, static_cast<std::uint64_t>(below(3)));
    if (below(3) == 0 && !next_turn_.empty() && next_turn_.size() < 80) {
      prompt = next_turn_;
      prompt.push_back(below(info_.vocab));
    }
    EngineRequest request = make_request(std::move(prompt), below(10) == 0 ? 0 : below(40), rng_());
    request.prompt_logprobs = below(4) == 0;
    request.priority = below(3);
    request.cache_salt = below(4) == 0 ? "other" : "";
    const std::size_t capacity = below(12) == 0 ? 3 : 4096;
    harness_->submit(std::move(request), capacity);
  }

  void abort_one() {
    if (harness_->streams.empty()) return;
    auto it = harness_->streams.begin();
    std::advance(it, below(static_cast<int>(harness_->streams.size())));
    harness_->core.abort(it->first);
  }

  void reap() {
    harness_->collect();
    for (auto it = harness_->streams.begin(); it != harness_->streams.end();) {
      if (!it->second.end) {
        ++it;
        continue;
      }
      check(it->second);
      it = harness_->streams.erase(it);
    }
  }

  void check(const Collected& got) {
    EXPECT_EQ(got.ends, 1);
    const auto& request = got.request;
    std::vector<TokenId> expected = expected_answer(info_, request);
    switch (got.end->reason) {
      case FinishReason::kStop:
      case FinishReason::kLength:
        ++complete_;
        EXPECT_EQ(got.tokens, expected);
        check_prompt(got);
        next_turn_ = request.prompt;
        next_turn_.insert(next_turn_.end(), got.tokens.begin(), got.tokens.end());
        EXPECT_EQ(got.end->reason == FinishReason::kStop,
                  !expected.empty() && expected.back() == kStopToken);
        EXPECT_EQ(got.end->usage.generated_tokens, static_cast<std::int32_t>(expected.size()));
        break;
      case FinishReason::kAborted: ++aborted_; break;
      case FinishReason::kError:
        ++cut_off_;
        EXPECT_EQ(got.end->error->detail, "slow_reader");
        break;
    }
    expected.resize(std::min(expected.size(), got.tokens.size()));
    EXPECT_EQ(got.tokens, expected);
  }

  void check_prompt(const Collected& got) {
    const std::vector<TokenId>& prompt = got.request.prompt;
    ASSERT_EQ(got.prompt.size(), got.request.prompt_logprobs ? prompt.size() - 1 : 0);
    for (std::size_t i = 0; i < got.prompt.size(); ++i) {
      EXPECT_EQ(got.prompt[i].token, prompt[i + 1]);
      EXPECT_EQ(got.prompt[i].logprob, -static_cast<float>(i));
    }
  }

  const Walk walk_;
  std::mt19937 rng_;
  ModelInfo info_;
  std::unique_ptr<CoreHarness> harness_;
  std::vector<TokenId> next_turn_;  // the last whole conversation
  std::uint64_t past_steps_ = 0;    // of models that failed
  int complete_ = 0;
  int aborted_ = 0;
  int cut_off_ = 0;
};

// ./test --full sets STRATA_LONG_TESTS and so walks more than a million steps.
std::uint64_t walk_steps() {
  return std::getenv("STRATA_LONG_TESTS") != nullptr ? 200'000 : 20'000;
}

class CoreWalk : public testing::TestWithParam<Walk> {};

TEST_P(CoreWalk, EveryTextIsWhatTheRequestGetsAlone) {
  Walker walker(GetParam());
  walker.run(walk_steps());
  const EngineInfo info = walker.info();
  EXPECT_GT(walker.complete(), 1000);
  EXPECT_GT(walker.aborted(), 100);
  EXPECT_GT(walker.cut_off(), 20);
  EXPECT_TRUE(info.preemptions > 20 || GetParam().num_pages >= 64) << info.preemptions;
  EXPECT_EQ(info.pages_swapped_in > 100, GetParam().num_swap_pages > 0);
  EXPECT_EQ(info.preemptions, info.preemptions_swapped + info.preemptions_recomputed);
  EXPECT_EQ(info.prefix_hit_tokens > 1000, GetParam().prefix_caching);
}

INSTANTIATE_TEST_SUITE_P(
    All, CoreWalk,
    testing::Values(Walk{1, 64, 40, true, true, true}, Walk{2, 46, 300, true, true, true},
                    Walk{3, 46, 0, false, true, true}, Walk{4, 46, 12, true, false, true},
                    Walk{5, 34, 0, false, true, false}, Walk{6, 200, 0, true, true, true},
                    Walk{7, 46, 60, true, true, true, Preemption::kRecompute},
                    Walk{8, 46, 60, true, true, true, Preemption::kSwap, true}));

}  // namespace
}  // namespace strata::test
