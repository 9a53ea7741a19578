// attend, after keys and values were written by attn_qkv, against double computations: windows,
// pages, sinks, long contexts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/bf16.h"
#include "tests/kernels/stage_tester.h"

namespace strata::test {
namespace {

constexpr std::int32_t kHidden = 32;
constexpr std::size_t kDim = 64;

// Layer 0 is windowed, layer 1 full.
ModelConfig config_of(std::int32_t window) {
  ModelConfig config = micro_config();
  config.num_layers = 2;
  config.windowed = {true, false};
  config.hidden = kHidden;
  config.intermediate = 32;
  config.num_q_heads = 6;
  config.num_kv_heads = 2;
  config.num_experts = 1;
  config.experts_per_token = 1;
  config.vocab = 8;
  config.window = window;
  return config;
}

kernels::BackendOptions options_for(std::int32_t rows) {
  kernels::BackendOptions options = small_options();
  options.max_rows = std::max(rows, 16);
  options.num_pages = rows;
  options.max_pages_per_seq = rows;
  return options;
}

struct KeyValue {
  std::vector<Bounded> key;    // [kv_dim], rotated
  std::vector<Bounded> value;  // [kv_dim]
};

// Keys and values of every token of one layer, worked out from the residual stream.
class ExpectedKv {
 public:
  ExpectedKv(const StageTester& tester, LayerId layer)
      : config_(tester.config()), rope_(make_rope_table(config_.rope, config_.head_dim)) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    norm_ = tester.tensor(prefix + "input_layernorm.weight");
    key_weight_ = tester.tensor(prefix + "self_attn.k_proj.weight");
    key_bias_ = tester.tensor(prefix + "self_attn.k_proj.bias");
    value_weight_ = tester.tensor(prefix + "self_attn.v_proj.weight");
    value_bias_ = tester.tensor(prefix + "self_attn.v_proj.bias");
    sinks_ = tester.tensor(prefix + "self_attn.sinks");
  }

  void append(const Doubles& x) {
    const Doubles normed = rms_norm(x, norm_, config_.rms_eps);
    KeyValue token;
    for (std::size_t i = 0; i < key_bias_.size(); ++i) {
      token.key.push_back(dot(key_weight_, i, normed, key_bias_[i]));
      token.value.push_back(dot(value_weight_, i, normed, value_bias_[i]));
    }
    rotate(token.key, static_cast<float>(tokens_.size()));
    tokens_.push_back(std::move(token));
  }

  // One head's output at `position`, with the error that errors of `unit` in dot products cause.
  std::vector<Bounded> attend(const Doubles& q, std::size_t head, std::size_t first,
                              std::size_t position, double unit) const {
    const auto group = static_cast<std::size_t>(config_.q_per_kv());
    const std::size_t at = head / group * kDim;
    const double sink = sinks_[head];
    Doubles scores;
    double best = sink;
    double score_magnitude = 0.0;
    for (std::size_t t = first; t <= position; ++t) {
      Bounded score;
      for (std::size_t i = 0; i < kDim; ++i) {
        score.value += q[head * kDim + i] * tokens_[t].key[at + i].value / 8.0;
        score.magnitude += std::abs(q[head * kDim + i]) * tokens_[t].key[at + i].magnitude / 8.0;
      }
      scores.push_back(score.value);
      best = std::max(best, score.value);
      score_magnitude = std::max(score_magnitude, score.magnitude);
    }
    double total = std::exp(sink - best);
    for (const double score : scores) total += std::exp(score - best);
    score_magnitude += std::exp(sink - best) / total * std::abs(sink);
    std::vector<Bounded> out(kDim);
    for (std::size_t i = 0; i < kDim; ++i) {
      double spread = 0.0;
      for (std::size_t t = first; t <= position; ++t) {
        const double weight = std::exp(scores[t - first] - best) / total;
        out[i].value += weight * tokens_[t].value[at + i].value;
        spread += weight * tokens_[t].value[at + i].magnitude;
      }
      // A score off by d changes weights by a factor of at most exp(2 d); below 1e-30 float32 may
      // underflow.
      out[i].magnitude = unit * spread * (2.0 + 4.0 * score_magnitude) + 1e-30;
    }
    return out;
  }

