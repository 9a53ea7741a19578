// Products on tensor cores at the shapes of a layer, stage by stage against the card's float32
// path: every size of tile, edges of rows and of K, skewed routing. Skipped where there is no
// usable card.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/stage_tester.h"

namespace strata::test {
namespace {

constexpr std::int32_t kMostRows = 256;

class CudaTensorCores : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_tensor_path() == nullptr) GTEST_SKIP() << cuda_path("generic80").missing();
  }
};

constexpr auto kBf16 = kernels::WeightFormat::kBf16;
constexpr auto kInt8 = kernels::WeightFormat::kI8g32;

TestBackend cuda(kernels::WeightFormat dense = kBf16) {
  TestBackend backend;
  backend.name = "cuda";
  backend.attn_index = [](int i) { return i; };
  backend.make = [dense](kernels::BackendContext context) -> std::shared_ptr<kernels::Backend> {
    context.dense = dense;
    return kernels::make_cuda_backend(std::move(context));
  };
  return backend;
}

kernels::BackendOptions options(bool tensor_cores) {
  kernels::BackendOptions options = small_options();
  options.max_rows = kMostRows;
  options.tensor_cores = tensor_cores;
  return options;
}

ModelConfig one_layer(std::int32_t hidden, std::int32_t intermediate, std::int32_t experts) {
  ModelConfig config = micro_config();
  config.num_layers = 1;
  config.windowed = {false};
  config.hidden = hidden;
  config.intermediate = intermediate;
  config.num_experts = experts;
  return config;
}

// A layer of the 20b, with fewer experts where those of more would be the same work.
ModelConfig layer_of_20b(std::int32_t experts = 8) {
  ModelConfig config = one_layer(2880, 2880, experts);
  config.experts_per_token = 4;
  config.num_q_heads = 64;
  config.num_kv_heads = 8;
  config.head_dim = 64;
  return config;
}

// What the stages of a layer write for `rows` rows of a prompt.
struct Layer {
  Floats q, attn, delta_attn, x, delta_moe;
};

Layer run_layer(StageTester& tester, std::int32_t rows) {
  const ModelConfig& config = tester.config();
  const kernels::Activations& act = tester.act();
  const auto count = [&](std::int32_t width) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(width);
  };
  // Row i holds the same values however many rows there are.
  const Floats x = random_floats(count(config.hidden), 31, 2.0);
  const Floats attn = random_floats(count(config.q_dim()), 32);
  Layer out;
  tester.add(0, 0, rows);
  tester.begin();
  tester.write(act.x, x);
  tester.backend().attn_qkv(tester.shape(), 0, tester.layer(0), act.x, {}, act.q);
  out.q = tester.read(act.q, count(config.q_dim()));
  tester.backend().attend(tester.shape(), 0, tester.layer(0), act.q, act.attn);
  out.attn = tester.read(act.attn, count(config.q_dim()));
  tester.write(act.attn, attn);
  tester.backend().attn_out(tester.shape(), 0, tester.layer(0), act.attn, act.delta_attn);
  out.delta_attn = tester.read(act.delta_attn, count(config.hidden));
  tester.write(act.delta_attn, random_floats(count(config.hidden), 33));
  tester.backend().route(tester.shape(), 0, tester.layer(0), act.x, {act.delta_attn, {}});
  out.x = tester.read(act.x, count(config.hidden));
  tester.backend().cut(kernels::CutPoint::kAfterRoute, 0);
  tester.backend().experts(tester.shape(), 0, act.delta_moe);
  out.delta_moe = tester.read(act.delta_moe, count(config.hidden));
  tester.end();
  return out;
}

