// Layout, rounding and page operations of the host's KV memory.
#include "kernels/host/kv_pool.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>

#include "base/fault.h"

namespace strata::kernels {
namespace {

ModelConfig config() {
  ModelConfig config;
  config.num_layers = 3;
  config.num_kv_heads = 2;
  config.num_q_heads = 4;
  config.head_dim = 32;
  config.windowed = {true, false, true};
  return config;
}

BackendOptions options(KvDtype dtype) {
  BackendOptions options;
  options.page_tokens = 4;
  options.num_pages = 5;
  options.num_swap_pages = 2;
  options.kv_dtype = dtype;
  return options;
}

std::vector<float> vector_of(float first) {
  std::vector<float> values(32);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = first + static_cast<float>(i) * 0.37F;
  return values;
}

float key_at(KvPool& pool, PageId page, LayerId layer, std::int32_t head, std::int32_t token) {
  float value = 0.0F;
  std::memcpy(&value, pool.keys(page, layer, head) + token * 32 * 4, 4);
  return value;
}

TEST(KvPool, PageHoldsTheLargerGroup) {
  // Two window layers of 2 heads * (K + V) * 4 tokens * 32 values.
  EXPECT_EQ(kv_page_bytes(config(), 4, KvDtype::kF32), 2U * 2 * 2 * 4 * 32 * 4);
  EXPECT_EQ(kv_page_bytes(config(), 4, KvDtype::kBf16), 2U * 2 * 2 * 4 * 32 * 2);
}

TEST(KvPool, BlocksOfAGroupDoNotOverlap) {
  KvPool pool(config(), options(KvDtype::kF32));
  std::set<std::byte*> starts;
  for (PageId page = 0; page < 5; ++page)
    for (const LayerId layer : {0, 2})
      for (std::int32_t head = 0; head < 2; ++head) {
        starts.insert(pool.keys(page, layer, head));
        starts.insert(pool.values(page, layer, head));
      }
  EXPECT_EQ(starts.size(), 5U * 2 * 2 * 2);
  std::byte* last = nullptr;
  for (std::byte* start : starts) {
    if (last != nullptr) {
      EXPECT_EQ(start - last, 4 * 32 * 4);
    }
    last = start;
  }
}

TEST(KvPool, WritesOneToken) {
  KvPool pool(config(), options(KvDtype::kF32));
  const auto key = vector_of(1.0F);
  const auto value = vector_of(2.0F);
  pool.write(3, 2, 1, 2, key.data(), value.data());
  EXPECT_EQ(std::memcmp(pool.keys(3, 2, 1) + 2 * 32 * 4, key.data(), 32 * 4), 0);
  EXPECT_EQ(std::memcmp(pool.values(3, 2, 1) + 2 * 32 * 4, value.data(), 32 * 4), 0);
  EXPECT_EQ(key_at(pool, 3, 2, 1, 1), 0.0F);
  EXPECT_EQ(key_at(pool, 3, 2, 1, 3), 0.0F);
}

TEST(KvPool, Bf16IsRoundedToNearest) {
  KvPool pool(config(), options(KvDtype::kBf16));
  std::vector<float> key(32, 1.0F + 0x1.8p-8F);  // between 1 and 1 + 2^-7, nearer to the latter
  pool.write(1, 1, 0, 0, key.data(), key.data());
  Bf16 stored{};
  std::memcpy(&stored, pool.values(1, 1, 0), sizeof stored);
  EXPECT_EQ(to_float(stored), 1.0F + 0x1.0p-7F);
}

TEST(KvPool, CopiesGoInOrderAfterPoison) {
  KvPool pool(config(), options(KvDtype::kF32));
  const auto key = vector_of(5.0F);
  pool.write(1, 0, 0, 0, key.data(), key.data());
  StepPlan plan;
  plan.poison = {2, 4};
  plan.copies = {{1, 2, CopyKind::kDevice}, {2, 1, CopyKind::kSwapOut}, {1, 3, CopyKind::kSwapIn}};
  pool.apply(plan);
  EXPECT_EQ(key_at(pool, 2, 0, 0, 0), 5.0F);
  EXPECT_EQ(key_at(pool, 3, 0, 0, 0), 5.0F);
  EXPECT_TRUE(std::isnan(key_at(pool, 4, 2, 1, 3)));
}

TEST(KvPool, PoisonIsNanInBf16) {
  KvPool pool(config(), options(KvDtype::kBf16));
  StepPlan plan;
  plan.kv = KvDtype::kBf16;
  plan.poison = {1};
  pool.apply(plan);
  Bf16 stored{};
  std::memcpy(&stored, pool.keys(1, 0, 0), sizeof stored);
  EXPECT_TRUE(std::isnan(to_float(stored)));
}

TEST(KvPool, AllocationFailureNamesItsSite) {
  ASSERT_TRUE(fault::arm("alloc.kv.pool=oom").has_value());
  try {
    KvPool pool(config(), options(KvDtype::kF32));
    ADD_FAILURE() << "expected MemoryError";
  } catch (const MemoryError& error) {
    EXPECT_NE(std::string(error.what()).find("kv.pool"), std::string::npos);
  }
  fault::disarm();
}

TEST(KvPoolDeathTest, ForeignPagesAndDtypesAreBugs) {
  KvPool pool(config(), options(KvDtype::kF32));
  StepPlan plan;
  plan.poison = {5};
  EXPECT_DEATH(pool.apply(plan), "KV page 5 of 5");
  plan.poison.clear();
  plan.kv = KvDtype::kBf16;
  EXPECT_DEATH(pool.apply(plan), "another KV dtype");
}

}  // namespace
}  // namespace strata::kernels
