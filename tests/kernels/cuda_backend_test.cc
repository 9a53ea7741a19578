// The CUDA backend where stage tests do not reach: shapes of heads, long contexts, recorded steps,
// statistics, failures. Skipped where there is no usable card.
#include "kernels/cuda/cuda_backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "base/fault.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/ref/ref_backend.h"
#include "tests/support/micro_model.h"
#include "tests/support/step_runner.h"

namespace strata::test {
namespace {

using Rows = std::vector<std::vector<float>>;  // log-probabilities of every id, token by token

class CudaBackend : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_cuda_backend()) GTEST_SKIP() << "no usable card";
  }
};

class CudaTensorProducts : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_tensor_path() == nullptr) GTEST_SKIP() << cuda_path("generic80").missing();
  }
};

TestBackend cuda() {
  TestBackend backend;
  backend.name = "cuda";
  backend.make = [](kernels::BackendContext context) -> std::shared_ptr<kernels::Backend> {
    return kernels::make_cuda_backend(std::move(context));
  };
  return backend;
}

TestBackend cuda_int8() {
  TestBackend backend = cuda();
  backend.make = [](kernels::BackendContext context) -> std::shared_ptr<kernels::Backend> {
    context.dense = kernels::WeightFormat::kI8g32;
    return kernels::make_cuda_backend(std::move(context));
  };
  return backend;
}

TestBackend cpu_int8() {
  TestBackend backend;
  backend.name = "cpu";
  backend.make = [](kernels::BackendContext context) {
    context.dense = kernels::WeightFormat::kI8g32;
    auto pool = std::make_shared<ThreadPool>(1);
    auto made = kernels::make_cpu_backend(std::move(context), kernels::CpuIsa::kScalar, *pool);
    return std::shared_ptr<kernels::Backend>(made.release(),
                                             [pool](kernels::Backend* dead) { delete dead; });
  };
  return backend;
}

TestBackend ref() {
  TestBackend backend;
  backend.name = "ref";
  backend.make = [](kernels::BackendContext context) -> std::shared_ptr<kernels::Backend> {
    return kernels::make_ref_backend(std::move(context));
  };
  return backend;
}

ModelConfig two_layers() {
  ModelConfig config = micro_config();
  config.num_layers = 2;
  config.windowed = {true, false};
  return config;
}

kernels::BackendOptions recording() {
  kernels::BackendOptions options = small_options();
  options.record_graphs = true;
  return options;
}

SamplingParams greedy() {
  SamplingParams sampling;
  sampling.temperature = 0.0F;
  return sampling;
}

Rows prompt_rows(const TestBackend& backend, const weights::Checkpoint& checkpoint,
                 const std::vector<TokenId>& tokens, std::size_t chunk,
                 const kernels::BackendOptions& options = small_options()) {
  StepRunner runner(backend, checkpoint, options);
  runner.builder().admit(0);
  return runner.logprobs(0, tokens, chunk);
}

TEST_F(CudaBackend, IsNamedAfterItsCard) {
  const auto checkpoint = make_micro_checkpoint(two_layers(), 1);
  StepRunner runner(cuda(), *checkpoint);
  EXPECT_EQ(runner.backend().name().find("cuda sm"), 0U);
}

TEST_F(CudaBackend, ShapesOfHeadsAreCloseToTheReference) {
  struct Heads {
    std::int32_t q, kv, dim;
  };
  for (const Heads heads :
       {Heads{16, 1, 64}, Heads{9, 1, 32}, Heads{4, 4, 32}, Heads{6, 2, 128}, Heads{12, 1, 128}}) {
    ModelConfig config = two_layers();
    config.num_q_heads = heads.q;
    config.num_kv_heads = heads.kv;
    config.head_dim = heads.dim;
    const auto checkpoint = make_micro_checkpoint(config, 5);
    const auto tokens = random_tokens(20, config.vocab, 3);
    for (const KvDtype dtype : {KvDtype::kF32, KvDtype::kBf16}) {
      kernels::BackendOptions options = small_options();
      options.kv_dtype = dtype;
      const Rows expected = prompt_rows(ref(), *checkpoint, tokens, 20, options);
      const Rows got = prompt_rows(cuda(), *checkpoint, tokens, 20, options);
      // A bf16 key may round the other way; float32 differs by rounding alone.
      const double tolerance = dtype == KvDtype::kF32 ? 2e-3 : 5e-2;
      for (std::size_t t = 0; t < tokens.size(); ++t)
        for (std::size_t id = 0; id < got[t].size(); ++id)
          ASSERT_NEAR(got[t][id], expected[t][id], tolerance)
              << heads.q << "/" << heads.kv << " heads of " << heads.dim << ", token " << t;
    }
  }
}

