// Tensor parallelism as the stages see it: two ranks with uneven shards, whose partial sums add up
// to what one rank computes. A rank's ModelConfig holds its own head counts and intermediate size.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "kernels/slab.h"
#include "tests/support/micro_model.h"
#include "tests/support/plan_builder.h"
#include "tests/support/step_runner.h"

namespace strata::test {
namespace {

using kernels::Role;
using kernels::Shard;
using kernels::SlabLayout;

constexpr std::int32_t kRows = 9;
constexpr std::int32_t kHidden = 64;

ModelConfig whole_config() {
  ModelConfig config = micro_config();
  config.num_layers = 1;
  config.windowed = {true};
  config.num_q_heads = 6;
  config.num_kv_heads = 3;
  config.vocab = 96;
  return config;
}

// What rank `rank` of `world` holds; world 1 is everything.
struct Part {
  std::int32_t rank = 0;
  std::int32_t world = 1;
  std::int32_t kv_begin = 0, kv_end = 3;  // kv heads; each has two query heads
  std::int32_t inner_begin = 0, inner_end = 96;
  std::int32_t vocab_begin = 0, vocab_end = 96;
};

Part rank_0() { return {0, 2, 0, 1, 0, 32, 0, 32}; }
Part rank_1() { return {1, 2, 1, 3, 32, 96, 32, 96}; }

class Rank {
 public:
  Rank(const TestBackend& backend, MemoryCheckpoint& checkpoint, const Part& part)
      : part_(part), config_(whole_config()) {
    config_.num_kv_heads = part.kv_end - part.kv_begin;
    config_.num_q_heads = 2 * config_.num_kv_heads;
    config_.intermediate = part.inner_end - part.inner_begin;
    kernels::BackendContext context;
    context.config = config_;
    context.rank = part.rank;
    context.world = part.world;
    backend_ = backend.make(std::move(context));
    adopt_dense(checkpoint);
    kernels::BackendOptions options = small_options();
    backend_->prepare(options);
    fill_slabs(checkpoint);
    PlanBuilder builder(config_, options);
    builder.admit(0);
    builder.prefill(0, random_tokens(kRows, 96, 1), Want::kNothing);
    plan_ = builder.take();
    backend_->begin_step(plan_);
  }

  kernels::Backend& backend() { return *backend_; }
  const kernels::Activations& act() { return backend_->activations(); }
  const kernels::LayerWeights& weights() const { return weights_; }
  kernels::WeightHandle embedding() const { return embedding_; }
  const StepShape& shape() const { return plan_.shape; }

  std::vector<float> read(kernels::Buffer buffer) {
    std::vector<float> values(kRows * kHidden);
    backend_->read_f32(buffer, values);
    return values;
  }
  void write(kernels::Buffer buffer, const std::vector<float>& values) {
    backend_->write_f32(buffer, values);
  }

 private:
  kernels::WeightHandle adopt(MemoryCheckpoint& checkpoint, const std::string& name, Role role,
                              std::int32_t axis, std::int64_t begin, std::int64_t end) {
    Shard shard{part_.rank, part_.world, axis, begin, end};
    if (part_.world == 1 || axis < 0) shard = Shard{part_.rank, part_.world, -1, 0, 0};
    return backend_->adopt(checkpoint.view(name), role, 0, shard);
  }

  void adopt_dense(MemoryCheckpoint& checkpoint) {
    const std::string layer = "model.layers.0.";
    const std::string attn = layer + "self_attn.";
    const std::int64_t kv0 = part_.kv_begin * 64, kv1 = part_.kv_end * 64;
    const std::int64_t q0 = 2 * kv0, q1 = 2 * kv1;
    embedding_ = adopt(checkpoint, "model.embed_tokens.weight", Role::kEmbedding, 0,
                       part_.vocab_begin, part_.vocab_end);
    weights_.attn_norm =
        adopt(checkpoint, layer + "input_layernorm.weight", Role::kAttnNorm, -1, 0, 0);
    weights_.q_weight = adopt(checkpoint, attn + "q_proj.weight", Role::kQWeight, 0, q0, q1);
    weights_.q_bias = adopt(checkpoint, attn + "q_proj.bias", Role::kQBias, 0, q0, q1);
    weights_.k_weight = adopt(checkpoint, attn + "k_proj.weight", Role::kKWeight, 0, kv0, kv1);
    weights_.k_bias = adopt(checkpoint, attn + "k_proj.bias", Role::kKBias, 0, kv0, kv1);
    weights_.v_weight = adopt(checkpoint, attn + "v_proj.weight", Role::kVWeight, 0, kv0, kv1);
    weights_.v_bias = adopt(checkpoint, attn + "v_proj.bias", Role::kVBias, 0, kv0, kv1);
    weights_.sinks =
        adopt(checkpoint, attn + "sinks", Role::kSinks, 0, 2 * part_.kv_begin, 2 * part_.kv_end);
    weights_.out_weight = adopt(checkpoint, attn + "o_proj.weight", Role::kOutWeight, 1, q0, q1);
    weights_.out_bias = adopt(checkpoint, attn + "o_proj.bias", Role::kOutBias, -1, 0, 0);
    weights_.mlp_norm =
        adopt(checkpoint, layer + "post_attention_layernorm.weight", Role::kMlpNorm, -1, 0, 0);
    weights_.router_weight =
        adopt(checkpoint, layer + "mlp.router.weight", Role::kRouterWeight, -1, 0, 0);
    weights_.router_bias =
        adopt(checkpoint, layer + "mlp.router.bias", Role::kRouterBias, -1, 0, 0);
  }

