#include "base/memory.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/fault.h"
#include "base/model_config.h"
#include "base/result.h"

namespace strata {
namespace {

std::size_t live(const std::string& site) {
  for (const SiteUsage& usage : host_memory_usage())
    if (usage.site == site) return usage.live_bytes;
  return 0;
}

TEST(HostBuffer, AccountsZeroesAndAligns) {
  {
    HostBuffer small("test.small", 100);
    HostBuffer large("test.large", (std::size_t{5} << 20) + 3);
    EXPECT_EQ(live("test.small"), 100U);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(large.data()) % (2U << 20), 0U);
    EXPECT_TRUE(std::all_of(large.data(), large.data() + large.size(),
                            [](std::byte b) { return b == std::byte{0}; }));
    HostBuffer moved = std::move(large);
    EXPECT_TRUE(large.empty());
    EXPECT_EQ(live("test.large"), (std::size_t{5} << 20) + 3);
  }
  EXPECT_EQ(live("test.small"), 0U);
  EXPECT_EQ(live("test.large"), 0U);
}

TEST(HostBuffer, StaysOutOfHugePagesWhenTold) {
  const std::size_t before = huge_page_bytes();
  ask_for_huge_pages(false);
  HostBuffer buffer("test.small_pages", std::size_t{16} << 20);
  ask_for_huge_pages(true);
  for (std::byte& byte : buffer.as<std::byte>()) byte = std::byte{1};
  EXPECT_EQ(huge_page_bytes(), before);
}

TEST(HostBuffer, FailsAtTheNamedSiteOnTheNthAllocation) {
  ASSERT_TRUE(fault::arm("alloc.test.site=oom:2").has_value());
  const HostBuffer first("test.site", 10);
  EXPECT_THROW(HostBuffer("test.site", 10), MemoryError);
  const HostBuffer third("test.site", 10);
  fault::disarm();
}

TEST(Fault, RefusesBadSpecs) {
  EXPECT_FALSE(fault::arm("nonsense").has_value());
  EXPECT_FALSE(fault::arm("a=what").has_value());
  EXPECT_FALSE(fault::arm("a=oom:0").has_value());
  fault::disarm();
}

// First, second, 18th and last value of the published model's table.
TEST(RopeTable, MatchesTheReference) {
  const RopeTable table = make_rope_table(RopeConfig{}, 64);
  EXPECT_FLOAT_EQ(table.inv_freq[0], 1.0F);
  EXPECT_NEAR(table.inv_freq[1], 0.689044F, 1e-6);
  EXPECT_NEAR(table.inv_freq[2], 0.474782F, 1e-6);
  EXPECT_NEAR(table.inv_freq[17], 1.29319e-4F, 1e-9);
  EXPECT_NEAR(table.inv_freq[31], 3.02351e-7F, 1e-12);
  EXPECT_NEAR(table.concentration, 1.3465736F, 1e-6);
}

}  // namespace
}  // namespace strata
