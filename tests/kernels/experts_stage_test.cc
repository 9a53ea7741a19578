// route and experts at their common boundary, against double computations.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/kernels/stage_tester.h"

namespace strata::test {
namespace {

ModelConfig shape_of(std::int32_t hidden, std::int32_t inner, std::int32_t experts,
                     std::int32_t top_k) {
  ModelConfig config = micro_config();
  config.num_layers = 1;
  config.windowed = {true};
  config.num_q_heads = 2;
  config.num_kv_heads = 1;
  config.hidden = hidden;
  config.intermediate = inner;
  config.num_experts = experts;
  config.experts_per_token = top_k;
  config.vocab = 16;
  return config;
}

const std::string kMlp = "model.layers.0.mlp.";

struct Chosen {
  std::size_t expert = 0;
  double weight = 0.0;
};

// The router in double. `gap` becomes the distance to the best expert left out, `error` the
// largest magnitude of a logit.
std::vector<Chosen> choose(const StageTester& tester, const Doubles& normed, double& gap,
                           double& magnitude) {
  const Doubles weight = tester.tensor(kMlp + "router.weight");
  const Doubles bias = tester.tensor(kMlp + "router.bias");
  Doubles logits;
  magnitude = 0.0;
  for (std::size_t e = 0; e < bias.size(); ++e) {
    const Bounded logit = dot(weight, e, normed, bias[e]);
    logits.push_back(logit.value);
    magnitude = std::max(magnitude, logit.magnitude);
  }
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  const auto k = static_cast<std::size_t>(tester.config().experts_per_token);
  gap = k < order.size() ? logits[order[k - 1]] - logits[order[k]] : 1e9;
  double total = 0.0;
  for (std::size_t i = 0; i < k; ++i) total += std::exp(logits[order[i]]);
  std::vector<Chosen> chosen;
  for (std::size_t i = 0; i < k; ++i)
    chosen.push_back({order[i], std::exp(logits[order[i]]) / total});
  return chosen;
}

// The experts' weights [E * rows, K] in double.
struct ExpertWeights {
  Doubles gate_up, gate_up_bias, down, down_bias;
};

// [E, K, rows] as bf16 experts lie in the file -> [E * rows, K].
Doubles turned(const Doubles& values, std::size_t k, std::size_t rows) {
  Doubles out(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t expert = i / (k * rows);
    out[(expert * rows + i % rows) * k + i / rows % k] = values[i];
  }
  return out;
}

ExpertWeights expert_weights(const StageTester& tester) {
  const auto hidden = static_cast<std::size_t>(tester.config().hidden);
  const auto inner = static_cast<std::size_t>(tester.config().intermediate);
  const std::string prefix = kMlp + "experts.";
  ExpertWeights weights;
  weights.gate_up_bias = tester.tensor(prefix + "gate_up_proj_bias");
  weights.down_bias = tester.tensor(prefix + "down_proj_bias");
  if (tester.config().expert_format == ExpertFormat::kMxfp4) {
    weights.gate_up = tester.mxfp4(prefix + "gate_up_proj");
    weights.down = tester.mxfp4(prefix + "down_proj");
  } else {
    weights.gate_up = turned(tester.tensor(prefix + "gate_up_proj"), hidden, 2 * inner);
    weights.down = turned(tester.tensor(prefix + "down_proj"), inner, hidden);
  }
  return weights;
}

struct ExpertOutput {
  std::vector<Bounded> out;  // magnitude: the error bound, already in units of the value
  bool clamped = false;
};

// One expert on one row, with the bound that errors of `unit` in each dot product give.
ExpertOutput run_expert(const ModelConfig& config, const ExpertWeights& w, std::size_t expert,
                        const Doubles& x, double unit) {
  const auto hidden = static_cast<std::size_t>(config.hidden);
  const auto inner = static_cast<std::size_t>(config.intermediate);
  const double limit = config.swiglu_limit;
  ExpertOutput result;
  std::vector<Bounded> between;
  for (std::size_t i = 0; i < inner; ++i) {
    const std::size_t row = expert * 2 * inner + 2 * i;
    const Bounded gate = dot(w.gate_up, row, x, w.gate_up_bias[row]);
    const Bounded up = dot(w.gate_up, row + 1, x, w.gate_up_bias[row + 1]);
    const double g = std::min(gate.value, limit);
    const double u = std::clamp(up.value, -limit, limit);
    result.clamped = result.clamped || gate.value > limit || std::abs(up.value) > limit;
    const double glu = g / (1.0 + std::exp(-config.swiglu_alpha * g));
    const double value = glu * (u + 1.0);
    // |d glu / d gate| < 1.2.
    const double error = unit * (1.2 * gate.magnitude * std::abs(u + 1.0) +
                                 up.magnitude * std::abs(glu) + 4.0 * std::abs(value));
    between.push_back({value, error});
  }
  for (std::size_t h = 0; h < hidden; ++h) {
    const std::size_t row = expert * hidden + h;
    Bounded out{w.down_bias[row], unit * std::abs(w.down_bias[row])};
    for (std::size_t i = 0; i < inner; ++i) {
      const double weight = w.down[row * inner + i];
      out.value += weight * between[i].value;
      out.magnitude +=
          std::abs(weight) * (between[i].magnitude + unit * std::abs(between[i].value));
    }
    result.out.push_back(out);
  }
  return result;
}

class ExpertsStage : public StageTest {
 protected:
  double error(int k) const { return GetParam().expert_error(k); }

