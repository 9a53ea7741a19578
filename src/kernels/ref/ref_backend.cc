#include "kernels/ref/ref_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <set>

#include "base/bf16.h"
#include "base/check.h"
#include "base/clock.h"
#include "kernels/host/host_step.h"
#include "kernels/host/kv_pool.h"
#include "kernels/host/sampler.h"
#include "kernels/ref/ref_math.h"
#include "kernels/ref/ref_weights.h"

namespace strata::kernels {
namespace {

using ref::Choice;
using ref::DenseTensor;
using ref::ExpertMatrix;

enum Stage { kEmbed, kAttnQkv, kAttend, kAttnOut, kRoute, kExperts, kHead, kSample, kNumStages };

class RefBackend final : public Backend {
 public:
  explicit RefBackend(BackendContext context)
      : config_(context.config),
        rank_(context.rank),
        rope_(make_rope_table(config_.rope, config_.head_dim)),
        layout_(make_slab_layout(config_.hidden, config_.intermediate, config_.expert_format)),
        sampler_(config_.vocab, std::move(context.never_emit)),
        slabs_(static_cast<std::size_t>(config_.num_layers * config_.num_experts)) {
    reset_stats();
  }

  std::string name() const override { return "ref"; }
  WeightHandle adopt(const TensorView& view, Role role, LayerId layer, const Shard& shard) override;
  void prepare(const BackendOptions& options) override;
  const Activations& activations() const override { return activations_; }
  void set_expert(LayerId layer, ExpertId expert, const ExpertSlab& slab) override {
    slabs_[slab_index(layer, expert)] = slab.data;
  }

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
  void cut(CutPoint, LayerId) override {}
  void set_masks(std::span<const std::uint32_t> masks) override { sampler_.set_masks(masks); }
  StepResult end_step() override { return step_->end(); }

  std::vector<StageStats> take_stats() override;
  void read_f32(Buffer buffer, std::span<float> out) override {
    std::memcpy(out.data(), buffer.data, out.size_bytes());
  }
  void write_f32(Buffer buffer, std::span<const float> values) override {
    std::memcpy(buffer.data, values.data(), values.size_bytes());
  }

 private:
  // Adds the time of a stage call to its totals.
  class Timer {
   public:
    Timer(RefBackend& backend, Stage stage)
        : backend_(backend), stats_(backend.stats_[stage]), begin_(backend.clock_.now()) {}
    ~Timer() {
      ++stats_.calls;
      stats_.nanos += backend_.clock_.now() - begin_;
    }
    void read(const DenseTensor& tensor) {
      stats_.weight_bytes += static_cast<std::int64_t>(tensor.bytes());
    }
    void read_slab() { stats_.weight_bytes += static_cast<std::int64_t>(backend_.layout_.bytes); }

   private:
    RefBackend& backend_;
    StageStats& stats_;
    const Nanos begin_;
  };

  const DenseTensor& tensor(WeightHandle handle) const { return dense_[handle.id - 1]; }
  std::size_t slab_index(LayerId layer, ExpertId expert) const {
    return static_cast<std::size_t>(layer * config_.num_experts + expert);
  }
  std::int32_t num_rows() const { return static_cast<std::int32_t>(step_->rows().size()); }
  bool is_padding(std::int32_t row) const {
    return step_->rows()[static_cast<std::size_t>(row)].seq < 0;
  }
  static std::span<float> row_of(Buffer buffer, std::int32_t row, std::int32_t width) {
    return {static_cast<float*>(buffer.data) +
                static_cast<std::size_t>(row) * static_cast<std::size_t>(width),
            static_cast<std::size_t>(width)};
  }

