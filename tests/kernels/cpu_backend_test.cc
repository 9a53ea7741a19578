// The CPU backend whole: bitwise the same logits for every instruction set, thread count, batch and
// prefill chunking, and close to the reference for every shape a checkpoint may have.
#include "kernels/cpu/cpu_backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "base/thread_pool.h"
#include "kernels/ref/ref_backend.h"
#include "tests/support/micro_model.h"
#include "tests/support/step_runner.h"

namespace strata::test {
namespace {

using kernels::Backend;
using kernels::BackendContext;
using kernels::CpuIsa;

using Rows = std::vector<std::vector<float>>;  // log-probabilities of every id, token by token

TestBackend cpu(CpuIsa isa, int threads) {
  TestBackend backend;
  backend.name = std::string(kernels::isa_name(isa)) + " x" + std::to_string(threads);
  backend.make = [isa, threads](BackendContext context) -> std::shared_ptr<Backend> {
    auto pool = std::make_shared<ThreadPool>(threads);
    std::shared_ptr<Backend> made = kernels::make_cpu_backend(std::move(context), isa, *pool);
    return {made.get(), [pool, made](Backend*) mutable { made.reset(); }};
  };
  return backend;
}

TestBackend ref() {
  TestBackend backend;
  backend.name = "ref";
  backend.make = [](BackendContext context) -> std::shared_ptr<Backend> {
    return kernels::make_ref_backend(std::move(context));
  };
  return backend;
}

kernels::BackendOptions options_for(std::int32_t max_rows) {
  kernels::BackendOptions options = small_options();
  options.max_rows = max_rows;
  options.max_slots = 32;
  options.max_logits_rows = max_rows;
  options.num_pages = 2048;
  options.max_pages_per_seq = 256;
  return options;
}

// A short model whose projections reach the blocked products' tails.
ModelConfig short_config() {
  ModelConfig config = micro_config();
  config.num_layers = 2;
  config.windowed = {true, false};
  config.hidden = 160;
  return config;
}

Rows prompt_rows(const TestBackend& backend, const weights::Checkpoint& checkpoint,
                 const std::vector<TokenId>& tokens, std::size_t chunk) {
  StepRunner runner(backend, checkpoint, options_for(320));
  runner.builder().admit(0);
  return runner.logprobs(0, tokens, chunk);
}

void expect_same_bits(const Rows& got, const Rows& expected, const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_EQ(std::memcmp(got[i].data(), expected[i].data(), got[i].size() * sizeof(float)), 0)
        << what << " token " << i;
}

TEST(CpuBackend, NamesItsInstructionSet) {
  const auto checkpoint = make_micro_checkpoint(micro_config(), 1);
  StepRunner runner(cpu(CpuIsa::kScalar, 1), *checkpoint);
  EXPECT_EQ(runner.backend().name(), "cpu scalar");
}

TEST(CpuBackend, LogitsDependOnNeitherPathThreadsNorChunks) {
  const ModelConfig config = short_config();
  const auto checkpoint = make_micro_checkpoint(config, 5);
  const std::vector<TokenId> tokens = random_tokens(300, config.vocab, 17);
  const Rows expected = prompt_rows(cpu(kernels::detect_isa(), 1), *checkpoint, tokens, 300);
  for (const CpuIsa isa : kernels::supported_isas()) {
    // The scalar path is slow; what it says of a prefix holds for the whole.
    const std::size_t count = isa == CpuIsa::kScalar ? 40 : tokens.size();
    const std::vector<TokenId> prompt(tokens.begin(),
                                      tokens.begin() + static_cast<std::ptrdiff_t>(count));
    const Rows prefix(expected.begin(), expected.begin() + static_cast<std::ptrdiff_t>(count));
    for (const int threads : {1, 2, 3}) {
      const TestBackend backend = cpu(isa, threads);
      for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}, std::size_t{64}, count}) {
        const Rows rows = prompt_rows(backend, *checkpoint, prompt, chunk);
        expect_same_bits(rows, prefix, backend.name + " chunk " + std::to_string(chunk));
      }
    }
  }
}

