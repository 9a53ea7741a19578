#include "model/memory_plan.h"

#include <gtest/gtest.h>

#include "kernels/cuda/cuda_layout.h"

namespace strata {
namespace {

constexpr std::int64_t kGiB = std::int64_t{1} << 30;

PlanRequest request_20b(std::int64_t available) {
  PlanRequest request;
  request.config = gpt_oss_20b();
  request.available_bytes = available;
  return request;
}

std::int64_t line(const MemoryPlan& plan, const std::string& name) {
  for (const PlanLine& entry : plan.lines)
    if (entry.name == name) return entry.bytes;
  return -1;
}

TEST(MemoryPlan, KnowsTheWeightsOfThe20b) {
  const auto plan = make_memory_plan(request_20b(64 * kGiB));
  ASSERT_TRUE(plan.has_value()) << plan.error().message;
  // 768 slabs of 13,236,480 bytes and padding; 3.59 GB of bf16 matrices and float32 vectors.
  EXPECT_EQ(line(*plan, "weights.experts") / 768 / 4096 * 4096, 13'238'272);
  EXPECT_NEAR(static_cast<double>(line(*plan, "weights.dense")), 3.596e9, 0.01e9);
  EXPECT_EQ(plan->max_model_len, 131072);
}

// 1.22e9 of the 1.80e9 dense weights go from two bytes to 1 + 1/16.
TEST(MemoryPlan, CountsInt8DenseWeights) {
  PlanRequest request = request_20b(64 * kGiB);
  const auto bf16 = make_memory_plan(request);
  request.dense = kernels::WeightFormat::kI8g32;
  const auto int8 = make_memory_plan(request);
  ASSERT_TRUE(bf16.has_value() && int8.has_value());
  const ModelConfig config = gpt_oss_20b();
  const std::int64_t hidden = config.hidden;
  const std::int64_t weights =
      hidden * (config.qkv_dim() + config.q_dim()) * config.num_layers + hidden * config.vocab;
  EXPECT_EQ(line(*bf16, "weights.dense") - line(*int8, "weights.dense"), weights * 15 / 16);
}

TEST(MemoryPlan, ShrinksTheContextToTheMemory) {
  const auto plan = make_memory_plan(request_20b(20 * kGiB));
  ASSERT_TRUE(plan.has_value()) << plan.error().message;
  EXPECT_LT(plan->max_model_len, 131072);
  EXPECT_GE(plan->max_model_len, 8192);
  EXPECT_EQ(plan->max_model_len % 1024, 0);
  EXPECT_LE(plan->total_bytes, plan->limit_bytes);
}

TEST(MemoryPlan, NamesTheShortfallAndTheFix) {
  const auto small = make_memory_plan(request_20b(8 * kGiB));
  ASSERT_FALSE(small.has_value());
  EXPECT_EQ(small.error().code, ErrorCode::kInsufficientMemory);
  EXPECT_NE(small.error().message.find("short"), std::string::npos);

  PlanRequest long_context = request_20b(18 * kGiB);
  long_context.max_model_len = 131072;
  const auto refused = make_memory_plan(long_context);
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("--max-model-len"), std::string::npos);
}

TEST(MemoryPlan, RefusesAContextTheModelLacks) {
  PlanRequest request = request_20b(64 * kGiB);
  request.max_model_len = 200000;
  const auto plan = make_memory_plan(request);
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().param, "max-model-len");
}

TEST(MemoryPlan, PoolHoldsOneSequenceOfFullLengthAtLeast) {
  for (const std::int32_t seqs : {1, 4, 64}) {
    PlanRequest request;
    request.config = strata_tiny();
    request.available_bytes = 4 * kGiB;
    request.max_num_seqs = seqs;
    request.max_model_len = 8192;
    const auto plan = make_memory_plan(request);
    ASSERT_TRUE(plan.has_value()) << plan.error().message;
    EXPECT_GE(plan->backend.num_pages, 8192 / 16 + 128 / 16 + 1);
    EXPECT_EQ(plan->backend.max_slots, seqs);
    EXPECT_EQ(line(*plan, "kv.pool"), plan->backend.num_pages * plan->page_bytes);
  }
}

PlanRequest request_on_card(const ModelConfig& config, std::int64_t total, std::int64_t free) {
  PlanRequest request;
  request.config = config;
  request.available_bytes = 64 * kGiB;
  request.kv_dtype = KvDtype::kBf16;
  request.card = CardMemory{.total_bytes = total, .free_bytes = free};
  return request;
}