  // gate_up by rows [2 * inner_begin, 2 * inner_end), down by columns [inner_begin, inner_end).
  void fill_slabs(MemoryCheckpoint& checkpoint) {
    const SlabLayout layout =
        kernels::make_slab_layout(kHidden, config_.intermediate, ExpertFormat::kMxfp4);
    const std::string prefix = "model.layers.0.mlp.experts.";
    const auto copy = [&](std::size_t to, const char* name, std::size_t from, std::size_t bytes) {
      std::memcpy(slabs_.back().data() + to, checkpoint.bytes(prefix + name).data() + from, bytes);
    };
    const auto inner0 = static_cast<std::size_t>(part_.inner_begin);
    const auto inner = static_cast<std::size_t>(config_.intermediate);
    for (std::size_t e = 0; e < 8; ++e) {
      slabs_.emplace_back(layout.bytes);
      const std::size_t row = e * 2 * 96 + 2 * inner0;
      copy(layout.gate_up_blocks, "gate_up_proj_blocks", row * 32, layout.gate_up_block_bytes());
      copy(layout.gate_up_scales, "gate_up_proj_scales", row * 2, layout.gate_up_scale_bytes());
      copy(layout.gate_up_bias, "gate_up_proj_bias", row * 2, layout.gate_up_bias_bytes());
      copy(layout.down_bias, "down_proj_bias", e * kHidden * 2, layout.down_bias_bytes());
      for (std::size_t h = 0; h < kHidden; ++h) {
        const std::size_t group = (e * kHidden + h) * 3 + inner0 / 32;
        copy(layout.down_blocks + h * inner / 2, "down_proj_blocks", group * 16, inner / 2);
        copy(layout.down_scales + h * inner / 32, "down_proj_scales", group, inner / 32);
      }
      backend_->set_expert(0, static_cast<ExpertId>(e), {slabs_.back().data()});
    }
  }

  const Part part_;
  ModelConfig config_;
  std::shared_ptr<kernels::Backend> backend_;
  kernels::WeightHandle embedding_;
  kernels::LayerWeights weights_;
  std::vector<std::vector<std::byte>> slabs_;
  StepPlan plan_;
};

// One layer over the ranks, all-reduce included; returns x and both deltas after summation.
std::vector<std::vector<float>> run_layer(std::vector<Rank*> ranks) {
  std::vector<std::vector<float>> outputs;
  const auto all_reduce = [&](kernels::Buffer kernels::Activations::*member) {
    std::vector<float> sum(kRows * kHidden, 0.0F);
    for (Rank* rank : ranks) {
      const std::vector<float> part = rank->read(rank->act().*member);
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
    }
    for (Rank* rank : ranks) rank->write(rank->act().*member, sum);
    outputs.push_back(sum);
  };
  for (Rank* rank : ranks) rank->backend().embed(rank->shape(), rank->embedding(), rank->act().x);
  all_reduce(&kernels::Activations::x);
  for (Rank* rank : ranks) {
    const kernels::Activations& act = rank->act();
    rank->backend().attn_qkv(rank->shape(), 0, rank->weights(), act.x, {}, act.q);
    rank->backend().attend(rank->shape(), 0, rank->weights(), act.q, act.attn);
    rank->backend().attn_out(rank->shape(), 0, rank->weights(), act.attn, act.delta_attn);
  }
  all_reduce(&kernels::Activations::delta_attn);
  for (Rank* rank : ranks) {
    const kernels::Activations& act = rank->act();
    rank->backend().route(rank->shape(), 0, rank->weights(), act.x, {act.delta_attn, {}});
    rank->backend().experts(rank->shape(), 0, act.delta_moe);
  }
  all_reduce(&kernels::Activations::delta_moe);
  return outputs;
}

class Shards : public testing::TestWithParam<TestBackend> {};

TEST_P(Shards, UnevenRanksAddUpToOne) {
  const auto checkpoint = make_micro_checkpoint(whole_config(), 21);
  Rank whole(GetParam(), *checkpoint, Part{});
  Rank first(GetParam(), *checkpoint, rank_0());
  Rank second(GetParam(), *checkpoint, rank_1());
  const auto expected = run_layer({&whole});
  const auto summed = run_layer({&first, &second});
  EXPECT_EQ(summed[0], expected[0]) << "every id is one rank's";
  for (std::size_t stage = 1; stage < 3; ++stage) {
    double largest = 0.0;
    for (const float value : expected[stage])
      largest = std::max(largest, std::abs(static_cast<double>(value)));
    for (std::size_t i = 0; i < expected[stage].size(); ++i)
      ASSERT_NEAR(static_cast<double>(summed[stage][i]), static_cast<double>(expected[stage][i]),
                  largest * 1e-4)
          << (stage == 1 ? "attention" : "experts");
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, Shards, testing::ValuesIn(test_backends()),
                         [](const auto& each) { return backend_test_name(each.param); });

}  // namespace
}  // namespace strata::test