// Decode steps compute splits in parallel, prompts one after the other.
TEST_F(CudaBackend, SplitsInParallelAreSplitsInSequence) {
  ModelConfig config = two_layers();
  config.window = 300;
  const auto checkpoint = make_micro_checkpoint(config, 7);
  kernels::BackendOptions options = small_options();
  options.page_tokens = 16;
  options.max_pages_per_seq = 48;
  options.num_pages = 128;
  const auto tokens = random_tokens(601, config.vocab, 11);
  const std::vector<TokenId> prompt(tokens.begin(), tokens.end() - 5);
  const Rows whole = prompt_rows(cuda(), *checkpoint, tokens, 128, options);
  StepRunner runner(cuda(), *checkpoint, options);
  runner.builder().admit(0);
  runner.logprobs(0, prompt, 128);
  const Rows last = runner.logprobs(0, {tokens.end() - 5, tokens.end()}, 1);
  EXPECT_EQ(last, Rows(whole.end() - 5, whole.end()));
}

TEST_F(CudaBackend, ReplayedStepsAreDirectSteps) {
  const auto checkpoint = make_micro_checkpoint(micro_config(), 3);
  const auto prompt = random_tokens(13, 384, 2);
  const auto run = [&](const kernels::BackendOptions& options) {
    StepRunner runner(cuda(), *checkpoint, options);
    std::vector<std::vector<TokenId>> all;
    for (const SlotId slot : {0, 1, 2}) {
      runner.builder().admit(slot, greedy());
      all.push_back(runner.generate(slot, std::span(prompt).first(9 + 2U * slot), 4));
    }
    for (int step = 0; step < 6; ++step) {
      for (const SlotId slot : {0, 1, 2}) runner.builder().decode(slot);
      for (const RowResult& row : runner.run().rows)
        all[static_cast<std::size_t>(row.slot)].push_back(row.token);
    }
    std::map<std::string, std::int64_t> calls;
    for (const auto& stage : runner.backend().take_stats()) calls[stage.name] = stage.calls;
    return std::pair(all, calls);
  };
  const auto [direct, direct_calls] = run(small_options());
  const auto [replayed, calls] = run(recording());
  EXPECT_EQ(replayed, direct);
  // Nine decode steps of one row and six of three rows: the first of a shape is direct, the second
  // recorded. Prompts differ in length.
  EXPECT_EQ(calls.at("graph"), 9 - 2 + 6 - 2);
  EXPECT_EQ(direct_calls.at("graph"), 0);
  EXPECT_EQ(calls.at("experts"), direct_calls.at("experts"));
}

double mean_distance(const Rows& a, const Rows& b) {
  double total = 0.0;
  for (std::size_t t = 0; t < a.size(); ++t)
    for (std::size_t id = 0; id < a[t].size(); ++id)
      total += std::abs(static_cast<double>(a[t][id]) - static_cast<double>(b[t][id]));
  return total / static_cast<double>(a.size() * a[0].size());
}