// What int8 dense weights and int8 activations change, they change alike everywhere.
TEST(CpuBackend, Int8VariantsDependOnNeitherPathThreadsNorChunks) {
  const auto checkpoint = make_micro_checkpoint(short_config(), 5);
  const std::vector<TokenId> tokens = random_tokens(40, checkpoint->config().vocab, 17);
  const Rows exact = prompt_rows(cpu(kernels::detect_isa(), 1), *checkpoint, tokens, 40);
  for (const auto& [dense, int8_activations] :
       {std::pair{kernels::WeightFormat::kI8g32, false}, {kernels::WeightFormat::kI8g32, true}}) {
    const auto variant = [dense = dense, int8 = int8_activations](CpuIsa isa, int threads) {
      TestBackend backend = cpu(isa, threads);
      backend.make = [make = backend.make, dense, int8](BackendContext context) {
        context.dense = dense;
        context.int8_activations = int8;
        return make(std::move(context));
      };
      return backend;
    };
    const Rows expected = prompt_rows(variant(kernels::detect_isa(), 1), *checkpoint, tokens, 40);
    EXPECT_NE(expected, exact);
    for (const CpuIsa isa : kernels::supported_isas())
      for (const int threads : {1, 3})
        for (const std::size_t chunk : {1, 7, 40})
          expect_same_bits(prompt_rows(variant(isa, threads), *checkpoint, tokens, chunk), expected,
                           std::string(kernels::isa_name(isa)));
  }
}

constexpr std::size_t kBatchSteps = 3;

// Sequences of different lengths, decoded together or alone, in float32 and bfloat16 KV.
class CpuBatches : public ::testing::TestWithParam<KvDtype> {};

Rows decode_batch(const TestBackend& backend, const weights::Checkpoint& checkpoint,
                  const std::vector<SlotId>& slots, KvDtype kv) {
  kernels::BackendOptions options = options_for(256);
  options.kv_dtype = kv;
  const std::int32_t vocab = checkpoint.config().vocab;
  StepRunner runner(backend, checkpoint, options);
  for (const SlotId slot : slots) {
    runner.builder().admit(slot);
    const std::vector<TokenId> prompt = random_tokens(static_cast<std::size_t>(1 + slot), vocab,
                                                      100 + static_cast<std::uint64_t>(slot));
    runner.builder().prefill(slot, prompt, Want::kSample);
    runner.builder().plan().kv = kv;
    runner.run();
  }
  Rows rows;
  for (std::size_t step = 0; step < kBatchSteps; ++step) {
    for (const SlotId slot : slots) runner.builder().decode(slot, vocab);
    runner.builder().plan().kv = kv;
    for (const RowResult& row : runner.run().rows) rows.push_back(by_id(row));
  }
  return rows;
}

