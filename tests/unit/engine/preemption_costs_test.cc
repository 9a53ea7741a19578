#include "engine/preemption_costs.h"

#include <gtest/gtest.h>

namespace strata::test {
namespace {

StepTimings timings(std::int64_t begin_ns, std::int64_t compute_ns) {
  StepTimings out;
  out.begin_ns = begin_ns;
  out.compute_ns = compute_ns;
  return out;
}

TEST(PreemptionCosts, TheCheaperByMeasurement) {
  PreemptionCosts costs(Preemption::kCheaper);
  EXPECT_TRUE(costs.swap_is_cheaper(10, 80)) << "nothing was measured";
  costs.note(64, 64, 0, timings(5, 64 * 1000));  // 1 us a token
  EXPECT_TRUE(costs.swap_is_cheaper(10, 80)) << "no copy was measured";
  costs.note(64, 64, 8, timings(8 * 4000, 64 * 1000));  // 4 us a copy, two a page
  EXPECT_TRUE(costs.swap_is_cheaper(10, 80));
  EXPECT_FALSE(costs.swap_is_cheaper(10, 79));
}

TEST(PreemptionCosts, AveragesAndLeavesOutStepsOfAnswers) {
  PreemptionCosts costs(Preemption::kCheaper);
  costs.note(64, 64, 1, timings(500, 64 * 1000));
  costs.note(2, 4, 0, timings(0, 4 * 1'000'000));  // half of the rows are answers
  EXPECT_FALSE(costs.swap_is_cheaper(101, 100));
  costs.note(64, 64, 0, timings(0, 64 * 6000));  // a fifth of the way: 2 us
  EXPECT_TRUE(costs.swap_is_cheaper(200, 100));
  EXPECT_FALSE(costs.swap_is_cheaper(201, 100));
}

TEST(PreemptionCosts, AChoiceCanBeForced) {
  for (const bool swap : {false, true}) {
    PreemptionCosts costs(swap ? Preemption::kSwap : Preemption::kRecompute);
    costs.note(64, 64, 8, timings(8000, 64 * 1000));
    EXPECT_EQ(costs.swap_is_cheaper(1, 1'000'000), swap);
    EXPECT_EQ(costs.swap_is_cheaper(1'000'000, 1), swap);
  }
}

}  // namespace
}  // namespace strata::test
