// Start-up, begin and end of steps, and statistics of the CPU backend.
#include "kernels/cpu/cpu_backend.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "kernels/cpu/cpu_stages.h"

namespace strata::kernels::cpu {
namespace {

constexpr std::array<const char*, kNumStages> kStageNames = {
    "embed", "attn_qkv", "attend", "attn_out", "route", "experts", "head", "sample"};

std::array<StageStats, kNumStages> empty_stats() {
  std::array<StageStats, kNumStages> stats;
  for (std::size_t i = 0; i < kNumStages; ++i) stats[i].name = kStageNames[i];
  return stats;
}

void check_shape(const ModelConfig& config) {
  STRATA_CHECK(config.hidden % kBlock == 0 && config.intermediate % kBlock == 0, "{} x {}",
               config.hidden, config.intermediate);
  STRATA_CHECK(config.head_dim == 32 || config.head_dim == 64 || config.head_dim == kMaxHeadDim,
               "head_dim {}", config.head_dim);
  STRATA_CHECK(config.q_per_kv() >= 1 && config.q_per_kv() <= kMaxGroupHeads, "{} heads a KV head",
               config.q_per_kv());
}

}  // namespace

CpuBackend::CpuBackend(BackendContext context, CpuIsa isa, ThreadPool& pool)
    : config_(std::move(context.config)),
      rank_(context.rank),
      isa_(isa),
      primitives_(primitives_of(isa)),
      pool_(pool),
      dense_format_(context.dense),
      planes_(context.int8_activations ? Planes::kOne : Planes::kTwo),
      rope_(make_rope_table(config_.rope, config_.head_dim)),
      layout_(make_slab_layout(config_.hidden, config_.intermediate, config_.expert_format)),
      sampler_(config_.vocab, std::move(context.never_emit)),
      slabs_(static_cast<std::size_t>(config_.num_layers * config_.num_experts)),
      stats_(empty_stats()) {
  check_shape(config_);
  STRATA_CHECK(dense_format_ == WeightFormat::kBf16 || dense_is_int8(),
               "dense format {} on the CPU", static_cast<int>(dense_format_));
}

std::string CpuBackend::name() const { return fmt::format("cpu {}", isa_name(isa_)); }

// Rows of the embedding are looked up, not multiplied, and the router's choices are worth its bits.
WeightHandle CpuBackend::adopt(const TensorView& view, Role role, LayerId /*layer*/,
                               const Shard& shard) {
  const bool keeps_bf16 = role == Role::kEmbedding || role == Role::kRouterWeight;
  const WeightFormat format = keeps_bf16 ? WeightFormat::kBf16 : dense_format_;
  if (view.dtype == DType::kF32 && view.shape.size() > 1 && format == WeightFormat::kBf16)
    log_warn("{} is float32: rounded to bfloat16 for the CPU", view.name);
  dense_.emplace_back(view, shard, format, pool_);
  return {static_cast<std::uint32_t>(dense_.size())};
}

void CpuBackend::set_expert(LayerId layer, ExpertId expert, const ExpertSlab& slab) {
  slabs_[static_cast<std::size_t>(layer * config_.num_experts + expert)] = slab.data;
}

float* CpuBackend::allocate(std::int32_t rows, std::int32_t width) {
  const auto count = static_cast<std::size_t>(rows) * static_cast<std::size_t>(width);
  buffers_.emplace_back("activations", count * sizeof(float));
  return buffers_.back().as<float>().data();
}

InputRows CpuBackend::allocate_inputs(std::int32_t rows, std::int32_t width, float* floats,
                                      bool with_quads) {
  const auto quads = static_cast<std::size_t>(quads_of(width));
  ActivationQuad* first = nullptr;
  if (with_quads) {
    buffers_.emplace_back("activations",
                          static_cast<std::size_t>(rows) * quads * sizeof(ActivationQuad));
    first = buffers_.back().as<ActivationQuad>().data();
  }
  InputRows inputs;
  for (std::int32_t row = 0; row < rows; ++row) {
    inputs.floats.push_back(floats == nullptr ? nullptr : row_of({floats}, row, width));
    inputs.quads.push_back(first == nullptr ? nullptr
                                            : first + static_cast<std::size_t>(row) * quads);
  }
  return inputs;
}

// The widest products a worker keeps: keys and values of a head, a group of dense rows, or a block
// of down rows for every pair of the step.
std::size_t CpuBackend::y_floats(const BackendOptions& options) const {
  const std::int32_t per_row = std::max(
      {2 * config_.head_dim, kGroupRows, kBlock * config_.experts_per_token, config_.num_experts});
  return static_cast<std::size_t>(std::max(options.max_rows, kMaxHeadRows)) *
         static_cast<std::size_t>(per_row);
}

void CpuBackend::allocate_workers(const BackendOptions& options) {
  const auto in_lines = [](std::size_t bytes) { return (bytes + 63) / 64 * 64; };
  const std::size_t y_bytes = in_lines(y_floats(options) * sizeof(float));
  const std::size_t attend_bytes = in_lines(attend_scratch(config_.q_per_kv()) * sizeof(float));
  workers_.resize(static_cast<std::size_t>(pool_.num_threads()));
  for (Worker& worker : workers_) {
    buffers_.emplace_back("activations", kProductScratch + y_bytes + attend_bytes);
    worker.product = buffers_.back().data();
    worker.y = reinterpret_cast<float*>(worker.product + kProductScratch);
    worker.attend = reinterpret_cast<float*>(worker.product + kProductScratch + y_bytes);
    worker.kv_pages.reserve(static_cast<std::size_t>(options.max_pages_per_seq));
  }
}

void CpuBackend::prepare(const BackendOptions& options) {
  STRATA_CHECK(!step_, "prepare() called twice");
  step_.emplace(options);
  kv_.emplace(config_, options);
  const std::int32_t rows = options.max_rows;
  const std::int32_t pairs = rows * config_.experts_per_token;
  activations_.x = {allocate(rows, config_.hidden)};
  activations_.q = {allocate(rows, config_.q_dim())};
  activations_.attn = {allocate(rows, config_.q_dim())};
  activations_.delta_attn = {allocate(rows, config_.hidden)};
  activations_.delta_moe = {allocate(rows, config_.hidden)};
  const std::int32_t hidden = config_.hidden, intermediate = config_.intermediate;
  const bool mxfp4 = experts_are_mxfp4(), int8 = dense_is_int8();
  normed_ = allocate_inputs(rows, hidden, allocate(rows, hidden), mxfp4 || int8);
  attn_ = allocate_inputs(rows, config_.q_dim(), static_cast<float*>(activations_.attn.data), int8);
  inner_ =
      allocate_inputs(pairs, intermediate, mxfp4 ? nullptr : allocate(pairs, intermediate), mxfp4);
  rope_rows_ = allocate(rows, config_.head_dim);
  const std::int32_t head_rows = std::min(options.max_logits_rows, kMaxHeadRows);
  head_input_ = allocate_inputs(head_rows, hidden, allocate(head_rows, hidden), int8);
  logits_ = allocate(head_rows, config_.vocab);
  allocate_workers(options);
  live_.reserve(static_cast<std::size_t>(rows));
  pair_expert_.resize(static_cast<std::size_t>(pairs));
  pair_weight_.resize(static_cast<std::size_t>(pairs));
  pair_position_.resize(static_cast<std::size_t>(pairs));
  pair_input_.floats.resize(static_cast<std::size_t>(pairs));
  pair_input_.quads.resize(static_cast<std::size_t>(pairs));
}

// Angles, cosines and sines are float32, as in the model's reference implementations.
void CpuBackend::fill_rope_row(std::int32_t live, std::int32_t position) {
  const std::int32_t half = config_.head_dim / 2;
  float* cosine = row_of({rope_rows_}, live, config_.head_dim);
  float* sine = cosine + half;
  for (std::int32_t i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * rope_.inv_freq[static_cast<std::size_t>(i)];
    cosine[i] = std::cos(angle) * rope_.concentration;
    sine[i] = std::sin(angle) * rope_.concentration;
  }
}

void CpuBackend::begin_step(const StepPlan& plan) {
  step_->begin(plan);
  kv_->apply(plan);
  sampler_.clear_masks();
  timings_ = {};
  live_.clear();
  live_normed_.clear();
  live_attn_.clear();
  const std::span<const RowInput> rows = step_->rows();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].seq < 0) continue;
    const auto row = static_cast<std::int32_t>(i);
    fill_rope_row(num_live(), rows[i].position);
    live_.push_back(row);
    live_normed_.add(normed_, i);
    live_attn_.add(attn_, i);
  }
}