// Inputs are rounded to bf16, so the error of a value is a small share of all values' size; a value
// in the wrong place is off by about that size.
void expect_near(const Floats& got, const Floats& wanted, double share, const std::string& what) {
  ASSERT_EQ(got.size(), wanted.size());
  double errors = 0.0;
  double squares = 0.0;
  double worst = 0.0;
  std::size_t at = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    double error = std::abs(static_cast<double>(got[i]) - static_cast<double>(wanted[i]));
    if (std::isnan(error)) error = std::numeric_limits<double>::infinity();
    errors += error * error;
    squares += static_cast<double>(wanted[i]) * static_cast<double>(wanted[i]);
    if (error > worst) {
      worst = error;
      at = i;
    }
  }
  const double size = std::sqrt(squares / static_cast<double>(got.size()));
  const double mean = std::sqrt(errors / static_cast<double>(got.size()));
  std::printf("%s: error %.2e, worst %.2e of the size %.3g\n", what.c_str(), mean / size,
              worst / size, size);
  EXPECT_LT(mean, share * size) << what;
  EXPECT_LT(worst, 16.0 * share * size)
      << what << ": value " << at << " is " << got[at] << ", not " << wanted[at];
}

void compare(const ModelConfig& config, std::initializer_list<std::int32_t> rows, int favoured,
             kernels::WeightFormat dense = kBf16) {
  auto checkpoint = [&] {
    auto made = make_micro_checkpoint(config, 17);
    if (favoured > 0) {
      Floats bias(static_cast<std::size_t>(config.num_experts), 0.0F);
      std::fill_n(bias.begin(), favoured, 256.0F);
      set_tensor(*made, "model.layers.0.mlp.router.bias", bias);
    }
    return made;
  };
  for (const std::int32_t count : rows) {
    StageTester float32(cuda(dense), checkpoint(), options(false));
    StageTester tensor(cuda(dense), checkpoint(), options(true));
    const Layer wanted = run_layer(float32, count);
    const Layer got = run_layer(tensor, count);
    const std::string where =
        std::to_string(count) + " rows, H " + std::to_string(config.hidden) + ", ";
    expect_near(got.q, wanted.q, 4e-3, where + "q");
    expect_near(got.attn, wanted.attn, 5e-2, where + "attn");
    expect_near(got.delta_attn, wanted.delta_attn, 4e-3, where + "attn_out");
    EXPECT_EQ(got.x, wanted.x) << where;
    expect_near(got.delta_moe, wanted.delta_moe, 2e-2, where + "experts");
    EXPECT_TRUE(got.q != wanted.q) << "both took one path";
  }
}

TEST_F(CudaTensorCores, LayerOfThe20b) { compare(layer_of_20b(), {9, 17, 33, 65, 200}, 0); }

// Weights streamed through, in one, some and all columns of a tile; a step of one row has kernels
// of its own. What memcheck sees of a layer.
TEST_F(CudaTensorCores, LayerOfThe20bForFewRows) { compare(layer_of_20b(), {1, 2, 3, 8}, 0); }

TEST_F(CudaTensorCores, Int8LayerOfThe20b) { compare(layer_of_20b(), {1, 2, 8, 20}, 0, kInt8); }

TEST_F(CudaTensorCores, OneRowChoosesAmongMoreExpertsThanLanes) {
  compare(layer_of_20b(36), {1}, 0);
  compare(layer_of_20b(36), {1}, 34);  // of equal logits
}

TEST_F(CudaTensorCores, SkewedRouting) { compare(layer_of_20b(), {12, 40, 256}, 4); }

TEST_F(CudaTensorCores, SmallShapes) {
  for (const std::int32_t head_dim : {32, 64, 128}) {
    ModelConfig config = one_layer(96, 32, 5);
    config.head_dim = head_dim;
    config.num_q_heads = 6;
    config.num_kv_heads = 3;
    config.experts_per_token = 2;
    compare(config, {9, 16, 50, 128, 150}, 0);
  }
  compare(one_layer(224, 160, 8), {10, 64, 130}, 0);
  if (!kernels::cuda_tensor_cores(ExpertFormat::kBf16)) return;
  ModelConfig bf16 = one_layer(160, 96, 4);
  bf16.expert_format = ExpertFormat::kBf16;
  compare(bf16, {9, 40, 200}, 0);
}