  // Runs route and experts on `x` (+ delta `a`) and returns the delta.
  static Floats run(StageTester& tester, const Floats& x, const Floats& a) {
    const auto hidden = static_cast<std::size_t>(tester.config().hidden);
    const kernels::Activations& act = tester.act();
    tester.add(0, 0, static_cast<std::int32_t>(x.size() / hidden));
    tester.begin();
    tester.write(act.x, x);
    tester.write(act.delta_attn, a);
    tester.backend().route(tester.shape(), 0, tester.layer(0), act.x, {act.delta_attn, {}});
    tester.backend().cut(kernels::CutPoint::kAfterRoute, 0);
    tester.backend().experts(tester.shape(), 0, act.delta_moe);
    EXPECT_EQ(tester.read(act.x, x.size()), add_rounded(x, a, {}));
    Floats delta = tester.read(act.delta_moe, x.size());
    tester.end();
    return delta;
  }

  void check(StageTester& tester, std::size_t rows) {
    const ModelConfig& config = tester.config();
    const auto hidden = static_cast<std::size_t>(config.hidden);
    const Floats x = random_floats(rows * hidden, 31, 2.0);
    const Floats a = random_floats(rows * hidden, 32);
    const Floats delta = run(tester, x, a);
    const Floats sum = add_rounded(x, a, {});
    const ExpertWeights weights = expert_weights(tester);
    const Doubles norm = tester.tensor("model.layers.0.post_attention_layernorm.weight");
    const double unit = 2.0 * error(std::max(config.hidden, config.intermediate));
    std::size_t compared = 0;
    for (std::size_t row = 0; row < rows; ++row) {
      const Doubles normed = rms_norm(row_of(sum, row, hidden), norm, config.rms_eps);
      double gap = 0.0;
      double magnitude = 0.0;
      const auto chosen = choose(tester, normed, gap, magnitude);
      const double router = 2.0 * GetParam().dot_error(config.hidden);
      if (gap < 4.0 * router * magnitude) continue;  // rounding may decide
      ++compared;
      std::vector<Bounded> wanted(hidden);
      for (const Chosen& each : chosen) {
        const ExpertOutput part = run_expert(config, weights, each.expert, normed, unit);
        clamped_ = clamped_ || part.clamped;
        for (std::size_t h = 0; h < hidden; ++h) {
          wanted[h].value += each.weight * part.out[h].value;
          wanted[h].magnitude +=
              each.weight * (part.out[h].magnitude +
                             (2.0 * router * magnitude + unit) * std::abs(part.out[h].value));
        }
      }
      for (std::size_t h = 0; h < hidden; ++h)
        ASSERT_TRUE(within(static_cast<double>(delta[row * hidden + h]), wanted[h].value,
                           wanted[h].magnitude))
            << "row " << row << " of " << rows << ", H " << hidden;
    }
    EXPECT_GE(compared + 1, rows);
  }