 private:
  void rotate(std::vector<Bounded>& keys, float position) const {
    for (std::size_t head = 0; head < keys.size(); head += kDim)
      for (std::size_t i = 0; i < kDim / 2; ++i) {
        const float angle = position * rope_.inv_freq[i];
        const double cosine = std::cos(static_cast<double>(angle)) * rope_.concentration;
        const double sine = std::sin(static_cast<double>(angle)) * rope_.concentration;
        Bounded& a = keys[head + i];
        Bounded& b = keys[head + i + kDim / 2];
        const double first = a.value;
        a.value = first * cosine - b.value * sine;
        b.value = b.value * cosine + first * sine;
        a.magnitude = b.magnitude = (a.magnitude + b.magnitude) * rope_.concentration;
      }
  }

  const ModelConfig config_;
  const RopeTable rope_;
  Doubles norm_, key_weight_, key_bias_, value_weight_, value_bias_, sinks_;
  std::vector<KeyValue> tokens_;
};

class AttendStage : public StageTest {
 protected:
  // Fills the KV of both layers with `tokens` random rows in chunks; queries of `amplitude` are
  // put in for the rows of every chunk, and both layers' outputs are checked.
  void check(StageTester& tester, const std::vector<std::int32_t>& chunks, double amplitude) {
    ExpectedKv window(tester, 0);
    ExpectedKv full(tester, 1);
    std::int32_t position = 0;
    for (const std::int32_t rows : chunks) {
      tester.add(0, position, rows);
      tester.begin();
      const auto count = static_cast<std::size_t>(rows);
      const Floats x = random_floats(count * kHidden, static_cast<std::uint64_t>(position) + 1);
      for (std::size_t row = 0; row < count; ++row) {
        window.append(row_of(x, row, kHidden));
        full.append(row_of(x, row, kHidden));
      }
      check_layer(tester, 0, window, x, position, amplitude);
      check_layer(tester, 1, full, x, position, amplitude);
      tester.end();
      position += rows;
    }
  }

