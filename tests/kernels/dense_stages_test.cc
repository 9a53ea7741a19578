// embed, attn_qkv (queries), attn_out and head against double computations.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/stage_tester.h"

namespace strata::test {
namespace {

ModelConfig shape_of(std::int32_t hidden, std::int32_t q_heads, std::int32_t kv_heads) {
  ModelConfig config = micro_config();
  config.num_layers = 1;
  config.windowed = {true};
  config.hidden = hidden;
  config.intermediate = 32;
  config.num_q_heads = q_heads;
  config.num_kv_heads = kv_heads;
  config.num_experts = 2;
  config.experts_per_token = 1;
  config.vocab = 75;
  return config;
}

// K tails of 32 and 96, head counts with and without sharing.
std::vector<ModelConfig> shapes() {
  return {shape_of(32, 2, 2), shape_of(64, 16, 2), shape_of(96, 6, 3), shape_of(192, 4, 1)};
}

constexpr std::int32_t kRowCounts[] = {1, 7, 33};

class DenseStages : public StageTest {
 protected:
  double error(int k) const { return GetParam().dense_error(k); }
};

TEST_P(DenseStages, EmbedCopiesRows) {
  for (const ModelConfig& config : shapes()) {
    StageTester tester(GetParam(), config);
    const auto hidden = static_cast<std::size_t>(config.hidden);
    tester.add(0, 0, 9);
    tester.begin();
    tester.backend().embed(tester.shape(), tester.weights().embedding, tester.act().x);
    const Floats x = tester.read(tester.act().x, 9 * hidden);
    tester.end();
    const Doubles table = tester.tensor("model.embed_tokens.weight");
    for (std::size_t i = 0; i < 9 * hidden; ++i) ASSERT_EQ(x[i], static_cast<float>(table[i]));
  }
}

struct Rotated {
  Doubles value;
  Doubles magnitude;
};

// Rotary embedding of one head with float32 angles.
void rotate(Rotated& head, std::size_t at, std::int32_t position, const RopeTable& rope) {
  const std::size_t half = rope.inv_freq.size();
  for (std::size_t i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * rope.inv_freq[i];
    const double cosine = std::cos(static_cast<double>(angle)) * rope.concentration;
    const double sine = std::sin(static_cast<double>(angle)) * rope.concentration;
    double& a = head.value[at + i];
    double& b = head.value[at + i + half];
    const double first = a;
    a = first * cosine - b * sine;
    b = b * cosine + first * sine;
    const double both = head.magnitude[at + i] + head.magnitude[at + i + half];
    head.magnitude[at + i] = head.magnitude[at + i + half] = both * rope.concentration;
  }
}

Rotated expected_queries(const StageTester& tester, const Doubles& x, std::int32_t position) {
  const ModelConfig& config = tester.config();
  const std::string prefix = "model.layers.0.";
  const Doubles normed =
      rms_norm(x, tester.tensor(prefix + "input_layernorm.weight"), config.rms_eps);
  const Doubles weight = tester.tensor(prefix + "self_attn.q_proj.weight");
  const Doubles bias = tester.tensor(prefix + "self_attn.q_proj.bias");
  Rotated q;
  for (std::size_t i = 0; i < bias.size(); ++i) {
    const Bounded value = dot(weight, i, normed, bias[i]);
    q.value.push_back(value.value);
    q.magnitude.push_back(value.magnitude);
  }
  const RopeTable rope = make_rope_table(config.rope, config.head_dim);
  for (std::size_t at = 0; at < q.value.size(); at += static_cast<std::size_t>(config.head_dim))
    rotate(q, at, position, rope);
  return q;
}

TEST_P(DenseStages, QueriesAreRotatedProjectionsOfTheNormedSum) {
  for (const ModelConfig& config : shapes()) {
    for (const std::int32_t rows : kRowCounts) {
      for (const std::int32_t position : {0, 5, 4093, 100000}) {
        StageTester tester(GetParam(), config);
        const auto hidden = static_cast<std::size_t>(config.hidden);
        const auto q_dim = static_cast<std::size_t>(config.q_dim());
        const std::size_t count = static_cast<std::size_t>(rows) * hidden;
        tester.add(0, position, rows);
        tester.begin();
        const Floats x = random_floats(count, 1, 3.0);
        const Floats a = random_floats(count, 2);
        const Floats b = random_floats(count, 3);
        tester.write(tester.act().x, x);
        tester.write(tester.act().delta_moe, a);
        tester.write(tester.act().delta_attn, b);  // any second buffer serves as the host's delta
        tester.backend().attn_qkv(tester.shape(), 0, tester.layer(0), tester.act().x,
                                  {tester.act().delta_moe, tester.act().delta_attn},
                                  tester.act().q);
        const Floats sum = add_rounded(x, a, b);
        ASSERT_EQ(tester.read(tester.act().x, count), sum) << "x += a, then b";
        const Floats q = tester.read(tester.act().q, static_cast<std::size_t>(rows) * q_dim);
        tester.end();
        for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
          const Rotated expected = expected_queries(tester, row_of(sum, row, hidden),
                                                    position + static_cast<std::int32_t>(row));
          for (std::size_t i = 0; i < q_dim; ++i)
            ASSERT_TRUE(within(static_cast<double>(q[row * q_dim + i]), expected.value[i],
                               3.0 * error(config.hidden) * expected.magnitude[i]))
                << "H " << config.hidden << ", position " << position << ", row " << row;
        }
      }
    }
  }
}

TEST_P(DenseStages, NormOfTinyRowsIsGovernedByEps) {
  StageTester tester(GetParam(), shape_of(64, 2, 1));
  tester.add(0, 0, 2);
  tester.begin();
  Floats x = random_floats(64, 4, 1e-4);
  x.resize(128, 0.0F);  // the second row is zero
  tester.write(tester.act().x, x);
  tester.backend().attn_qkv(tester.shape(), 0, tester.layer(0), tester.act().x, {}, tester.act().q);
  const Floats q = tester.read(tester.act().q, 2 * 128);
  tester.end();
  for (std::size_t row = 0; row < 2; ++row) {
    const Rotated expected =
        expected_queries(tester, row_of(x, row, 64), static_cast<std::int32_t>(row));
    for (std::size_t i = 0; i < 128; ++i)
      ASSERT_TRUE(within(static_cast<double>(q[row * 128 + i]), expected.value[i],
                         3.0 * error(64) * expected.magnitude[i]));
  }
}

TEST_P(DenseStages, AttnOutOverwritesItsDelta) {
  for (const ModelConfig& config : shapes()) {
    for (const std::int32_t rows : kRowCounts) {
      StageTester tester(GetParam(), config);
      const auto hidden = static_cast<std::size_t>(config.hidden);
      const auto q_dim = static_cast<std::size_t>(config.q_dim());
      tester.add(0, 0, rows);
      tester.begin();
      const Floats attn = random_floats(static_cast<std::size_t>(rows) * q_dim, 5);
      tester.write_attn(attn);
      tester.backend().attn_out(tester.shape(), 0, tester.layer(0), tester.act().attn,
                                tester.act().delta_attn);
      const Floats delta =
          tester.read(tester.act().delta_attn, static_cast<std::size_t>(rows) * hidden);
      tester.end();
      const Doubles weight = tester.tensor("model.layers.0.self_attn.o_proj.weight");
      const Doubles bias = tester.tensor("model.layers.0.self_attn.o_proj.bias");
      for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row)
        for (std::size_t i = 0; i < hidden; ++i) {
          const Bounded expected = dot(weight, i, row_of(attn, row, q_dim), bias[i]);
          ASSERT_TRUE(within(static_cast<double>(delta[row * hidden + i]), expected.value,
                             error(config.q_dim()) * expected.magnitude))
              << "q_dim " << config.q_dim() << ", row " << row;
        }
    }
  }
}