  bool clamped_ = false;
};

TEST_P(ExpertsStage, ShapesAndRowCounts) {
  for (const ModelConfig& config : {shape_of(64, 96, 8, 4), shape_of(96, 32, 5, 2),
                                    shape_of(32, 192, 5, 3), shape_of(192, 64, 1, 1)}) {
    for (const std::size_t rows : {1U, 7U, 33U}) {
      StageTester tester(GetParam(), config);
      check(tester, rows);
    }
  }
  EXPECT_TRUE(clamped_) << "the inputs must reach the SwiGLU limit";
}

TEST_P(ExpertsStage, TopKFromOneToAll) {
  for (const std::int32_t top_k : {1, 2, 3, 4, 8}) {
    StageTester tester(GetParam(), shape_of(64, 32, 8, top_k));
    check(tester, 7);
  }
}

TEST_P(ExpertsStage, Bf16Experts) {
  ModelConfig config = shape_of(64, 96, 5, 2);
  config.expert_format = ExpertFormat::kBf16;
  StageTester tester(GetParam(), config);
  check(tester, 7);
}

// A model whose experts show the routing: their weights are zero and the down bias of expert e is
// 1 at h = e, so delta[h] is the weight of expert h.
std::unique_ptr<MemoryCheckpoint> showing_routes(const ModelConfig& config) {
  auto checkpoint = make_micro_checkpoint(config, 17);
  for (const char* name : {"experts.gate_up_proj_blocks", "experts.down_proj_blocks"}) {
    auto& bytes = checkpoint->bytes(kMlp + name);
    std::fill(bytes.begin(), bytes.end(), std::byte{0});
  }
  const auto experts = static_cast<std::size_t>(config.num_experts);
  const auto hidden = static_cast<std::size_t>(config.hidden);
  const auto inner = static_cast<std::size_t>(config.intermediate);
  set_tensor(*checkpoint, kMlp + "experts.gate_up_proj_bias", Floats(experts * 2 * inner, 0.0F));
  Floats bias(experts * hidden, 0.0F);
  for (std::size_t e = 0; e < experts; ++e) bias[e * hidden + e] = 1.0F;
  set_tensor(*checkpoint, kMlp + "experts.down_proj_bias", bias);
  return checkpoint;
}

TEST_P(ExpertsStage, WeightsAreTheSoftmaxOverTheChosen) {
  const ModelConfig config = shape_of(64, 32, 8, 3);
  auto checkpoint = showing_routes(config);
  // Bias alone decides: the router's weights are zero.
  set_tensor(*checkpoint, kMlp + "router.weight", Floats(8 * 64, 0.0F));
  set_tensor(*checkpoint, kMlp + "router.bias", {0.5F, 3.0F, -1.0F, 2.0F, 0.0F, 2.5F, 1.0F, -4.0F});
  StageTester tester(GetParam(), std::move(checkpoint));
  const Floats delta = run(tester, random_floats(5 * 64, 41), Floats(5 * 64, 0.0F));
  const double total = std::exp(3.0) + std::exp(2.5) + std::exp(2.0);
  for (std::size_t row = 0; row < 5; ++row) {
    Doubles wanted(64, 0.0);
    wanted[1] = std::exp(3.0) / total;
    wanted[5] = std::exp(2.5) / total;
    wanted[3] = std::exp(2.0) / total;
    for (std::size_t h = 0; h < 64; ++h)
      EXPECT_TRUE(within(static_cast<double>(delta[row * 64 + h]), wanted[h], 4.0 * error(8)));
  }
}

TEST_P(ExpertsStage, EqualLogitsGoToTheLowerIds) {
  auto checkpoint = showing_routes(shape_of(64, 32, 8, 3));
  set_tensor(*checkpoint, kMlp + "router.weight", Floats(8 * 64, 0.0F));
  set_tensor(*checkpoint, kMlp + "router.bias", {0.0F, 1.0F, 0.0F, 1.0F, 1.0F, 1.0F, 0.0F, 1.0F});
  StageTester tester(GetParam(), std::move(checkpoint));
  const Floats delta = run(tester, random_floats(64, 41), Floats(64, 0.0F));
  for (std::size_t h = 0; h < 64; ++h)
    EXPECT_TRUE(within(static_cast<double>(delta[h]), h == 1 || h == 3 || h == 4 ? 1.0 / 3.0 : 0.0,
                       4.0 * error(8)))
        << "expert " << h;
}

TEST_P(ExpertsStage, OneExpertTakesAllRows) {
  auto checkpoint = make_micro_checkpoint(shape_of(64, 96, 8, 1), 17);
  Floats bias(8, 0.0F);
  bias[6] = 256.0F;
  set_tensor(*checkpoint, kMlp + "router.bias", bias);
  StageTester tester(GetParam(), std::move(checkpoint));
  check(tester, 33);
}

INSTANTIATE_TEST_SUITE_P(Backends, ExpertsStage, testing::ValuesIn(stage_backends()),
                         [](const auto& each) { return backend_test_name(each.param); });

}  // namespace
}  // namespace strata::test