 private:
  void check_layer(StageTester& tester, LayerId layer, const ExpectedKv& expected, const Floats& x,
                   std::int32_t position, double amplitude) {
    const kernels::Activations& act = tester.act();
    const auto q_dim = static_cast<std::size_t>(tester.config().q_dim());
    const std::size_t rows = x.size() / kHidden;
    tester.write(act.x, x);
    tester.backend().attn_qkv(tester.shape(), layer, tester.layer(layer), act.x, {}, act.q);
    const Floats q = random_floats(rows * q_dim, 77, amplitude);
    tester.write(act.q, q);
    tester.write(act.attn, nans(rows * q_dim));
    tester.backend().attend(tester.shape(), layer, tester.layer(layer), act.q, act.attn);
    const Floats out = tester.read_attn(rows * q_dim);
    const double unit =
        GetParam().dense_error(kHidden) + GetParam().dot_error(position + static_cast<int>(rows));
    for (std::size_t row = 0; row < rows; ++row) {
      if (rows > 32 && row + 2 < rows) continue;  // of long chunks the ends tell enough
      const std::size_t at = static_cast<std::size_t>(position) + row;
      const auto window = static_cast<std::size_t>(tester.config().window);
      const std::size_t first = layer == 0 && at + 1 > window ? at + 1 - window : 0;
      for (std::size_t head = 0; head < q_dim / kDim; ++head) {
        const auto wanted = expected.attend(row_of(q, row, q_dim), head, first, at, unit);
        for (std::size_t i = 0; i < kDim; ++i)
          ASSERT_TRUE(within(static_cast<double>(out[row * q_dim + head * kDim + i]),
                             wanted[i].value, wanted[i].magnitude))
              << "layer " << layer << ", position " << at << ", head " << head << ", i " << i;
      }
    }
  }
};

TEST_P(AttendStage, WindowBoundaries) {
  for (const std::int32_t window : {1, 7, 8, 9}) {
    StageTester tester(GetParam(), config_of(window), options_for(64));
    check(tester, {1, 6, 1, 1, 1, 12}, 1.0);
  }
}

TEST_P(AttendStage, PageBoundaries) {
  for (const std::int32_t page_tokens : {1, 3, 4, 16}) {
    kernels::BackendOptions options = options_for(64);
    options.page_tokens = page_tokens;
    StageTester tester(GetParam(), config_of(8), options);
    check(tester, {3, 1, 1, 11, 1, 1}, 1.0);
  }
}

TEST_P(AttendStage, LongContextsAcrossSplits) {
  StageTester tester(GetParam(), config_of(300), options_for(520));
  check(tester, {254, 1, 1, 1, 254, 1, 1, 1}, 0.5);
}

TEST_P(AttendStage, SharpScoresDoNotOverflow) {
  StageTester tester(GetParam(), config_of(8), options_for(64));
  check(tester, {20}, 60.0);
}

TEST_P(AttendStage, ZeroQueriesAverage) {
  StageTester tester(GetParam(), config_of(8), options_for(64));
  check(tester, {20}, 0.0);
}

TEST_P(AttendStage, DominatingSinkLeavesNothingAndAbsentSinkEverything) {
  for (const float sink : {80.0F, -16384.0F}) {
    auto checkpoint = make_micro_checkpoint(config_of(8), 17);
    for (const char* layer : {"0", "1"})
      set_tensor(*checkpoint, std::string("model.layers.") + layer + ".self_attn.sinks",
                 Floats(6, sink));
    StageTester tester(GetParam(), std::move(checkpoint), options_for(64));
    check(tester, {1, 10}, 1.0);
  }
}

TEST_P(AttendStage, Bf16ValuesComeBackAsTheyWereRounded) {
  auto checkpoint = make_micro_checkpoint(config_of(8), 17);
  set_tensor(*checkpoint, "model.layers.0.self_attn.sinks", Floats(6, -16384.0F));
  kernels::BackendOptions options = options_for(64);
  options.kv_dtype = KvDtype::kBf16;
  StageTester tester(GetParam(), std::move(checkpoint), options);
  tester.add(0, 0, 1);
  tester.begin();
  const kernels::Activations& act = tester.act();
  const Floats x = random_floats(kHidden, 3);
  tester.write(act.x, x);
  tester.backend().attn_qkv(tester.shape(), 0, tester.layer(0), act.x, {}, act.q);
  tester.backend().attend(tester.shape(), 0, tester.layer(0), act.q, act.attn);
  // One key and no sink: the output is the value itself.
  const Floats out = tester.read_attn(6 * kDim);
  tester.end();
  const Doubles normed =
      rms_norm(row_of(x, 0, kHidden), tester.tensor("model.layers.0.input_layernorm.weight"), 1e-5);
  const Doubles weight = tester.tensor("model.layers.0.self_attn.v_proj.weight");
  const Doubles bias = tester.tensor("model.layers.0.self_attn.v_proj.bias");
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::size_t at = i / kDim / 3 * kDim + i % kDim;
    EXPECT_EQ(out[i], to_float(to_bf16(out[i]))) << "a bf16 number";
    const Bounded wanted = dot(weight, at, normed, bias[at]);
    EXPECT_TRUE(within(static_cast<double>(out[i]), wanted.value,
                       0x1.0p-8 * std::abs(static_cast<double>(out[i])) +
                           GetParam().dense_error(kHidden) * wanted.magnitude));
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, AttendStage, testing::ValuesIn(attend_backends()),
                         [](const auto& each) { return backend_test_name(each.param); });

}  // namespace
}  // namespace strata::test
