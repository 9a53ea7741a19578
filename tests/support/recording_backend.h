// RecordingBackend: a backend that passes every call on to another and writes down what forward()
// asked for: which stage, which layer, which pointers and weights. Two recordings compare with ==.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "kernels/stages.h"

namespace strata::test {

struct RecordedCall {
  std::string stage;
  StepShape shape;
  LayerId layer = -1;
  std::vector<const void*> pointers;   // buffers in argument order
  std::vector<std::uint32_t> weights;  // ids of the handles passed
  std::int64_t first = 0;              // head, sample: first row; all_reduce: count
  std::int64_t count = 0;
  bool operator==(const RecordedCall&) const = default;
};

using Recording = std::vector<RecordedCall>;

class RecordingBackend final : public kernels::Backend {
 public:
  // `recording` outlives the backend.
  RecordingBackend(std::shared_ptr<kernels::Backend> inner, Recording& recording)
      : inner_(std::move(inner)), recording_(recording) {}

  std::string name() const override { return inner_->name(); }
  kernels::WeightHandle adopt(const TensorView& view, kernels::Role role, LayerId layer,
                              const kernels::Shard& shard) override {
    return inner_->adopt(view, role, layer, shard);
  }
  void prepare(const kernels::BackendOptions& options) override { inner_->prepare(options); }
  const kernels::Activations& activations() const override { return inner_->activations(); }
  void set_expert(LayerId layer, ExpertId expert, const kernels::ExpertSlab& slab) override {
    inner_->set_expert(layer, expert, slab);
  }
  void ready() override {
    record("ready", {}, -1, {});
    inner_->ready();
  }
  void begin_step(const StepPlan& plan) override { inner_->begin_step(plan); }
  void embed(const StepShape& shape, kernels::WeightHandle embedding, kernels::Buffer x) override;
  void attn_qkv(const StepShape& shape, LayerId layer, const kernels::LayerWeights& weights,
                kernels::Buffer x, const kernels::Deltas& deltas, kernels::Buffer q) override;
  void attend(const StepShape& shape, LayerId layer, const kernels::LayerWeights& weights,
              kernels::Buffer q, kernels::Buffer attn) override;
  void attn_out(const StepShape& shape, LayerId layer, const kernels::LayerWeights& weights,
                kernels::Buffer attn, kernels::Buffer delta) override;
  void route(const StepShape& shape, LayerId layer, const kernels::LayerWeights& weights,
             kernels::Buffer x, const kernels::Deltas& deltas) override;
  void experts(const StepShape& shape, LayerId layer, kernels::Buffer delta) override;
  void experts_host(const StepShape& shape, LayerId layer, kernels::Buffer delta) override;
  void head(const StepShape& shape, const kernels::ModelWeights& weights, kernels::Buffer x,
            const kernels::Deltas& deltas, std::int32_t first, std::int32_t count) override;
  void sample(const StepShape& shape, std::int32_t first, std::int32_t count) override;
  void cut(kernels::CutPoint point, LayerId layer) override;
  void set_masks(std::span<const std::uint32_t> masks) override { inner_->set_masks(masks); }
  StepResult end_step() override { return inner_->end_step(); }
  std::vector<kernels::StageStats> take_stats() override { return inner_->take_stats(); }
  void read_f32(kernels::Buffer buffer, std::span<float> out) override {
    inner_->read_f32(buffer, out);
  }
  void write_f32(kernels::Buffer buffer, std::span<const float> values) override {
    inner_->write_f32(buffer, values);
  }

 private:
  void record(const char* stage, const StepShape& shape, LayerId layer,
              std::vector<const void*> pointers, std::vector<std::uint32_t> weights = {},
              std::int32_t first = 0, std::int32_t count = 0);

  const std::shared_ptr<kernels::Backend> inner_;
  Recording& recording_;
};

// Writes collectives into the same recording.
class RecordingComm final : public Comm {
 public:
  explicit RecordingComm(Recording& recording) : recording_(recording) {}
  int world() const override { return 1; }
  void all_reduce(void* data, std::size_t count) override;

 private:
  Recording& recording_;
};

}  // namespace strata::test
