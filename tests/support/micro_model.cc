#include "tests/support/micro_model.h"

#include <fmt/core.h>

#include <cmath>
#include <cstring>

#include "base/bf16.h"
#include "base/random.h"

namespace strata::test {
namespace {

using Shape = std::vector<std::int64_t>;

std::size_t count_of(const Shape& shape) {
  std::size_t count = 1;
  for (const std::int64_t dim : shape) count *= static_cast<std::size_t>(dim);
  return count;
}

class Maker {
 public:
  Maker(MemoryCheckpoint& out, std::uint64_t seed) : out_(out), seed_(mix64(seed)) {}

  void dense(const std::string& name, const Shape& shape, double amplitude, double center = 0.0) {
    std::vector<std::byte> bytes(count_of(shape) * 2);
    const std::uint64_t key = fnv1a64(name) ^ seed_;
    for (std::size_t i = 0; i < bytes.size() / 2; ++i) {
      const double unit = 2.0 * uniform_double(random_at(key, i)) - 1.0;
      const Bf16 value = to_bf16(static_cast<float>(center + amplitude * unit));
      std::memcpy(bytes.data() + i * 2, &value, 2);
    }
    out_.add(name, DType::kBf16, shape, std::move(bytes));
  }

  // A matrix with K inputs whose output has standard deviation `gain` for unit inputs.
  void matrix(const std::string& name, const Shape& shape, std::int64_t k, double gain) {
    dense(name, shape, gain * std::sqrt(3.0 / static_cast<double>(k)));
  }

  // MXFP4 rows of K inputs; nibbles are uniform, of root mean square 2.926.
  void mxfp4(const std::string& name, std::int64_t experts, std::int64_t rows, std::int64_t k,
             double gain) {
    const double scale = gain / (2.926 * std::sqrt(static_cast<double>(k)));
    const int base = 126 + static_cast<int>(std::lround(std::log2(scale)));
    bytes(name + "_blocks", {experts, rows, k / 32, 16}, 0, 256);
    bytes(name + "_scales", {experts, rows, k / 32}, base, 3);
  }

 private:
  void bytes(const std::string& name, const Shape& shape, int base, std::uint64_t range) {
    std::vector<std::byte> data(count_of(shape));
    const std::uint64_t key = fnv1a64(name) ^ seed_;
    for (std::size_t i = 0; i < data.size(); ++i)
      data[i] =
          static_cast<std::byte>(static_cast<std::uint64_t>(base) + random_at(key, i) % range);
    out_.add(name, DType::kU8, shape, std::move(data));
  }

  MemoryCheckpoint& out_;
  const std::uint64_t seed_;
};

void make_experts(Maker& make, const ModelConfig& c, const std::string& prefix) {
  const std::int64_t experts = c.num_experts;
  const std::int64_t inner = c.intermediate;
  constexpr double kGateUpGain = 4.0;    // one value in twelve passes the limit of 7
  constexpr double kDownGain = 1.0 / 6;  // inner values are about 6
  if (c.expert_format == ExpertFormat::kMxfp4) {
    make.mxfp4(prefix + "gate_up_proj", experts, 2 * inner, c.hidden, kGateUpGain);
    make.mxfp4(prefix + "down_proj", experts, c.hidden, inner, kDownGain);
  } else {
    make.matrix(prefix + "gate_up_proj", {experts, c.hidden, 2 * inner}, c.hidden, kGateUpGain);
    make.matrix(prefix + "down_proj", {experts, inner, c.hidden}, inner, kDownGain);
  }
  make.dense(prefix + "gate_up_proj_bias", {experts, 2 * inner}, 0.8);
  make.dense(prefix + "down_proj_bias", {experts, c.hidden}, 0.8);
}

void make_layer(Maker& make, const ModelConfig& c, LayerId layer) {
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  const std::string attn = prefix + "self_attn.";
  make.dense(prefix + "input_layernorm.weight", {c.hidden}, 0.3, 1.0);
  make.matrix(attn + "q_proj.weight", {c.q_dim(), c.hidden}, c.hidden, 1.1);
  make.dense(attn + "q_proj.bias", {c.q_dim()}, 0.8);
  make.matrix(attn + "k_proj.weight", {c.kv_dim(), c.hidden}, c.hidden, 1.1);
  make.dense(attn + "k_proj.bias", {c.kv_dim()}, 0.8);
  make.matrix(attn + "v_proj.weight", {c.kv_dim(), c.hidden}, c.hidden, 1.1);
  make.dense(attn + "v_proj.bias", {c.kv_dim()}, 0.8);
  make.dense(attn + "sinks", {c.num_q_heads}, 1.8);
  make.matrix(attn + "o_proj.weight", {c.hidden, c.q_dim()}, c.q_dim(), 1.5);
  make.dense(attn + "o_proj.bias", {c.hidden}, 0.8);
  make.dense(prefix + "post_attention_layernorm.weight", {c.hidden}, 0.3, 1.0);
  make.matrix(prefix + "mlp.router.weight", {c.num_experts, c.hidden}, c.hidden, 1.5);
  make.dense(prefix + "mlp.router.bias", {c.num_experts}, 0.8);
  make_experts(make, c, prefix + "mlp.experts.");
}

}  // namespace

ModelConfig micro_config() {
  ModelConfig config;
  config.name = "micro";
  config.num_layers = 4;
  config.hidden = 64;
  config.intermediate = 96;
  config.num_q_heads = 16;
  config.num_kv_heads = 2;
  config.head_dim = 64;
  config.num_experts = 8;
  config.experts_per_token = 4;
  config.vocab = 384;
  config.window = 8;
  config.max_context = 4096;
  config.rope = {.theta = 10000.0,
                 .factor = 32.0,
                 .beta_fast = 4.0,
                 .beta_slow = 1.0,
                 .original_context = 128,
                 .truncate = false};
  config.windowed = {true, false, true, false};
  return config;
}

std::unique_ptr<MemoryCheckpoint> make_micro_checkpoint(const ModelConfig& config,
                                                        std::uint64_t seed) {
  auto checkpoint = std::make_unique<MemoryCheckpoint>(config);
  Maker make(*checkpoint, seed);
  make.dense("model.embed_tokens.weight", {config.vocab, config.hidden}, 0.1);
  for (LayerId layer = 0; layer < config.num_layers; ++layer) make_layer(make, config, layer);
  make.dense("model.norm.weight", {config.hidden}, 0.3, 1.0);
  make.matrix("lm_head.weight", {config.vocab, config.hidden}, config.hidden, 2.5);
  return checkpoint;
}

}  // namespace strata::test
