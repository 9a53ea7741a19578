#include "model/checkpoint_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/support/memory_checkpoint.h"
#include "tests/support/random_checkpoint.h"
#include "tests/support/startup_error.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

using kernels::Role;
using kernels::WeightHandle;
using test::MemoryCheckpoint;
using test::small_config;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Takes weights and nothing else.
class LoadingBackend final : public kernels::Backend {
 public:
  struct Adopted {
    std::string name;
    Role role;
    LayerId layer;
    kernels::Shard shard;
    std::string content;
  };

  WeightHandle adopt(const TensorView& view, Role role, LayerId layer,
                     const kernels::Shard& shard) override {
    std::string content(view.num_bytes(), '\0');
    view.source->read(0, std::as_writable_bytes(std::span(content)));
    adopted.push_back({view.name, role, layer, shard, std::move(content)});
    return WeightHandle{static_cast<std::uint32_t>(adopted.size())};
  }
  void set_expert(LayerId layer, ExpertId expert, const kernels::ExpertSlab& slab) override {
    slabs[{layer, expert}] = slab.data;
  }
  const Adopted& of(WeightHandle handle) const { return adopted.at(handle.id - 1); }

  std::vector<Adopted> adopted;
  std::map<std::pair<LayerId, ExpertId>, const std::byte*> slabs;

  std::string name() const override { return "loading"; }
  void prepare(const kernels::BackendOptions&) override { refuse(); }
  const kernels::Activations& activations() const override { return activations_; }
  void begin_step(const StepPlan&) override { refuse(); }
  void embed(const StepShape&, WeightHandle, kernels::Buffer) override { refuse(); }
  void attn_qkv(const StepShape&, LayerId, const kernels::LayerWeights&, kernels::Buffer,
                const kernels::Deltas&, kernels::Buffer) override {
    refuse();
  }
  void attend(const StepShape&, LayerId, const kernels::LayerWeights&, kernels::Buffer,
              kernels::Buffer) override {
    refuse();
  }
  void attn_out(const StepShape&, LayerId, const kernels::LayerWeights&, kernels::Buffer,
                kernels::Buffer) override {
    refuse();
  }
  void route(const StepShape&, LayerId, const kernels::LayerWeights&, kernels::Buffer,
             const kernels::Deltas&) override {
    refuse();
  }
  void experts(const StepShape&, LayerId, kernels::Buffer) override { refuse(); }
  void experts_host(const StepShape&, LayerId, kernels::Buffer) override { refuse(); }
  void head(const StepShape&, const kernels::ModelWeights&, kernels::Buffer, const kernels::Deltas&,
            std::int32_t, std::int32_t) override {
    refuse();
  }
  void sample(const StepShape&, std::int32_t, std::int32_t) override { refuse(); }
  void cut(kernels::CutPoint, LayerId) override { refuse(); }
  void set_masks(std::span<const std::uint32_t>) override { refuse(); }
  StepResult end_step() override { return {}; }
  std::vector<kernels::StageStats> take_stats() override { return {}; }
  void read_f32(kernels::Buffer, std::span<float>) override { refuse(); }
  void write_f32(kernels::Buffer, std::span<const float>) override { refuse(); }

 private:
  static void refuse() { ADD_FAILURE() << "a loader calls no stage"; }
  kernels::Activations activations_;
};

void add(MemoryCheckpoint& checkpoint, const std::string& name, DType dtype,
         const std::vector<std::int64_t>& shape) {
  std::size_t bytes = dtype_size(dtype);
  for (const std::int64_t dim : shape) bytes *= static_cast<std::size_t>(dim);
  const std::string content = test::content_of(name, bytes);
  const auto raw = std::as_bytes(std::span(content));
  checkpoint.add(name, dtype, shape, {raw.begin(), raw.end()});
}

TEST(CheckpointLoader, EveryDenseTensorGoesToItsRole) {
  test::TempDir dir;
  const ModelConfig config = small_config();
  test::write_checkpoint(dir.path(), config, test::deal_tensors(config, 3));
  LoadingBackend backend;
  ExpertStore experts(config);
  const kernels::ModelWeights weights =
      load_checkpoint(*weights::open_checkpoint(dir.path()), backend, experts);

  ASSERT_EQ(weights.layers.size(), 2U);
  EXPECT_EQ(backend.adopted.size(), 3U + 2U * 13U);
  std::set<std::uint32_t> handles;
  const auto expect = [&](WeightHandle handle, const std::string& name, Role role, LayerId layer) {
    ASSERT_NE(handle.id, 0U) << name;
    EXPECT_TRUE(handles.insert(handle.id).second) << name;
    const LoadingBackend::Adopted& adopted = backend.of(handle);
    EXPECT_EQ(adopted.name, name);
    EXPECT_EQ(adopted.role, role) << name;
    EXPECT_EQ(adopted.layer, layer) << name;
    EXPECT_EQ(adopted.shard.world, 1) << name;
    EXPECT_EQ(adopted.shard.axis, -1) << name;
    EXPECT_EQ(adopted.content, test::content_of(name, adopted.content.size())) << name;
  };
  expect(weights.embedding, "model.embed_tokens.weight", Role::kEmbedding, 0);
  expect(weights.unembedding, "lm_head.weight", Role::kUnembedding, 0);
  expect(weights.final_norm, "model.norm.weight", Role::kFinalNorm, 0);
  for (LayerId id = 0; id < 2; ++id) {
    const kernels::LayerWeights& layer = weights.layers[static_cast<std::size_t>(id)];
    const std::string prefix = fmt::format("model.layers.{}.", id);
    expect(layer.attn_norm, prefix + "input_layernorm.weight", Role::kAttnNorm, id);
    expect(layer.q_weight, prefix + "self_attn.q_proj.weight", Role::kQWeight, id);
    expect(layer.q_bias, prefix + "self_attn.q_proj.bias", Role::kQBias, id);
    expect(layer.k_weight, prefix + "self_attn.k_proj.weight", Role::kKWeight, id);
    expect(layer.k_bias, prefix + "self_attn.k_proj.bias", Role::kKBias, id);
    expect(layer.v_weight, prefix + "self_attn.v_proj.weight", Role::kVWeight, id);
    expect(layer.v_bias, prefix + "self_attn.v_proj.bias", Role::kVBias, id);
    expect(layer.sinks, prefix + "self_attn.sinks", Role::kSinks, id);
    expect(layer.out_weight, prefix + "self_attn.o_proj.weight", Role::kOutWeight, id);
    expect(layer.out_bias, prefix + "self_attn.o_proj.bias", Role::kOutBias, id);
    expect(layer.mlp_norm, prefix + "post_attention_layernorm.weight", Role::kMlpNorm, id);
    expect(layer.router_weight, prefix + "mlp.router.weight", Role::kRouterWeight, id);
    expect(layer.router_bias, prefix + "mlp.router.bias", Role::kRouterBias, id);
  }
}

