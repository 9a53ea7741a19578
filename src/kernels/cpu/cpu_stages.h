// CpuBackend: the stages of stages.h on a pool of threads. Orchestration only: what is computed is
// the specification of kernels/ref, how is in the primitives.
//
// Rows of padding are skipped altogether; "live" rows are the others, in row order. Each phase of
// a stage is one fork-join of the pool, and its pieces go to whichever worker is free.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/memory.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/dense.h"
#include "kernels/cpu/primitives.h"
#include "kernels/cpu/work_share.h"
#include "kernels/host/host_step.h"
#include "kernels/host/kv_pool.h"
#include "kernels/host/sampler.h"

namespace strata::kernels::cpu {

enum class Stage : std::uint8_t {
  kEmbed,
  kAttnQkv,
  kAttend,
  kAttnOut,
  kRoute,
  kExperts,
  kHead,
  kSample
};
inline constexpr std::size_t kNumStages = 8;

// One matrix of an expert's slab.
struct SlabMatrix {
  const std::byte* weights;
  const std::byte* scales;  // MXFP4 only
  const std::byte* bias;    // bf16 [rows]
  std::int32_t k;
};

// Rows of activations that feed products: float32 in paired order and quantised. A backend fills
// the form that the weights of the products need.
struct Inputs {
  std::span<const float* const> floats;
  std::span<const ActivationQuad* const> quads;

  std::size_t size() const { return floats.size(); }
  Inputs part(std::size_t begin, std::size_t count) const {
    return {floats.subspan(begin, count), quads.subspan(begin, count)};
  }
};

// Where such rows are: a list of one step, or buffers of `rows` rows.
struct InputRows {
  std::vector<const float*> floats;
  std::vector<const ActivationQuad*> quads;

  operator Inputs() const { return {floats, quads}; }
  void clear() {
    floats.clear();
    quads.clear();
  }
  void add(const InputRows& from, std::size_t row) {
    floats.push_back(from.floats[row]);
    quads.push_back(from.quads[row]);
  }
  float* float_row(std::int32_t row) const {
    return const_cast<float*>(floats[static_cast<std::size_t>(row)]);  // the backend's own buffer
  }
  ActivationQuad* quad_row(std::int32_t row) const {
    return const_cast<ActivationQuad*>(quads[static_cast<std::size_t>(row)]);
  }
};

class CpuBackend final : public Backend {
 public:
  CpuBackend(BackendContext context, CpuIsa isa, ThreadPool& pool);

  std::string name() const override;
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
  void experts_host(const StepShape&, LayerId, Buffer) override {}  // every slab is resident
  void head(const StepShape& shape, const ModelWeights& weights, Buffer x, const Deltas& deltas,
            std::int32_t first, std::int32_t count) override;
  void sample(const StepShape& shape, std::int32_t first, std::int32_t count) override;
  void cut(CutPoint, LayerId) override {}  // the host is the device: nothing to wait for
  void set_masks(std::span<const std::uint32_t> masks) override { sampler_.set_masks(masks); }
  StepResult end_step() override;

  std::vector<StageStats> take_stats() override;
  void read_f32(Buffer buffer, std::span<float> out) override;
  void write_f32(Buffer buffer, std::span<const float> values) override;

 private:
  class Timer;
  // Memory of one pool worker.
  struct Worker {
    std::byte* product = nullptr;            // kProductScratch
    float* y = nullptr;                      // y_floats(): products of all rows with one unit
    float* attend = nullptr;                 // attend_scratch(q_per_kv)
    std::vector<const std::byte*> kv_pages;  // keys of the pages of the row at hand
  };
  // Rows of the step that chose an expert: [begin, begin + count) of the sorted pairs.
  struct ActiveExpert {
    ExpertId expert;
    std::int32_t begin;
    std::int32_t count;
  };

  const DenseWeight& weight(WeightHandle handle) const { return dense_[handle.id - 1]; }
  std::int32_t num_live() const { return static_cast<std::int32_t>(live_.size()); }
  std::size_t y_floats(const BackendOptions& options) const;
  float* allocate(std::int32_t rows, std::int32_t width);
  // [rows, width]; `floats` may be null where no product reads them.
  InputRows allocate_inputs(std::int32_t rows, std::int32_t width, float* floats, bool with_quads);
  void allocate_workers(const BackendOptions& options);
  void fill_rope_row(std::int32_t live, std::int32_t position);