TEST_P(DenseStages, HeadGivesLogprobsOfTheNormedSumAndLeavesX) {
  for (const ModelConfig& config : shapes()) {
    for (const std::int32_t rows : kRowCounts) {
      StageTester tester(GetParam(), config);
      const auto hidden = static_cast<std::size_t>(config.hidden);
      const std::size_t count = static_cast<std::size_t>(rows) * hidden;
      tester.add(0, 0, rows, Want::kAllLogprobs, config.vocab);
      tester.begin();
      const Floats x = random_floats(count, 6, 2.0);
      const Floats a = random_floats(count, 7);
      tester.write(tester.act().x, x);
      tester.write(tester.act().delta_moe, a);
      tester.backend().head(tester.shape(), tester.weights(), tester.act().x,
                            {tester.act().delta_moe, {}}, 0, rows);
      ASSERT_EQ(tester.read(tester.act().x, count), x);
      tester.backend().sample(tester.shape(), 0, rows);
      const StepResult result = tester.end();
      ASSERT_EQ(result.rows.size(), static_cast<std::size_t>(rows));

      const Floats sum = add_rounded(x, a, {});
      const Doubles weight = tester.tensor("lm_head.weight");
      for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
        const Doubles normed =
            rms_norm(row_of(sum, row, hidden), tester.tensor("model.norm.weight"), config.rms_eps);
        double total = 0.0;
        double worst = 0.0;
        std::vector<Bounded> logits;
        for (std::size_t v = 0; v < static_cast<std::size_t>(config.vocab); ++v) {
          logits.push_back(dot(weight, v, normed));
          total += std::exp(logits.back().value);
          worst = std::max(worst, logits.back().magnitude);
        }
        const Floats got = by_id(result.rows[row]);
        for (std::size_t v = 0; v < logits.size(); ++v)
          ASSERT_TRUE(within(static_cast<double>(got[v]), logits[v].value - std::log(total),
                             6.0 * error(config.hidden) * worst))
              << "H " << config.hidden << ", row " << row;
      }
    }
  }
}