TEST(CheckpointLoader, ExpertTensorsFillTheSlabsOfTheirLayer) {
  for (const ExpertFormat format : {ExpertFormat::kMxfp4, ExpertFormat::kBf16}) {
    const ModelConfig config = small_config(format);
    MemoryCheckpoint checkpoint(config);
    for (const auto& spec : weights::expected_tensors(config))
      add(checkpoint, spec.name, spec.dtype, spec.shape);
    LoadingBackend backend;
    ExpertStore experts(config);
    load_checkpoint(checkpoint, backend, experts);
    const kernels::SlabLayout& slab = experts.layout();
    for (LayerId layer = 0; layer < 2; ++layer)
      for (ExpertId expert = 0; expert < 3; ++expert) {
        const auto content = test::content_of(
            fmt::format("model.layers.{}.mlp.experts.down_proj_bias", layer), 3 * 128);
        const std::string stored(
            reinterpret_cast<const char*>(experts.slab(layer, expert) + slab.down_bias), 128);
        EXPECT_EQ(stored, content.substr(static_cast<std::size_t>(expert) * 128, 128));
      }
  }
}

TEST(CheckpointLoader, PublishNamesEverySlabOnceAnEpoch) {
  const ModelConfig config = small_config();
  LoadingBackend backend;
  ExpertStore experts(config);
  EXPECT_EQ(experts.publish(backend), 1U);
  EXPECT_EQ(backend.slabs.size(), 6U);
  for (const auto& [place, data] : backend.slabs)
    EXPECT_EQ(data, experts.slab(place.first, place.second));
  EXPECT_EQ(experts.publish(backend), 2U);
}

// What the stream gives when a checkpoint is not checked beforehand.
std::string load_error(const ModelConfig& config, const std::string& leave_out,
                       const std::function<void(MemoryCheckpoint&)>& change) {
  MemoryCheckpoint checkpoint(config);
  for (const auto& spec : weights::expected_tensors(config))
    if (spec.name != leave_out) add(checkpoint, spec.name, spec.dtype, spec.shape);
  change(checkpoint);
  LoadingBackend backend;
  ExpertStore experts(config);
  return test::startup_error_of([&] { load_checkpoint(checkpoint, backend, experts); });
}

TEST(CheckpointLoader, MissingUnknownRepeatedAndMisshapenTensorsAreNamed) {
  const ModelConfig config = small_config();
  const std::string sinks = "model.layers.1.self_attn.sinks";
  EXPECT_THAT(load_error(config, sinks, [](MemoryCheckpoint&) {}),
              AllOf(HasSubstr("lacks 1 tensors"), HasSubstr("\"" + sinks + "\"")));
  EXPECT_THAT(load_error(config, "",
                         [](MemoryCheckpoint& checkpoint) {
                           add(checkpoint, "model.extra", DType::kU8, {3});
                         }),
              AllOf(HasSubstr("tensor \"model.extra\" at byte"), HasSubstr("is not expected")));
  EXPECT_THAT(load_error(config, "",
                         [](MemoryCheckpoint& checkpoint) {
                           add(checkpoint, "lm_head.weight", DType::kBf16, {40, 64});
                         }),
              AllOf(HasSubstr("tensor \"lm_head.weight\" at byte"), HasSubstr("came twice")));
  EXPECT_THAT(
      load_error(config, sinks,
                 [&](MemoryCheckpoint& checkpoint) { add(checkpoint, sinks, DType::kF16, {4}); }),
      HasSubstr("tensor \"" + sinks + "\" at byte 0: is F16 [4], expected BF16 [4]"));
  EXPECT_THAT(load_error(config, sinks,
                         [&](MemoryCheckpoint& checkpoint) {
                           add(checkpoint, sinks, DType::kBf16, {2, 2});
                         }),
              HasSubstr("is BF16 [2, 2], expected BF16 [4]"));
}

}  // namespace
}  // namespace strata
