#include "base/model_config.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace strata {
namespace {

ModelConfig published_shape(std::string name, std::int32_t layers, std::int32_t experts) {
  ModelConfig config;
  config.name = std::move(name);
  config.num_layers = layers;
  config.hidden = 2880;
  config.intermediate = 2880;
  config.num_q_heads = 64;
  config.num_kv_heads = 8;
  config.num_experts = experts;
  config.experts_per_token = 4;
  config.vocab = 201088;
  for (std::int32_t layer = 0; layer < layers; ++layer) config.windowed.push_back(layer % 2 == 0);
  return config;
}

}  // namespace

ModelConfig gpt_oss_20b() { return published_shape("gpt-oss-20b", 24, 32); }
ModelConfig gpt_oss_120b() { return published_shape("gpt-oss-120b", 36, 128); }

ModelConfig strata_tiny() {
  ModelConfig config = published_shape("strata-tiny", 6, 32);
  config.hidden = 192;
  config.intermediate = 192;
  config.num_q_heads = 16;
  config.num_kv_heads = 2;
  config.vocab = 4096;
  return config;
}

// Source: YaRN (arXiv 2309.00071) as used by the gpt-oss reference: frequencies below the ramp are
// divided by `factor`, those above stay, a linear ramp in between; mscale 0.1 ln(factor) + 1.
RopeTable make_rope_table(const RopeConfig& rope, std::int32_t head_dim) {
  const int half = head_dim / 2;
  RopeTable table;
  table.inv_freq.resize(static_cast<std::size_t>(half));
  if (rope.factor <= 1.0) {
    for (int i = 0; i < half; ++i)
      table.inv_freq[static_cast<std::size_t>(i)] =
          static_cast<float>(std::pow(rope.theta, -2.0 * i / head_dim));
    return table;
  }
  const auto ramp_end = [&](double rotations) {
    return head_dim * std::log(rope.original_context / (rotations * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(rope.theta));
  };
  double low = ramp_end(rope.beta_fast);
  double high = ramp_end(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, head_dim - 1.0);
  if (high == low) high += 0.001;
  for (int i = 0; i < half; ++i) {
    const double plain = std::pow(rope.theta, -2.0 * i / head_dim);
    const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
    table.inv_freq[static_cast<std::size_t>(i)] =
        static_cast<float>(plain * (1.0 - ramp) + plain / rope.factor * ramp);
  }
  table.concentration = static_cast<float>(0.1 * std::log(rope.factor) + 1.0);
  return table;
}

}  // namespace strata
