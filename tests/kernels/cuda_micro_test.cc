// Steps of the smallest model on every path of the CUDA backend: few enough threads for
// compute-sanitizer's slowest tools, which tools/gpu/run.sh gives one case a process. Together they
// launch every kernel of a step. Skipped where a path is missing.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/ref/ref_backend.h"
#include "tests/support/micro_model.h"
#include "tests/support/step_runner.h"

namespace strata::test {
namespace {

struct MicroCase {
  CudaPath path;
  std::int32_t rows = 1;  // of a step
  bool int8 = false;
  bool bf16_experts = false;
};

void PrintTo(const MicroCase& each, std::ostream* out) { *out << each.path.name; }

std::vector<MicroCase> micro_cases() {
  std::vector<MicroCase> list;
  for (const CudaPath& path : cuda_paths()) {
    // The row counts at which products, norms and attention change their kernels.
    for (const std::int32_t rows : {1, 2, 4, 8, 9, 70})
      for (const bool int8 : {false, true}) list.push_back({path, rows, int8});
    for (const std::int32_t rows : {1, 9}) list.push_back({path, rows, false, true});
  }
  return list;
}

std::vector<MicroCase> draw_cases() {
  std::vector<MicroCase> list;
  for (const CudaPath& path : cuda_paths())
    for (const std::int32_t rows : {1, 3, 8}) list.push_back({path, rows});
  return list;
}

std::string case_name(const testing::TestParamInfo<MicroCase>& info) {
  const MicroCase& each = info.param;
  return each.path.name + "_rows" + std::to_string(each.rows) + (each.int8 ? "_int8" : "") +
         (each.bf16_experts ? "_bf16experts" : "");
}

ModelConfig smallest(const MicroCase& each) {
  ModelConfig config = micro_config();
  config.num_layers = 2;
  config.windowed = {true, false};
  config.hidden = 64;
  config.intermediate = 32;
  config.num_q_heads = 4;
  config.num_kv_heads = 2;
  config.num_experts = 4;
  config.experts_per_token = 2;
  config.vocab = 40;
  if (each.bf16_experts) config.expert_format = ExpertFormat::kBf16;
  return config;
}

class CudaMicro : public testing::TestWithParam<MicroCase> {
 protected:
  void SetUp() override {
    if (const std::string missing = GetParam().path.missing(); !missing.empty())
      GTEST_SKIP() << missing;
  }
};

TEST_P(CudaMicro, StepsAreCloseToTheReference) {
  const MicroCase& each = GetParam();
  const ModelConfig config = smallest(each);
  const auto checkpoint = make_micro_checkpoint(config, 5);
  kernels::BackendOptions options = small_options();
  options.kv_dtype = each.path.tensor_cores ? KvDtype::kBf16 : KvDtype::kF32;
  options.record_graphs = true;
  // The steps of one shape are a direct, a recorded and replayed ones.
  const auto rows = static_cast<std::size_t>(each.rows);
  const auto tokens = random_tokens(std::clamp<std::size_t>(3 * rows, 9, 80), config.vocab, 3);
  TestBackend reference;
  reference.make = [](kernels::BackendContext context) -> std::shared_ptr<kernels::Backend> {
    return kernels::make_ref_backend(std::move(context));
  };
  const TestBackend cuda = cuda_backend(
      each.path, each.int8 ? kernels::WeightFormat::kI8g32 : kernels::WeightFormat::kBf16);
  const auto run = [&](const TestBackend& backend) {
    StepRunner runner(backend, *checkpoint, options);
    runner.builder().admit(0);
    return runner.logprobs(0, tokens, rows);
  };
  const auto expected = run(reference);
  const auto got = run(cuda);
  double total = 0.0;
  for (std::size_t t = 0; t < tokens.size(); ++t)
    for (std::size_t id = 0; id < got[t].size(); ++id)
      total += std::abs(static_cast<double>(got[t][id]) - static_cast<double>(expected[t][id]));
  const double mean = total / static_cast<double>(tokens.size() * got[0].size());
  std::printf("mean distance %.5f\n", mean);
  EXPECT_LT(mean, each.int8 ? 0.15 : (each.path.tensor_cores ? 0.1 : 2e-3));
}

class CudaMicroDraws : public CudaMicro {};

TEST_P(CudaMicroDraws, TokensAreDrawn) {
  const MicroCase& each = GetParam();
  const auto checkpoint = make_micro_checkpoint(smallest(each), 5);
  kernels::BackendOptions options = small_options();
  options.kv_dtype = each.path.tensor_cores ? KvDtype::kBf16 : KvDtype::kF32;
  options.record_graphs = true;
  StepRunner runner(cuda_backend(each.path), *checkpoint, options, {1, 33});
  for (SlotId slot = 0; slot < each.rows; ++slot) {
    SamplingParams sampling;
    sampling.temperature = slot % 2 == 0 ? 0.0F : 1.0F;
    sampling.ignore_eos = true;
    sampling.stop_ids = {2};
    runner.builder().admit(slot, sampling);
    runner.builder().prefill(slot, random_tokens(3, 40, static_cast<std::uint64_t>(slot)),
                             Want::kSample);
  }
  for (int step = 0; step < 4; ++step) {
    const StepResult result = runner.run();
    ASSERT_EQ(result.rows.size(), static_cast<std::size_t>(each.rows));
    for (const RowResult& row : result.rows) {
      EXPECT_TRUE(row.token >= 0 && row.token < 40) << row.token;
      for (const TokenId never : {1, 2, 33}) EXPECT_NE(row.token, never);
    }
    for (SlotId slot = 0; slot < each.rows; ++slot) runner.builder().decode(slot);
  }
}

INSTANTIATE_TEST_SUITE_P(Paths, CudaMicro, testing::ValuesIn(micro_cases()), case_name);
INSTANTIATE_TEST_SUITE_P(Paths, CudaMicroDraws, testing::ValuesIn(draw_cases()), case_name);

}  // namespace
}  // namespace strata::test