// Steps of up to eight rows stream their weights through tensor cores. What a step's results are
// does not depend on how many rows it has.
TEST_F(CudaTensorProducts, FewRowsAreCloseToTheReference) {
  ModelConfig other = two_layers();
  other.hidden = 96;
  other.intermediate = 160;
  other.num_q_heads = 6;
  other.num_kv_heads = 3;
  other.head_dim = 128;
  other.vocab = 75;
  ModelConfig bf16 = two_layers();
  bf16.expert_format = ExpertFormat::kBf16;
  ModelConfig wide = two_layers();  // more K than a lane reads ahead
  wide.hidden = 4160;
  wide.intermediate = 2592;
  for (const ModelConfig& config : {micro_config(), other, bf16, wide}) {
    const auto checkpoint = make_micro_checkpoint(config, 5);
    kernels::BackendOptions options = small_options();
    options.tensor_cores = true;
    const auto tokens = random_tokens(16, config.vocab, 3);
    const Rows expected = prompt_rows(ref(), *checkpoint, tokens, 16);
    for (const std::size_t rows : {1U, 2U, 3U, 8U}) {
      const Rows got = prompt_rows(cuda(), *checkpoint, tokens, rows, options);
      const double mean = mean_distance(got, expected);
      std::printf("H %d, rows %zu: mean distance %.5f\n", config.hidden, rows, mean);
      EXPECT_LT(mean, 0.05) << "rows " << rows << ", H " << config.hidden;
      if (kernels::cuda_tensor_cores(config.expert_format)) {
        EXPECT_NE(got, prompt_rows(cuda(), *checkpoint, tokens, rows)) << "another path";
      }
    }
  }
}

// int8 weights on the card are the CPU's: its float path is near the CPU's products with
// activations of 15 bits, tensor cores are as near as their inputs in bf16 allow.
TEST_F(CudaBackend, Int8WeightsAreTheCpus) {
  for (const std::int32_t hidden : {64, 160, 2880}) {
    ModelConfig config = two_layers();
    config.hidden = hidden;
    const auto checkpoint = make_micro_checkpoint(config, 5);
    const auto tokens = random_tokens(40, config.vocab, 3);
    const Rows expected = prompt_rows(cpu_int8(), *checkpoint, tokens, 40);
    EXPECT_LT(mean_distance(prompt_rows(cuda_int8(), *checkpoint, tokens, 40), expected), 2e-3);
    EXPECT_LT(mean_distance(prompt_rows(cuda_int8(), *checkpoint, tokens, 1), expected), 2e-3);
    if (cuda_tensor_path() == nullptr) continue;
    kernels::BackendOptions options = small_options();
    options.tensor_cores = true;
    for (const std::size_t rows : {1U, 4U, 8U, 40U}) {
      const double mean =
          mean_distance(prompt_rows(cuda_int8(), *checkpoint, tokens, rows, options), expected);
      std::printf("H %d, rows %zu: mean distance %.5f\n", hidden, rows, mean);
      EXPECT_LT(mean, 0.05) << "rows " << rows << ", H " << hidden;
    }
  }
}

// Rows of a prompt on tensor cores: inputs are rounded to bf16, so values are near, and a prompt in
// other chunks is near as well.
TEST_F(CudaTensorProducts, PromptsAreCloseToTheReference) {
  ModelConfig other = two_layers();
  other.hidden = 96;
  other.intermediate = 64;
  other.num_q_heads = 6;
  other.num_kv_heads = 3;
  other.head_dim = 128;
  other.vocab = 75;
  ModelConfig bf16 = two_layers();
  bf16.expert_format = ExpertFormat::kBf16;
  for (const ModelConfig& config : {micro_config(), other, bf16}) {
    const auto checkpoint = make_micro_checkpoint(config, 5);
    kernels::BackendOptions options = small_options();
    options.tensor_cores = true;
    for (const std::size_t chunk : {17U, 33U, 100U}) {
      const auto tokens = random_tokens(100, config.vocab, 3);
      const Rows expected = prompt_rows(ref(), *checkpoint, tokens, 100);
      const Rows got = prompt_rows(cuda(), *checkpoint, tokens, chunk, options);
      const double mean = mean_distance(got, expected);
      RecordProperty("mean", std::to_string(mean));
      EXPECT_LT(mean, 0.05) << "chunk " << chunk << ", H " << config.hidden;
      if (kernels::cuda_tensor_cores(config.expert_format)) {
        EXPECT_NE(got, prompt_rows(cuda(), *checkpoint, tokens, chunk)) << "another path";
      }
    }
  }
}

