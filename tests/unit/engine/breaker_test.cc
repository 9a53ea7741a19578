#include "engine/breaker.h"

#include <gtest/gtest.h>

namespace strata::test {
namespace {

constexpr Nanos kSecond = 1'000'000'000;

int fail(Breaker& breaker, int times, Nanos now) {
  int trips = 0;
  for (int i = 0; i < times; ++i) trips += breaker.on_memory_failure(now) ? 1 : 0;
  return trips;
}

TEST(Breaker, ThreeFailuresInARowHalveTheLimits) {
  Breaker breaker({32, 512});
  EXPECT_EQ(fail(breaker, 2, 100 * kSecond), 0);
  EXPECT_FALSE(breaker.safe_mode());
  EXPECT_EQ(breaker.limits(), (StepLimits{32, 512}));
  EXPECT_EQ(fail(breaker, 1, 130 * kSecond), 1);
  EXPECT_TRUE(breaker.safe_mode());
  EXPECT_EQ(breaker.limits(), (StepLimits{16, 256}));
  EXPECT_EQ(fail(breaker, 3, 131 * kSecond), 1);
  EXPECT_EQ(breaker.limits(), (StepLimits{8, 128}));
  EXPECT_EQ(breaker.trips(), 2U);
  EXPECT_EQ(breaker.failures(), 6U);
}

TEST(Breaker, FailuresFarApartAreNotInARow) {
  Breaker breaker({32, 512});
  for (Nanos now = 0; now < 1000 * kSecond; now += 60 * kSecond)
    EXPECT_FALSE(breaker.on_memory_failure(now));
  EXPECT_FALSE(breaker.safe_mode());
  EXPECT_EQ(breaker.pause(), 0);
}

TEST(Breaker, TheQuietTimeLeadsBackAndDoubles) {
  Breaker breaker({32, 512});
  Nanos now = 100 * kSecond;
  for (const int quiet : {60, 120, 240, 480}) {
    fail(breaker, 3, now);
    EXPECT_EQ(breaker.quiet_ends(), now + quiet * kSecond);
    EXPECT_FALSE(breaker.recover(now + quiet * kSecond - 1));
    now += quiet * kSecond;
    EXPECT_TRUE(breaker.recover(now));
    EXPECT_FALSE(breaker.recover(now)) << "once";
    EXPECT_EQ(breaker.limits(), (StepLimits{32, 512}));
    EXPECT_FALSE(breaker.quiet_ends());
  }
  now += 3600 * kSecond;
  fail(breaker, 3, now);
  EXPECT_EQ(breaker.quiet(), 60 * kSecond) << "an hour without a failure";
}

TEST(Breaker, LimitsHaveAFloorAndTheQuietTimeACeiling) {
  Breaker breaker({4, 64});
  fail(breaker, 60, 100 * kSecond);
  EXPECT_EQ(breaker.trips(), 20U);
  EXPECT_EQ(breaker.limits(), (StepLimits{1, 16}));
  EXPECT_EQ(breaker.quiet(), 3600 * kSecond);
  EXPECT_TRUE(breaker.recover(3700 * kSecond));
  EXPECT_EQ(breaker.limits(), (StepLimits{4, 64}));
  Breaker smallest({1, 1});
  fail(smallest, 9, 100 * kSecond);
  EXPECT_EQ(smallest.limits(), (StepLimits{1, 1}));
  Breaker wide({64, 64});
  fail(wide, 3, 100 * kSecond);
  EXPECT_EQ(wide.limits(), (StepLimits{32, 32})) << "a row for every sequence";
}

TEST(Breaker, PausesGrowBeyondTheThirdFailure) {
  Breaker breaker({4, 64});
  fail(breaker, 3, 100 * kSecond);
  EXPECT_EQ(breaker.pause(), 0);
  for (const int pause : {1, 2, 4, 8, 16, 32, 32}) {
    fail(breaker, 1, 100 * kSecond);
    EXPECT_EQ(breaker.pause(), pause * kSecond);
  }
}

}  // namespace
}  // namespace strata::test