std::int64_t bytes_in(const MemoryPlan& plan, const std::string& place) {
  std::int64_t bytes = 0;
  for (const PlanLine& entry : plan.lines) bytes += entry.place == place ? entry.bytes : 0;
  return bytes;
}

TEST(MemoryPlan, ACardHoldsTheModelAndRamACopyOfTheExperts) {
  const auto plan = make_memory_plan(request_on_card(gpt_oss_20b(), 80 * kGiB, 79 * kGiB));
  ASSERT_TRUE(plan.has_value()) << plan.error().message;
  EXPECT_EQ(plan->total_bytes, bytes_in(*plan, "VRAM"));
  EXPECT_LE(plan->total_bytes, plan->limit_bytes);
  EXPECT_GT(plan->total_bytes, 13 * kGiB);
  EXPECT_GT(bytes_in(*plan, "RAM"), 9 * kGiB);
  EXPECT_EQ(plan->max_model_len, 131072);
  EXPECT_NE(format_plan(*plan).find("VRAM"), std::string::npos);
}

Result<MemoryPlan> plan_without_flags(std::int64_t total, std::int64_t free) {
  PlanRequest request = request_on_card(gpt_oss_20b(), total, free);
  request.tensor_cores = true;
  request.max_num_seqs = 64;
  request.max_num_batched_tokens = 1024;
  return make_card_plan(request, {.dense = true, .step_size = true});
}

TEST(MemoryPlan, ACardOf12GiBServesThe20bWithoutFlags) {
  for (const std::int64_t total : {12 * kGiB, 80 * kGiB}) {
    const auto plan = plan_without_flags(total, 12 * kGiB);
    ASSERT_TRUE(plan.has_value()) << plan.error().message;
    EXPECT_EQ(plan->dense, kernels::WeightFormat::kI8g32);
    EXPECT_GE(plan->max_model_len, 8192) << format_plan(*plan);
    EXPECT_LE(plan->total_bytes, plan->limit_bytes);
  }
}

TEST(MemoryPlan, DefaultsOnACardGiveWayToContext) {
  const auto large = plan_without_flags(24 * kGiB, 23 * kGiB);
  ASSERT_TRUE(large.has_value()) << large.error().message;
  EXPECT_EQ(large->dense, kernels::WeightFormat::kBf16);
  EXPECT_EQ(large->max_num_seqs, 64);
  EXPECT_EQ(large->backend.max_rows, 1024);
  const auto small = plan_without_flags(12 * kGiB, 12 * kGiB);
  ASSERT_TRUE(small.has_value());
  EXPECT_LT(small->backend.max_rows, 1024);
  EXPECT_FALSE(plan_without_flags(8 * kGiB, 8 * kGiB).has_value());

  PlanRequest fixed = request_on_card(gpt_oss_20b(), 12 * kGiB, 12 * kGiB);
  fixed.tensor_cores = true;
  const auto refused = make_card_plan(fixed, {});
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("short"), std::string::npos);
}

TEST(MemoryPlan, ACardsLimitIsItsShareItsFreeMemoryOrTheWish) {
  PlanRequest request = request_on_card(strata_tiny(), 10 * kGiB, 9 * kGiB);
  request.card->utilization = 0.5;
  EXPECT_EQ(make_memory_plan(request)->limit_bytes, 5 * kGiB);
  request.card->free_bytes = 2 * kGiB;
  EXPECT_EQ(make_memory_plan(request)->limit_bytes, 2 * kGiB);
  request.card->limit_bytes = kGiB;
  EXPECT_EQ(make_memory_plan(request)->limit_bytes, kGiB);
}

TEST(MemoryPlan, RefusesAModelThatDoesNotFitTheCard) {
  const auto plan = make_memory_plan(request_on_card(gpt_oss_20b(), 8 * kGiB, 8 * kGiB));
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().code, ErrorCode::kInsufficientMemory);
  EXPECT_NE(plan.error().message.find("--backend cpu"), std::string::npos);
}

TEST(MemoryPlan, ActivationsOnACardAreAtMostThePlannedBytes) {
  for (const std::int32_t length : {512, 8192, 131072}) {
    PlanRequest request = request_on_card(gpt_oss_20b(), 80 * kGiB, 79 * kGiB);
    request.max_model_len = length;
    const auto plan = make_memory_plan(request);
    ASSERT_TRUE(plan.has_value()) << plan.error().message;
    const auto layout = kernels::cuda::make_activation_layout(request.config, plan->backend);
    EXPECT_LE(static_cast<std::int64_t>(layout.bytes), line(*plan, "activations"));
  }
}

}  // namespace
}  // namespace strata