  void reset_stats();
  Buffer allocate(std::int32_t rows, std::int32_t width);
  void add_deltas(std::span<float> x, const Deltas& deltas, std::int32_t row) const;
  void normalise(std::span<const float> x, WeightHandle weight, std::span<float> out) const;
  // out = W x + b.
  void project(WeightHandle weight, WeightHandle bias, std::span<const float> x,
               std::span<float> out) const;
  void write_kv(LayerId layer, const RowInput& row, std::span<const float> keys,
                std::span<const float> values);
  std::span<const float> kv_row(const std::byte* block, std::int32_t token,
                                std::vector<float>& scratch) const;
  void attend_head(LayerId layer, const RowInput& row, std::int32_t head, double sink,
                   std::span<const float> q, std::span<float> out);
  void expert_row(const std::byte* slab, const Choice& choice, std::span<const float> x,
                  std::span<double> sum) const;

  const ModelConfig config_;
  const std::int32_t rank_;
  const RopeTable rope_;
  const SlabLayout layout_;
  HostSampler sampler_;
  std::vector<DenseTensor> dense_;
  std::vector<const std::byte*> slabs_;  // [layer][expert]
  std::optional<HostStep> step_;
  std::optional<KvPool> kv_;
  std::vector<HostBuffer> buffers_;
  Activations activations_;
  Buffer normed_;                             // [rows, hidden]: what route leaves for experts
  Buffer logits_;                             // [min(max_logits_rows, kMaxHeadRows), vocab]
  std::vector<std::vector<Choice>> routing_;  // [rows]
  std::vector<StageStats> stats_;
  Clock clock_;
};

void RefBackend::reset_stats() {
  static constexpr const char* kNames[kNumStages] = {"embed", "attn_qkv", "attend", "attn_out",
                                                     "route", "experts",  "head",   "sample"};
  stats_.assign(kNumStages, {});
  for (std::size_t i = 0; i < kNumStages; ++i) stats_[i].name = kNames[i];
}

std::vector<StageStats> RefBackend::take_stats() {
  std::vector<StageStats> taken = std::move(stats_);
  reset_stats();
  return taken;
}

WeightHandle RefBackend::adopt(const TensorView& view, Role role, LayerId /*layer*/,
                               const Shard& shard) {
  dense_.emplace_back(view, role, shard);
  return {static_cast<std::uint32_t>(dense_.size())};
}

Buffer RefBackend::allocate(std::int32_t rows, std::int32_t width) {
  const auto count = static_cast<std::size_t>(rows) * static_cast<std::size_t>(width);
  buffers_.emplace_back("activations", count * sizeof(float));
  return {buffers_.back().data()};
}

void RefBackend::prepare(const BackendOptions& options) {
  STRATA_CHECK(!step_, "prepare() called twice");
  step_.emplace(options);
  kv_.emplace(config_, options);
  activations_.x = allocate(options.max_rows, config_.hidden);
  activations_.q = allocate(options.max_rows, config_.q_dim());
  activations_.attn = allocate(options.max_rows, config_.q_dim());
  activations_.delta_attn = allocate(options.max_rows, config_.hidden);
  activations_.delta_moe = allocate(options.max_rows, config_.hidden);
  normed_ = allocate(options.max_rows, config_.hidden);
  logits_ = allocate(std::min(options.max_logits_rows, kMaxHeadRows), config_.vocab);
  routing_.resize(static_cast<std::size_t>(options.max_rows));
}

void RefBackend::begin_step(const StepPlan& plan) {
  step_->begin(plan);
  kv_->apply(plan);
  sampler_.clear_masks();
}

void RefBackend::add_deltas(std::span<float> x, const Deltas& deltas, std::int32_t row) const {
  for (const Buffer delta : {deltas.a, deltas.b}) {
    if (delta.data == nullptr) continue;
    const std::span<const float> values = row_of(delta, row, config_.hidden);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += values[i];
  }
}

void RefBackend::normalise(std::span<const float> x, WeightHandle weight,
                           std::span<float> out) const {
  std::vector<float> scale(x.size());
  for (std::size_t i = 0; i < x.size(); ++i)
    scale[i] = tensor(weight).at(0, static_cast<std::int64_t>(i));
  ref::rms_norm(x, scale, config_.rms_eps, out);
}

void RefBackend::project(WeightHandle weight, WeightHandle bias, std::span<const float> x,
                         std::span<float> out) const {
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    out[i] = static_cast<float>(tensor(weight).dot(row, x) +
                                static_cast<double>(tensor(bias).at(0, row)));
  }
}

void RefBackend::embed(const StepShape&, WeightHandle embedding, Buffer x) {
  Timer timer(*this, kEmbed);
  const DenseTensor& table = tensor(embedding);
  for (std::int32_t row = 0; row < num_rows(); ++row) {
    const std::span<float> out = row_of(x, row, config_.hidden);
    const std::int64_t id = step_->rows()[static_cast<std::size_t>(row)].token - table.first_row();
    // Padding and the ids of other ranks are zero rows.
    const bool mine = !is_padding(row) && id >= 0 && id < table.rows();
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = mine ? table.at(id, static_cast<std::int64_t>(i)) : 0.0F;
  }
}

void RefBackend::attn_qkv(const StepShape&, LayerId layer, const LayerWeights& weights, Buffer x,
                          const Deltas& deltas, Buffer q) {
  Timer timer(*this, kAttnQkv);
  for (const WeightHandle read : {weights.q_weight, weights.k_weight, weights.v_weight})
    timer.read(tensor(read));
  const auto head_dim = static_cast<std::size_t>(config_.head_dim);
  std::vector<float> normed(static_cast<std::size_t>(config_.hidden));
  std::vector<float> keys(static_cast<std::size_t>(config_.kv_dim()));
  std::vector<float> values(keys.size());
  for (std::int32_t i = 0; i < num_rows(); ++i) {
    const RowInput& row = step_->rows()[static_cast<std::size_t>(i)];
    const std::span<float> x_row = row_of(x, i, config_.hidden);
    const std::span<float> queries = row_of(q, i, config_.q_dim());
    add_deltas(x_row, deltas, i);
    if (is_padding(i)) {
      std::fill(queries.begin(), queries.end(), 0.0F);
      continue;
    }
    normalise(x_row, weights.attn_norm, normed);
    project(weights.q_weight, weights.q_bias, normed, queries);
    project(weights.k_weight, weights.k_bias, normed, keys);
    project(weights.v_weight, weights.v_bias, normed, values);
    for (std::size_t at = 0; at < queries.size(); at += head_dim)
      ref::rotate_head(rope_, row.position, queries.subspan(at, head_dim));
    for (std::size_t at = 0; at < keys.size(); at += head_dim)
      ref::rotate_head(rope_, row.position, std::span(keys).subspan(at, head_dim));
    write_kv(layer, row, keys, values);
  }
}

void RefBackend::write_kv(LayerId layer, const RowInput& row, std::span<const float> keys,
                          std::span<const float> values) {
  const SeqInput& seq = step_->seqs()[static_cast<std::size_t>(row.seq)];
  const std::int32_t tokens = step_->page_tokens();
  const PageId page = seq.tables[kv_group_of(config_, layer)]->page_of(row.position / tokens);
  for (std::int32_t head = 0; head < config_.num_kv_heads; ++head) {
    const std::int32_t at = head * config_.head_dim;
    kv_->write(page, layer, head, row.position % tokens, &keys[static_cast<std::size_t>(at)],
               &values[static_cast<std::size_t>(at)]);
  }
}

// Token `token` of a page's block of keys or values, as float32.
std::span<const float> RefBackend::kv_row(const std::byte* block, std::int32_t token,
                                          std::vector<float>& scratch) const {
  const auto dim = static_cast<std::size_t>(config_.head_dim);
  const std::size_t first = static_cast<std::size_t>(token) * dim;
  if (kv_->dtype() == KvDtype::kF32) return {reinterpret_cast<const float*>(block) + first, dim};
  const Bf16* row = reinterpret_cast<const Bf16*>(block) + first;
  scratch.resize(dim);
  for (std::size_t i = 0; i < dim; ++i) scratch[i] = to_float(row[i]);
  return scratch;
}

void RefBackend::attend(const StepShape&, LayerId layer, const LayerWeights& weights, Buffer q,
                        Buffer attn) {
  Timer timer(*this, kAttend);
  const DenseTensor& sinks = tensor(weights.sinks);
  const auto head_dim = static_cast<std::size_t>(config_.head_dim);
  for (std::int32_t i = 0; i < num_rows(); ++i) {
    const std::span<const float> queries = row_of(q, i, config_.q_dim());
    const std::span<float> out = row_of(attn, i, config_.q_dim());
    if (is_padding(i)) {
      std::fill(out.begin(), out.end(), 0.0F);
      continue;
    }
    for (std::int32_t head = 0; head < config_.num_q_heads; ++head) {
      const std::size_t at = static_cast<std::size_t>(head) * head_dim;
      attend_head(layer, step_->rows()[static_cast<std::size_t>(i)], head,
                  static_cast<double>(sinks.at(0, head)), queries.subspan(at, head_dim),
                  out.subspan(at, head_dim));
    }
  }
}

void RefBackend::attend_head(LayerId layer, const RowInput& row, std::int32_t head, double sink,
                             std::span<const float> q, std::span<float> out) {
  const KvGroup group = kv_group_of(config_, layer);
  const SeqInput& seq = step_->seqs()[static_cast<std::size_t>(row.seq)];
  const std::int32_t tokens = step_->page_tokens();
  const std::int32_t kv_head = head / config_.q_per_kv();
  const std::int32_t first =
      group == kWindowGroup ? std::max(0, row.position - config_.window + 1) : 0;
  const double scale = 1.0 / std::sqrt(static_cast<double>(config_.head_dim));
  const auto page_at = [&](std::int32_t position) {
    return seq.tables[group]->page_of(position / tokens);
  };

  std::vector<float> scratch;
  std::vector<double> scores;
  double best = sink;
  for (std::int32_t position = first; position <= row.position; ++position) {
    const std::byte* keys = kv_->keys(page_at(position), layer, kv_head);
    const std::span<const float> key = kv_row(keys, position % tokens, scratch);
    double score = 0.0;
    for (std::size_t i = 0; i < q.size(); ++i)
      score += static_cast<double>(q[i]) * static_cast<double>(key[i]);
    scores.push_back(score * scale);
    best = std::max(best, scores.back());
  }
  double total = std::exp(sink - best);
  std::vector<double> sum(q.size(), 0.0);
  for (std::int32_t position = first; position <= row.position; ++position) {
    const std::byte* values = kv_->values(page_at(position), layer, kv_head);
    const std::span<const float> value = kv_row(values, position % tokens, scratch);
    const double weight = std::exp(scores[static_cast<std::size_t>(position - first)] - best);
    total += weight;
    for (std::size_t i = 0; i < q.size(); ++i) sum[i] += weight * static_cast<double>(value[i]);
  }
  for (std::size_t i = 0; i < q.size(); ++i) out[i] = static_cast<float>(sum[i] / total);
}

void RefBackend::attn_out(const StepShape&, LayerId, const LayerWeights& weights, Buffer attn,
                          Buffer delta) {
  Timer timer(*this, kAttnOut);
  const DenseTensor& matrix = tensor(weights.out_weight);
  const DenseTensor& bias = tensor(weights.out_bias);
  timer.read(matrix);
  for (std::int32_t row = 0; row < num_rows(); ++row) {
    const std::span<const float> in = row_of(attn, row, config_.q_dim());
    const std::span<float> out = row_of(delta, row, config_.hidden);
    for (std::size_t i = 0; i < out.size(); ++i) {
      const auto at = static_cast<std::int64_t>(i);
      const double bias_value = rank_ == 0 ? static_cast<double>(bias.at(0, at)) : 0.0;
      out[i] = is_padding(row) ? 0.0F : static_cast<float>(matrix.dot(at, in) + bias_value);
    }
  }
}

void RefBackend::route(const StepShape&, LayerId, const LayerWeights& weights, Buffer x,
                       const Deltas& deltas) {
  Timer timer(*this, kRoute);
  timer.read(tensor(weights.router_weight));
  std::vector<float> logits(static_cast<std::size_t>(config_.num_experts));
  for (std::int32_t row = 0; row < num_rows(); ++row) {
    const std::span<float> x_row = row_of(x, row, config_.hidden);
    const std::span<float> normed = row_of(normed_, row, config_.hidden);
    std::vector<Choice>& chosen = routing_[static_cast<std::size_t>(row)];
    add_deltas(x_row, deltas, row);
    chosen.clear();
    if (is_padding(row)) continue;
    normalise(x_row, weights.mlp_norm, normed);
    project(weights.router_weight, weights.router_bias, normed, logits);
    ref::choose_experts(logits, config_.experts_per_token, chosen);
  }
}

void RefBackend::experts(const StepShape&, LayerId layer, Buffer delta) {
  Timer timer(*this, kExperts);
  std::set<ExpertId> read;
  std::vector<double> sum(static_cast<std::size_t>(config_.hidden));
  for (std::int32_t row = 0; row < num_rows(); ++row) {
    std::fill(sum.begin(), sum.end(), 0.0);
    for (const Choice& choice : routing_[static_cast<std::size_t>(row)]) {
      const std::byte* slab = slabs_[slab_index(layer, choice.expert)];
      STRATA_CHECK(slab != nullptr, "expert {} of layer {} is not resident", choice.expert, layer);
      if (read.insert(choice.expert).second) timer.read_slab();
      expert_row(slab, choice, row_of(normed_, row, config_.hidden), sum);
    }
    const std::span<float> out = row_of(delta, row, config_.hidden);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(sum[i]);
  }
}

void RefBackend::expert_row(const std::byte* slab, const Choice& choice, std::span<const float> x,
                            std::span<double> sum) const {
  const ExpertMatrix gate_up = ref::gate_up_of(layout_, slab);
  const ExpertMatrix down = ref::down_of(layout_, slab);
  std::vector<float> inner(static_cast<std::size_t>(config_.intermediate));
  for (std::int32_t i = 0; i < config_.intermediate; ++i) {
    const double gate = gate_up.dot(2 * i, x) + gate_up.bias_at(2 * i);
    const double up = gate_up.dot(2 * i + 1, x) + gate_up.bias_at(2 * i + 1);
    inner[static_cast<std::size_t>(i)] = static_cast<float>(ref::swiglu(gate, up, config_));
  }
  for (std::int32_t i = 0; i < config_.hidden; ++i) {
    const double bias = rank_ == 0 ? down.bias_at(i) : 0.0;
    sum[static_cast<std::size_t>(i)] +=
        static_cast<double>(choice.weight) * (down.dot(i, inner) + bias);
  }
}

void RefBackend::head(const StepShape&, const ModelWeights& weights, Buffer x, const Deltas& deltas,
                      std::int32_t first, std::int32_t count) {
  Timer timer(*this, kHead);
  const DenseTensor& matrix = tensor(weights.unembedding);
  STRATA_CHECK(matrix.rows() == config_.vocab, "ref does not split the vocabulary");
  timer.read(matrix);
  std::vector<float> residual(static_cast<std::size_t>(config_.hidden));
  std::vector<float> normed(residual.size());
  for (std::int32_t index = first; index < first + count; ++index) {
    if (!step_->wants_logits(index)) continue;
    const std::int32_t row = step_->logits_row(index)->row;
    const std::span<const float> x_row = row_of(x, row, config_.hidden);
    std::copy(x_row.begin(), x_row.end(), residual.begin());
    add_deltas(residual, deltas, row);
    normalise(residual, weights.final_norm, normed);
    const std::span<float> out = row_of(logits_, index - first, config_.vocab);
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = static_cast<float>(matrix.dot(static_cast<std::int64_t>(i), normed));
  }
}

void RefBackend::sample(const StepShape&, std::int32_t first, std::int32_t count) {
  Timer timer(*this, kSample);
  for (std::int32_t index = first; index < first + count; ++index)
    sampler_.process(*step_, index, row_of(logits_, index - first, config_.vocab));
}

}  // namespace

std::unique_ptr<Backend> make_ref_backend(BackendContext context) {
  return std::make_unique<RefBackend>(std::move(context));
}

}  // namespace strata::kernels