// The residual stream of two rows after one layer, with `padding` rows of NaN behind them.
Floats one_layer(const TestBackend& description, std::int32_t padding) {
  StageTester tester(description, shape_of(64, 4, 2));
  tester.add(0, 0, 2);
  tester.builder().pad(padding, padding, 0);
  tester.begin();
  kernels::Backend& backend = tester.backend();
  const kernels::Activations& act = tester.act();
  backend.embed(tester.shape(), tester.weights().embedding, act.x);
  backend.attn_qkv(tester.shape(), 0, tester.layer(0), act.x, {}, act.q);
  backend.attend(tester.shape(), 0, tester.layer(0), act.q, act.attn);
  backend.attn_out(tester.shape(), 0, tester.layer(0), act.attn, act.delta_attn);
  backend.route(tester.shape(), 0, tester.layer(0), act.x, {act.delta_attn, {}});
  backend.experts(tester.shape(), 0, act.delta_moe);
  Floats result = tester.read(act.x, 2 * 64);
  const Floats moe = tester.read(act.delta_moe, 2 * 64);
  result.insert(result.end(), moe.begin(), moe.end());
  tester.end();
  return result;
}

TEST_P(DenseStages, PoisonedPaddingRowsDoNotReachLiveOnes) {
  const Floats padded = one_layer(GetParam(), 9);
  const Floats alone = one_layer(GetParam(), 0);
  if (GetParam().exact) {
    EXPECT_EQ(padded, alone);
    return;
  }
  for (std::size_t i = 0; i < alone.size(); ++i) EXPECT_NEAR(padded[i], alone[i], 0.1);
}

INSTANTIATE_TEST_SUITE_P(Backends, DenseStages, testing::ValuesIn(stage_backends()),
                         [](const auto& each) { return backend_test_name(each.param); });

}  // namespace
}  // namespace strata::test