// Of tiles (K that no batched kernel takes), and of batched decodes.
TEST_F(CudaTensorCores, ExpertsDoNotDependOnTheOtherRows) {
  const auto check = [](const ModelConfig& config, std::int32_t few_rows, std::int32_t many_rows) {
    StageTester few(cuda(), make_micro_checkpoint(config, 17), options(true));
    StageTester many(cuda(), make_micro_checkpoint(config, 17), options(true));
    const Floats of_few = run_layer(few, few_rows).delta_moe;
    Floats of_many = run_layer(many, many_rows).delta_moe;
    of_many.resize(of_few.size());
    EXPECT_EQ(of_many, of_few);
  };
  check(one_layer(416, 352, 8), 9, 256);
  if (!cuda_path("sm90").missing().empty()) return;
  check(one_layer(448, 320, 8), 3, 64);
  check(layer_of_20b(), 5, 33);
}

// Inputs and weights beyond the largest fp16: compute capability 7.5 takes that instead, integer
// products and bfloat16 take them as they are.
TEST_F(CudaTensorCores, LargeNumbers) {
  constexpr float kLarge = 0x1p20F;
  constexpr float kMostFp16 = 0x1p16F;  // nearly
  const bool fp16 = kernels::cuda_code_capability() < 80;
  const ModelConfig config = one_layer(128, 64, 4);
  const auto hidden = static_cast<std::size_t>(config.hidden);
  const auto q_dim = static_cast<std::size_t>(config.q_dim());
  // Every 16th norm weight and input of attn_out, and some weights of its first row.
  const auto mixed = [](std::size_t count, float large) {
    Floats values(count, 1.0F);
    for (std::size_t i = 0; i < count; i += 16) values[i] = large;
    return values;
  };
  const auto run = [&](const kernels::WeightFormat dense, bool tensor_cores, std::int32_t rows,
                       float large) {
    auto checkpoint = make_micro_checkpoint(config, 17);
    set_tensor(*checkpoint, "model.layers.0.input_layernorm.weight", mixed(hidden, large));
    if (dense == kBf16) {
      Floats weights = random_floats(hidden * q_dim, 5, 64.0);
      for (float& weight : weights) weight = std::rint(weight) / 64.0F;
      for (std::size_t i = 3; i < q_dim; i += 16) weights[i] = large;
      set_tensor(*checkpoint, "model.layers.0.self_attn.o_proj.weight", weights);
    }
    StageTester tester(cuda(dense), std::move(checkpoint), options(tensor_cores));
    const kernels::Activations& act = tester.act();
    const auto count = static_cast<std::size_t>(rows);
    tester.add(0, 0, rows);
    tester.begin();
    tester.write(act.x, Floats(count * hidden, 1.0F));
    tester.backend().attn_qkv(tester.shape(), 0, tester.layer(0), act.x, {}, act.q);
    const Floats q = tester.read(act.q, count * q_dim);
    tester.write(act.attn, mixed(count * q_dim, large));
    tester.backend().attn_out(tester.shape(), 0, tester.layer(0), act.attn, act.delta_attn);
    const Floats out = tester.read(act.delta_attn, count * hidden);
    tester.end();
    return std::pair{q, out};
  };
  for (const auto dense : {kBf16, kInt8}) {
    for (const std::int32_t rows : {1, 4, 40}) {
      const bool integers = dense == kInt8 && rows <= 2;
      const auto got = run(dense, true, rows, kLarge);
      const auto wanted = run(dense, false, rows, fp16 && !integers ? kMostFp16 : kLarge);
      const std::string where =
          std::to_string(rows) + (dense == kInt8 ? " rows, int8, " : " rows, ");
      expect_near(got.first, wanted.first, 1e-2, where + "q");
      expect_near(got.second, wanted.second, 1e-2, where + "attn_out");
    }
  }
}

TEST_F(CudaTensorCores, RepeatedStepsAreEqual) {
  const ModelConfig config = one_layer(416, 352, 8);
  for (const std::int32_t rows : {20, 100}) {
    StageTester first(cuda(), make_micro_checkpoint(config, 17), options(true));
    StageTester second(cuda(), make_micro_checkpoint(config, 17), options(true));
    const Layer one = run_layer(first, rows);
    const Layer other = run_layer(second, rows);
    EXPECT_EQ(one.q, other.q);
    EXPECT_EQ(one.delta_attn, other.delta_attn);
    EXPECT_EQ(one.delta_moe, other.delta_moe);
  }
}

}  // namespace
}  // namespace strata::test