StepResult CpuBackend::end_step() {
  StepResult result = step_->end();
  result.timings = timings_;
  return result;
}

CpuBackend::Timer::~Timer() {
  const Nanos nanos = backend_.clock_.now() - begin_;
  StageStats& stats = backend_.stats_[static_cast<std::size_t>(stage_)];
  ++stats.calls;
  stats.nanos += nanos;
  stats.weight_bytes += done_.weight_bytes;
  stats.kv_bytes += done_.kv_bytes;
  stats.float_adds += done_.float_adds;
  stats.integer_adds += done_.integer_adds;
  if (stage_ == Stage::kSample) backend_.timings_.sample_ns += nanos;
  else backend_.timings_.compute_ns += nanos;
}

void CpuBackend::Timer::multiply(const DenseWeight& matrix, std::int64_t rows) {
  done_.weight_bytes += static_cast<std::int64_t>(matrix.bytes());
  const std::int64_t adds = rows * matrix.rows() * matrix.cols();
  (matrix.format() == WeightFormat::kI8g32 ? done_.integer_adds : done_.float_adds) += adds;
}

void CpuBackend::Timer::experts(std::int64_t active, std::int64_t pairs) {
  const SlabLayout& layout = backend_.layout_;
  done_.weight_bytes += active * static_cast<std::int64_t>(layout.bytes);
  const std::int64_t adds = pairs * 3 * layout.hidden * layout.intermediate;
  (backend_.experts_are_mxfp4() ? done_.integer_adds : done_.float_adds) += adds;
}

std::vector<StageStats> CpuBackend::take_stats() {
  const std::array<StageStats, kNumStages> taken = std::exchange(stats_, empty_stats());
  return {taken.begin(), taken.end()};
}

// `attn` is in paired order.
void CpuBackend::read_f32(Buffer buffer, std::span<float> out) {
  std::memcpy(out.data(), buffer.data, out.size_bytes());
}

void CpuBackend::write_f32(Buffer buffer, std::span<const float> values) {
  std::memcpy(buffer.data, values.data(), values.size_bytes());
}

}  // namespace strata::kernels::cpu

namespace strata::kernels {

std::unique_ptr<Backend> make_cpu_backend(BackendContext context, CpuIsa isa, ThreadPool& pool) {
  return std::make_unique<cpu::CpuBackend>(std::move(context), isa, pool);
}

}  // namespace strata::kernels