TEST_P(CpuBatches, ARowIsTheSameInABatchOf1And7And32) {
  const ModelConfig config = short_config();
  const auto checkpoint = make_micro_checkpoint(config, 6);
  std::vector<SlotId> all(32);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<SlotId>(i);
  const Rows of_32 = decode_batch(cpu(kernels::detect_isa(), 2), *checkpoint, all, GetParam());
  for (const CpuIsa isa : kernels::supported_isas()) {
    for (const auto& [first, batch] : {std::pair{0, 1}, {20, 1}, {0, 7}, {9, 7}}) {
      const std::vector<SlotId> slots(all.begin() + first, all.begin() + first + batch);
      const Rows rows = decode_batch(cpu(isa, 3), *checkpoint, slots, GetParam());
      Rows expected;
      for (std::size_t step = 0; step < kBatchSteps; ++step)
        for (const SlotId slot : slots)
          expected.push_back(of_32[step * 32 + static_cast<std::size_t>(slot)]);
      expect_same_bits(rows, expected,
                       std::string(kernels::isa_name(isa)) + " batch of " + std::to_string(batch));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(KvDtypes, CpuBatches, ::testing::Values(KvDtype::kF32, KvDtype::kBf16),
                         [](const auto& dtype) {
                           return dtype.param == KvDtype::kF32 ? "F32" : "Bf16";
                         });

struct ShapeCase {
  const char* name;
  std::int32_t hidden, intermediate, q_heads, kv_heads, head_dim, experts, top, window;
  ExpertFormat format;
};

void PrintTo(const ShapeCase& shape, std::ostream* out) { *out << shape.name; }

class CpuShapes : public ::testing::TestWithParam<ShapeCase> {};

// The micro model hides nothing: activations are large, attention is sharp. With bf16 experts
// log-probabilities agree to a few times 1e-5, with activations of 16 bits to about 1e-3 at worst;
// a wrong element of any product moves them by far more than the bound.
TEST_P(CpuShapes, AgreeWithTheReference) {
  const ShapeCase& shape = GetParam();
  ModelConfig config = micro_config();
  config.num_layers = 2;
  config.windowed = {true, false};
  config.hidden = shape.hidden;
  config.intermediate = shape.intermediate;
  config.num_q_heads = shape.q_heads;
  config.num_kv_heads = shape.kv_heads;
  config.head_dim = shape.head_dim;
  config.num_experts = shape.experts;
  config.experts_per_token = shape.top;
  config.window = shape.window;
  config.expert_format = shape.format;
  const auto checkpoint = make_micro_checkpoint(config, 9);
  const std::vector<TokenId> tokens = random_tokens(70, config.vocab, 23);
  const Rows expected = prompt_rows(ref(), *checkpoint, tokens, 70);
  const Rows got = prompt_rows(cpu(kernels::detect_isa(), 2), *checkpoint, tokens, 70);
  double worst = 0.0;
  for (std::size_t i = 0; i < got.size(); ++i)
    for (std::size_t id = 0; id < got[i].size(); ++id)
      worst = std::max(worst, static_cast<double>(std::fabs(got[i][id] - expected[i][id])));
  const double bound = shape.format == ExpertFormat::kMxfp4 ? 4e-3 : 1e-3;
  std::printf("%s: worst log-probability off by %.2g, bound %.2g\n", shape.name, worst, bound);
  EXPECT_LT(worst, bound);
  const Rows scalar = prompt_rows(cpu(CpuIsa::kScalar, 1), *checkpoint, tokens, 70);
  expect_same_bits(scalar, got, "scalar");
}

constexpr ExpertFormat kFp4 = ExpertFormat::kMxfp4;
constexpr ExpertFormat kBf16 = ExpertFormat::kBf16;

INSTANTIATE_TEST_SUITE_P(
    Shapes, CpuShapes,
    ::testing::Values(ShapeCase{"Smallest", 32, 32, 1, 1, 64, 1, 1, 4, kFp4},
                      ShapeCase{"OddExperts", 96, 160, 6, 2, 64, 7, 3, 9, kFp4},
                      ShapeCase{"WideInner", 32, 160, 8, 8, 64, 3, 1, 128, kFp4},
                      ShapeCase{"NarrowInner", 160, 32, 16, 1, 64, 5, 5, 1, kFp4},
                      ShapeCase{"SmallHeads", 64, 96, 8, 2, 32, 8, 4, 8, kFp4},
                      ShapeCase{"LargeHeads", 64, 96, 4, 2, 128, 8, 4, 8, kFp4},
                      ShapeCase{"Bf16Slabs", 96, 160, 16, 2, 64, 8, 4, 8, kBf16},
                      ShapeCase{"Bf16Odd", 160, 96, 8, 8, 64, 3, 2, 5, kBf16}),
    [](const auto& shape) { return shape.param.name; });

TEST(CpuBackend, ReadsEachDenseWeightOnceAStepWhateverTheBatch) {
  const ModelConfig config = short_config();
  const auto checkpoint = make_micro_checkpoint(config, 6);
  StepRunner runner(cpu(kernels::detect_isa(), 2), *checkpoint, options_for(64));
  const auto dense_bytes = [&] {
    std::int64_t bytes = 0;
    for (const kernels::StageStats& stage : runner.backend().take_stats())
      if (stage.name != "embed" && stage.name != "experts") bytes += stage.weight_bytes;
    return bytes;
  };
  for (SlotId slot = 0; slot < 8; ++slot) {
    runner.builder().admit(slot);
    runner.builder().prefill(slot, random_tokens(3, config.vocab, 1), Want::kSample);
  }
  runner.run();
  dense_bytes();
  runner.builder().decode(0);
  runner.run();
  const std::int64_t of_one = dense_bytes();
  for (SlotId slot = 0; slot < 8; ++slot) runner.builder().decode(slot);
  runner.run();
  const std::int64_t hidden = config.hidden;
  const std::int64_t layer = hidden * (config.qkv_dim() + config.q_dim() + config.num_experts);
  EXPECT_EQ(of_one, 2 * (layer * config.num_layers + hidden * config.vocab));
  EXPECT_EQ(dense_bytes(), of_one);
}

TEST(CpuBackend, CountsOnlyTheExpertsChosen) {
  const ModelConfig config = short_config();
  const auto checkpoint = make_micro_checkpoint(config, 6);
  StepRunner runner(cpu(kernels::detect_isa(), 1), *checkpoint, options_for(64));
  runner.builder().admit(0);
  runner.builder().prefill(0, random_tokens(1, config.vocab, 1), Want::kNothing);
  runner.run();
  const auto slab =
      kernels::make_slab_layout(config.hidden, config.intermediate, config.expert_format);
  for (const kernels::StageStats& stage : runner.backend().take_stats()) {
    if (stage.name != "experts") continue;
    EXPECT_EQ(stage.calls, config.num_layers);
    EXPECT_EQ(stage.weight_bytes,
              static_cast<std::int64_t>(slab.bytes) * config.experts_per_token * config.num_layers);
  }
}

}  // namespace
}  // namespace strata::test
