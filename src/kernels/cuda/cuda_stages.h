// CudaBackend: the stages of stages.h on one card. Orchestration only: kernels are in the .cu
// files. A stage launches on one stream and returns; between begin_step and `sample` the host reads
// nothing back. Slots and page tables are the host's, as on the CPU.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "kernels/cuda/card_sampler.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/dense_weights.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/step_graphs.h"
#include "kernels/cuda/step_upload.h"
#include "kernels/host/host_step.h"

namespace strata::kernels::cuda {

// kGraph stands for all stages of a body that is not timed stage by stage: a replayed one, and
// where bodies are replayed also those without a recording.
enum class Stage : std::uint8_t {
  kEmbed,
  kAttnQkv,
  kAttend,
  kAttnOut,
  kRoute,
  kExperts,
  kHead,
  kSample,
  kGraph
};
inline constexpr std::size_t kNumStages = 9;

class CudaBackend final : public Backend {
 public:
  CudaBackend(BackendContext context, const CudaDevice& device);

  std::string name() const override { return name_; }
  WeightHandle adopt(const TensorView& view, Role role, LayerId layer, const Shard& shard) override;
  void prepare(const BackendOptions& options) override;
  const Activations& activations() const override { return activations_; }
  void set_expert(LayerId layer, ExpertId expert, const ExpertSlab& slab) override;

  void begin_step(const StepPlan& plan) override;
  void embed(const StepShape& shape, WeightHandle embedding, Buffer x) override;
  void attn_qkv(const StepShape& shape, LayerId layer, const LayerWeights& weights, Buffer x,
                const Deltas& deltas, Buffer q) override;
  void attend(const StepShape& shape, LayerId layer, const LayerWeights& weights, Buffer q,
              Buffer attn) override;
  void attn_out(const StepShape& shape, LayerId layer, const LayerWeights& weights, Buffer attn,
                Buffer delta) override;
  void route(const StepShape& shape, LayerId layer, const LayerWeights& weights, Buffer x,
             const Deltas& deltas) override;
  void experts(const StepShape& shape, LayerId layer, Buffer delta) override;
  void experts_host(const StepShape&, LayerId, Buffer) override {}  // every slab is on the card
  void head(const StepShape& shape, const ModelWeights& weights, Buffer x, const Deltas& deltas,
            std::int32_t first, std::int32_t count) override;
  void sample(const StepShape& shape, std::int32_t first, std::int32_t count) override;
  void cut(CutPoint point, LayerId layer) override;
  void set_masks(std::span<const std::uint32_t> masks) override { sampler_->set_masks(masks); }
  StepResult end_step() override;
  void ready() override { graphs_->close(); }

  std::vector<StageStats> take_stats() override;
  void read_f32(Buffer buffer, std::span<float> out) override;
  void write_f32(Buffer buffer, std::span<const float> values) override;

 private:
  class Scope;
  // Two events around a stage of this step.
  struct Span {
    Stage stage;
    std::size_t first_event;
  };

  std::size_t slab_index(LayerId layer, ExpertId expert) const {
    return static_cast<std::size_t>(layer * config_.num_experts + expert);
  }
  template <class T>
  T* at(std::size_t offset) const {
    return reinterpret_cast<T*>(activation_memory_->data() + offset);
  }
  void begin_body();
  const Event& next_event();
  void add_times();
  void apply_pages(const StepPlan& plan);
  std::byte* page(PageId page) const;
  std::byte* swap_page(PageId page) const;
  void publish_slabs();
  void clear_experts_read();
  KvLayer kv_layer(LayerId layer) const;
  NormArgs norm_args(Buffer x, const Deltas& deltas, WeightHandle norm, float* out) const;
  Routing routing(std::int32_t rows) const;
  Products products(std::int32_t rows) const;
  Products expert_products(std::int32_t rows) const;
  // Whether products take rows that are not normed yet.
  static bool norms_on_the_way(Products how, std::int32_t rows);
  const std::byte* const* layer_slabs(LayerId layer) const;
  std::byte* plane_inputs(std::int32_t rows) const;
  bool one_row(std::int32_t rows) const;
  std::uint16_t* gemm_scratch(std::size_t offset) const;
  Partials partials() const;

  const ModelConfig config_;
  const std::int32_t rank_;
  const std::string name_;
  const bool has_tensor_cores_;  // in this program's code for the card
  const SlabLayout slab_;
  const RopeTable rope_;
  const std::vector<TokenId> never_emit_;
  Stream stream_;
  DenseWeights dense_;
  DeviceArena expert_memory_;            // "weights.experts": every slab
  std::vector<const std::byte*> slabs_;  // [layers, experts] addresses; null: not there
  bool slabs_changed_ = true;            // since the table went to the device

  // Made by prepare().
  BackendOptions options_;
  ActivationLayout layout_;
  std::optional<DeviceArena> activation_memory_;  // "activations"
  std::optional<DeviceArena> kv_memory_;          // "kv.pool"
  PinnedBuffer swap_memory_;                      // "kv.swap"
  std::size_t page_bytes_ = 0;
  std::vector<std::int32_t> layer_in_group_;  // [num_layers]
  const float* inv_freq_ = nullptr;
  Activations activations_;
  std::optional<HostStep> step_;
  std::optional<StepUpload> upload_;
  std::optional<CardSampler> sampler_;
  std::optional<StepGraphs> graphs_;
  // What attn_qkv normed with x and left for `route` to add to it; null: nothing.
  const float* unwritten_delta_ = nullptr;
  bool has_rotations_ = false;  // this step

  std::array<StageStats, kNumStages> stats_;
  std::vector<Event> events_;
  std::size_t events_used_ = 0;
  std::vector<Span> spans_;  // of this step
  Clock clock_;
};

}  // namespace strata::kernels::cuda