// The card draws; ref draws all on the host.
TEST_F(CudaBackend, DrawsAreTheReferences) {
  const auto checkpoint = make_micro_checkpoint(micro_config(), 3);
  const auto prompt = random_tokens(9, 384, 4);
  std::vector<SamplingParams> kinds(8);
  kinds[0].temperature = 0.0F;
  kinds[1].temperature = 1.0F;
  kinds[2].temperature = 5.0F;
  kinds[3].top_k = 30;
  kinds[3].top_p = 0.8F;
  kinds[3].min_p = 0.05F;
  kinds[4].temperature = 2.0F;
  kinds[4].ignore_eos = true;
  kinds[4].stop_ids = {7};
  const auto run = [&](const TestBackend& backend, const std::vector<SamplingParams>& asked) {
    StepRunner runner(backend, *checkpoint, small_options(), {1, 33, 383});
    std::vector<TokenId> tokens;
    SlotId slot = 0;
    for (SamplingParams sampling : asked) {
      sampling.seed = 1234 + static_cast<std::uint64_t>(slot);
      runner.builder().admit(slot++, sampling);
    }
    for (SlotId each = 0; each < slot; ++each)
      runner.builder().prefill(each, prompt, Want::kSample);
    for (int step = 0; step < 12; ++step) {
      for (const RowResult& row : runner.run().rows) tokens.push_back(row.token);
      for (SlotId each = 0; each < slot; ++each) runner.builder().decode(each);
    }
    return tokens;
  };
  kinds[7].temperature = 3.0F;
  kinds[7].repetition_penalty = 1.2F;
  kinds[7].frequency_penalty = 0.5F;
  kinds[7].logit_bias = {{3, 5.0F}, {1, 100.0F}};
  // What comes first without it is masked, as a few ids or as changes of logits.
  const TokenId favourite = run(ref(), {kinds[0]}).front();
  for (const std::size_t kind : {5U, 6U}) {
    kinds[kind].temperature = 0.0F;
    kinds[kind].ignore_eos = true;
    kinds[kind].stop_ids = {2, favourite, 9, 11};
  }
  kinds[6].stop_ids.push_back(12);
  const auto tokens = run(ref(), kinds);
  EXPECT_EQ(run(cuda(), kinds), tokens);
  for (std::size_t i = 5; i < tokens.size(); i += kinds.size()) EXPECT_NE(tokens[i], favourite);
}

TEST_F(CudaBackend, StatisticsCountTheExpertsThatWereRead) {
  ModelConfig config = two_layers();
  const auto checkpoint = make_micro_checkpoint(config, 3);
  const auto slab =
      kernels::make_slab_layout(config.hidden, config.intermediate, config.expert_format);
  StepRunner runner(cuda(), *checkpoint);
  runner.builder().admit(0);
  runner.backend().take_stats();
  runner.builder().prefill(0, random_tokens(1, 384, 1), Want::kSample);
  runner.builder().pad(3, 0, 0);
  runner.run();
  for (const auto& stage : runner.backend().take_stats())
    if (stage.name == "experts") {
      EXPECT_EQ(stage.weight_bytes, static_cast<std::int64_t>(slab.bytes) * 4 * 2);
    }
}

TEST_F(CudaBackend, FailedAllocationsNameTheirLine) {
  const auto checkpoint = make_micro_checkpoint(two_layers(), 3);
  for (const std::string line : {"weights.dense", "kv.pool"}) {
    ASSERT_TRUE(fault::arm("alloc." + line + "=oom"));
    try {
      StepRunner runner(cuda(), *checkpoint);
      ADD_FAILURE() << line << " was allocated";
    } catch (const MemoryError& error) {
      EXPECT_NE(std::string(error.what()).find("card memory for " + line), std::string::npos)
          << error.what();
    }
    fault::disarm();
  }
}

TEST_F(CudaBackend, RefusesGroupsOfTooManyHeads) {
  ModelConfig config = two_layers();
  config.num_q_heads = 17;
  config.num_kv_heads = 1;
  EXPECT_THROW(kernels::make_cuda_backend({.config = config, .never_emit = {}}), StartupError);
}

TEST(CudaDevice, SaysWhatIsMissing) {
  const kernels::CudaDevice device = kernels::find_cuda_device();
  if (device.usable) {
    EXPECT_TRUE(device.built_in);
    EXPECT_FALSE(device.name.empty());
    return;
  }
  EXPECT_FALSE(device.problem.empty());
  EXPECT_THROW(kernels::make_cuda_backend({.config = micro_config(), .never_emit = {}}),
               StartupError);
}

}  // namespace
}  // namespace strata::test
