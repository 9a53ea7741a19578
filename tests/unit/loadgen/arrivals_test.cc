#include "loadgen/arrivals.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "loadgen/figures.h"

namespace strata::loadgen {
namespace {

using testing::Each;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Standard deviation of the gaps in units of their mean.
double variation(const std::vector<double>& times) {
  std::vector<double> gaps;
  double before = 0;
  for (const double time : times) {
    gaps.push_back(time - before);
    before = time;
  }
  return standard_deviation(gaps) / mean(gaps);
}

TEST(Arrivals, AnInfiniteRateSendsAllAtOnce) {
  EXPECT_THAT(arrival_times(5, kInfinity, 1.0, 0), Each(0.0));
  EXPECT_TRUE(arrival_times(0, 10.0, 1.0, 0).empty());
}

TEST(Arrivals, AscendAndEndAtCountOverRate) {
  for (const double burstiness : {0.25, 1.0, 8.0, kInfinity}) {
    const auto times = arrival_times(1000, 50.0, burstiness, 3);
    EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
    EXPECT_GE(times.front(), 0.0);
    EXPECT_NEAR(times.back(), 20.0, 1e-9);
  }
}

// A gamma distribution of shape k has a deviation of 1 / sqrt(k) of its mean.
TEST(Arrivals, BurstinessIsTheShapeOfTheGaps) {
  for (const double burstiness : {0.25, 1.0, 4.0})
    EXPECT_NEAR(variation(arrival_times(20000, 10.0, burstiness, 1)), 1 / std::sqrt(burstiness),
                0.06 / std::sqrt(burstiness));
  EXPECT_NEAR(variation(arrival_times(100, 10.0, kInfinity, 1)), 0.0, 1e-9);
}

TEST(Arrivals, AreAFunctionOfTheSeed) {
  EXPECT_EQ(arrival_times(50, 5.0, 1.0, 7), arrival_times(50, 5.0, 1.0, 7));
  EXPECT_NE(arrival_times(50, 5.0, 1.0, 7), arrival_times(50, 5.0, 1.0, 8));
}

}  // namespace
}  // namespace strata::loadgen