  NormRow norm_row(Buffer x, const Deltas& deltas, WeightHandle norm, std::int32_t row) const;
  bool dense_is_int8() const { return dense_format_ == WeightFormat::kI8g32; }
  bool experts_are_mxfp4() const { return layout_.format == ExpertFormat::kMxfp4; }
  void rotate(float* head, std::int32_t live) const;
  void query_head(const LayerWeights& weights, std::int32_t head, Worker& worker, Buffer q);
  void key_value_head(LayerId layer, const LayerWeights& weights, std::int32_t head,
                      Worker& worker);
  int attend_grain(LayerId layer) const;
  StageStats attend_work(LayerId layer) const;
  void attend_one(LayerId layer, std::int32_t live, std::int32_t kv_head, const AttendRow& common,
                  Worker& worker);
  // y[n][i] = rows [first, first + count) of `matrix` times x[n]; count floats a row.
  void multiply(const DenseWeight& matrix, std::int32_t first, std::int32_t count, const Inputs& x,
                float* y, const Worker& worker) const;
  void multiply(const SlabMatrix& matrix, std::int32_t first, std::int32_t count, const Inputs& x,
                float* y, const Worker& worker) const;
  void quantise(const float* x, std::int32_t count, std::int32_t first_block,
                ActivationQuad* out) const {
    primitives_.quantise({x, count, first_block, out, planes_});
  }

  void choose_experts(std::span<const float> logits, std::int32_t live);
  void group_pairs();
  SlabMatrix gate_up_of(LayerId layer, ExpertId expert) const;
  SlabMatrix down_of(LayerId layer, ExpertId expert) const;
  void gate_up_unit(const SlabMatrix& matrix, const ActiveExpert& active, std::int32_t first,
                    Worker& worker);
  void down_unit(LayerId layer, std::int32_t first, Worker& worker, Buffer delta);

  const ModelConfig config_;
  const std::int32_t rank_;
  const CpuIsa isa_;
  const Primitives& primitives_;
  ThreadPool& pool_;
  const WeightFormat dense_format_;
  const Planes planes_;
  const RopeTable rope_;
  const SlabLayout layout_;
  HostSampler sampler_;
  std::vector<DenseWeight> dense_;
  std::vector<const std::byte*> slabs_;  // [layer][expert]

  std::optional<HostStep> step_;
  std::optional<KvPool> kv_;
  std::vector<HostBuffer> buffers_;
  std::vector<Worker> workers_;
  Activations activations_;
  InputRows normed_;            // [max_rows, hidden]: what a norm leaves for its products
  InputRows attn_;              // [max_rows, q_dim]
  InputRows inner_;             // [pairs, intermediate]: SwiGLU outputs, sorted by expert
  InputRows head_input_;        // [kMaxHeadRows, hidden]
  float* logits_ = nullptr;     // [min(max_logits_rows, kMaxHeadRows), vocab]
  float* rope_rows_ = nullptr;  // [max_rows, head_dim]: cosines, then sines, of the live rows

  std::vector<std::int32_t> live_;  // rows of the step that are not padding
  InputRows live_normed_;           // [live]
  InputRows live_attn_;             // [live]
  // A pair is (live row, rank of the chosen expert): pair = live * experts_per_token + rank.
  std::vector<ExpertId> pair_expert_;
  std::vector<float> pair_weight_;
  std::vector<std::int32_t> pair_position_;  // its place among the pairs sorted by expert
  std::vector<ActiveExpert> active_;
  InputRows pair_input_;  // [sorted pairs] rows of normed_

  std::vector<std::int32_t> expert_next_;   // scratch of group_pairs, [experts]
  InputRows head_rows_;                     // scratch of head: rows of head_input_ ...
  std::vector<std::int32_t> head_indices_;  // ... and where in logits_ each one goes

  std::array<StageStats, kNumStages> stats_;
  StepTimings timings_;
  Clock clock_;
};

// Adds the time of a stage call, and the work it did, to the stage's totals.
class CpuBackend::Timer {
 public:
  Timer(CpuBackend& backend, Stage stage)
      : backend_(backend), stage_(stage), begin_(backend.clock_.now()) {}
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  void read(std::size_t bytes) { done_.weight_bytes += static_cast<std::int64_t>(bytes); }
  // Read once, multiplied with `rows` rows.
  void multiply(const DenseWeight& matrix, std::int64_t rows);
  void experts(std::int64_t active, std::int64_t pairs);
  void attend(const StageStats& work) { done_ = work; }

 private:
  CpuBackend& backend_;
  const Stage stage_;
  const Nanos begin_;
  StageStats done_;
};

// Output rows of a dense product that one worker computes at a time: few where they come straight
// from memory, so that workers end together; a whole group of a blocked product otherwise.
constexpr std::int32_t unit_rows(std::int32_t num_x) { return num_x <= 8 ? 32 : kGroupRows; }

inline constexpr int kNormCost = 4;  // of an element, in multiply-adds

inline float* row_of(Buffer buffer, std::int32_t row, std::int32_t width) {
  return static_cast<float*>(buffer.data) +
         static_cast<std::size_t>(row) * static_cast<std::size_t>(width);
}

}  // namespace strata::kernels::cpu
