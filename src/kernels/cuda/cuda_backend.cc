// Start-up, begin and end of steps, and statistics of the CUDA backend.
#include "kernels/cuda/cuda_backend.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/result.h"
#include "kernels/cuda/cuda_stages.h"
#include "kernels/host/kv_pool.h"

namespace strata::kernels::cuda {
namespace {

constexpr std::array<const char*, kNumStages> kStageNames = {
    "embed", "attn_qkv", "attend", "attn_out", "route", "experts", "head", "sample", "graph"};

std::array<StageStats, kNumStages> empty_stats() {
  std::array<StageStats, kNumStages> stats;
  for (std::size_t i = 0; i < kNumStages; ++i) stats[i].name = kStageNames[i];
  return stats;
}

void check_shape(const ModelConfig& config) {
  STRATA_CHECK(config.hidden % 32 == 0 && config.intermediate % 32 == 0, "{} x {}", config.hidden,
               config.intermediate);
  STRATA_CHECK(config.num_experts <= kMostExperts && config.experts_per_token <= kMostChosen,
               "{} of {} experts", config.experts_per_token, config.num_experts);
  const bool known = config.head_dim == 32 || config.head_dim == 64 || config.head_dim == 128;
  if (!known || config.q_per_kv() < 1 || config.q_per_kv() > kMaxGroupHeads)
    throw StartupError(
        fmt::format("the CUDA backend cannot attend with {} query heads a KV head of {} values",
                    config.q_per_kv(), config.head_dim),
        "--backend cpu computes this model");
}

}  // namespace

CudaBackend::CudaBackend(BackendContext context, const CudaDevice& device)
    : config_(std::move(context.config)),
      rank_(context.rank),
      name_(fmt::format("cuda sm{}{}", device.major, device.minor)),
      has_tensor_cores_(cuda_tensor_cores(config_.expert_format)),
      slab_(make_slab_layout(config_.hidden, config_.intermediate, config_.expert_format)),
      rope_(make_rope_table(config_.rope, config_.head_dim)),
      never_emit_(std::move(context.never_emit)),
      dense_(config_, context.dense, stream_),
      expert_memory_("weights.experts", expert_weight_bytes(config_)),
      slabs_(static_cast<std::size_t>(config_.num_layers * config_.num_experts)),
      stats_(empty_stats()) {
  check_shape(config_);
}

WeightHandle CudaBackend::adopt(const TensorView& view, Role role, LayerId /*layer*/,
                                const Shard& shard) {
  return dense_.adopt(view, role, shard);
}

void CudaBackend::set_expert(LayerId layer, ExpertId expert, const ExpertSlab& slab) {
  const std::size_t index = slab_index(layer, expert);
  slabs_changed_ = true;
  slabs_[index] = nullptr;
  if (slab.data == nullptr) return;
  std::byte* place = expert_memory_.data() + index * slab_.bytes;
  copy_and_wait(stream_, place, slab.data, slab_.bytes);
  slabs_[index] = place;
}

void CudaBackend::prepare(const BackendOptions& options) {
  STRATA_CHECK(!step_, "prepare() called twice");
  STRATA_CHECK(!options.tensor_cores || has_tensor_cores_, "no code for tensor cores");
  options_ = options;
  set_early_launches(options.early_launches);
  layout_ = make_activation_layout(config_, options);
  const std::size_t rope_bytes = rope_.inv_freq.size() * sizeof(float);
  activation_memory_.emplace("activations", layout_.bytes + aligned(rope_bytes));
  // Counters that kernels leave at zero, what is behind the rows of planes, and tables whose
  // entries are read before it is known whether they are there.
  check(cudaMemsetAsync(activation_memory_->data(), 0, layout_.bytes, stream_.get()), "clearing");
  page_bytes_ = kv_page_bytes(config_, options.page_tokens, options.kv_dtype);
  kv_memory_.emplace("kv.pool", static_cast<std::size_t>(options.num_pages) * page_bytes_);
  swap_memory_ =
      PinnedBuffer("kv.swap", static_cast<std::size_t>(options.num_swap_pages) * page_bytes_);
  std::array<std::int32_t, kNumKvGroups> next{};
  for (LayerId layer = 0; layer < config_.num_layers; ++layer)
    layer_in_group_.push_back(next[kv_group_of(config_, layer)]++);

  auto* inv_freq = at<float>(layout_.bytes);
  copy_and_wait(stream_, inv_freq, rope_.inv_freq.data(), rope_bytes);
  inv_freq_ = inv_freq;
  activations_.x = {at<void>(layout_.x)};
  activations_.q = {at<void>(layout_.q)};
  activations_.attn = {at<void>(layout_.attn)};
  activations_.delta_attn = {at<void>(layout_.delta_attn)};
  activations_.delta_moe = {at<void>(layout_.delta_moe)};
  step_.emplace(options);
  upload_.emplace(options, config_.vocab, at<std::byte>(layout_.inputs));
  sampler_.emplace(layout_, activation_memory_->data(), config_.vocab, never_emit_,
                   std::min(options.max_logits_rows, kMaxHeadRows), stream_);
  graphs_.emplace(options.record_graphs, stream_);
}

std::byte* CudaBackend::page(PageId page) const {
  STRATA_CHECK(page >= 0 && page < options_.num_pages, "KV page {} of {}", page,
               options_.num_pages);
  return kv_memory_->data() + static_cast<std::size_t>(page) * page_bytes_;
}

std::byte* CudaBackend::swap_page(PageId page) const {
  STRATA_CHECK(page >= 0 && page < options_.num_swap_pages, "swap page {} of {}", page,
               options_.num_swap_pages);
  return swap_memory_.data() + static_cast<std::size_t>(page) * page_bytes_;
}

// First poison (all bits set is a NaN in float32 and in bfloat16), then copies in their order.
void CudaBackend::apply_pages(const StepPlan& plan) {
  STRATA_CHECK(plan.kv == options_.kv_dtype, "plan {} is for another KV dtype", plan.id);
  for (const PageId poisoned : plan.poison)
    check(cudaMemsetAsync(page(poisoned), 0xff, page_bytes_, stream_.get()), "poisoning a page");
  for (const PageCopy& copy : plan.copies) {
    const bool in = copy.kind == CopyKind::kSwapIn;
    const bool out = copy.kind == CopyKind::kSwapOut;
    std::byte* to = out ? swap_page(copy.dst) : page(copy.dst);
    const std::byte* from = in ? swap_page(copy.src) : page(copy.src);
    if (to == from) continue;
    check(cudaMemcpyAsync(to, from, page_bytes_, cudaMemcpyDefault, stream_.get()),
          "copying a page");
  }
}

// The device's table of slab addresses, between steps.
void CudaBackend::publish_slabs() {
  if (!slabs_changed_) return;
  STRATA_CHECK(std::find(slabs_.begin(), slabs_.end(), nullptr) == slabs_.end(),
               "an expert is not on the card");
  copy_and_wait(stream_, at<void>(layout_.slab_table), slabs_.data(),
                slabs_.size() * sizeof(slabs_[0]));
  slabs_changed_ = false;
}

void CudaBackend::begin_step(const StepPlan& plan) {
  step_->begin(plan);
  publish_slabs();
  apply_pages(plan);
  sampler_->clear_masks();
  events_used_ = 0;
  spans_.clear();
  upload_->upload(*step_, stream_);
  has_rotations_ = false;
  graphs_->begin(plan.shape);
  if (graphs_->eager_for_good()) begin_body();
}

// The body as one span of time.
void CudaBackend::begin_body() {
  ++stats_[static_cast<std::size_t>(Stage::kGraph)].calls;
  spans_.push_back({Stage::kGraph, events_used_});
  next_event().record(stream_);
}

void CudaBackend::cut(CutPoint point, LayerId /*layer*/) {
  if (point != CutPoint::kBeforeSample) return;
  if (graphs_->replaying()) begin_body();
  const bool timed = graphs_->replaying() || graphs_->eager_for_good();
  graphs_->end();
  if (timed) next_event().record(stream_);
}

StepResult CudaBackend::end_step() {
  stream_.synchronize();
  add_times();
  return step_->end();
}

const Event& CudaBackend::next_event() {
  if (events_used_ == events_.size()) events_.emplace_back();
  return events_[events_used_++];
}

void CudaBackend::add_times() {
  for (const Span& span : spans_) {
    const float milliseconds =
        events_[span.first_event + 1].milliseconds_since(events_[span.first_event]);
    stats_[static_cast<std::size_t>(span.stage)].nanos +=
        static_cast<std::int64_t>(static_cast<double>(milliseconds) * 1e6);
  }
}

void CudaBackend::clear_experts_read() {
  check(cudaMemsetAsync(at<void>(layout_.experts_read), 0, sizeof(std::uint64_t), stream_.get()),
        "clearing");
}

// Only the device knows how many experts the steps chose.
std::vector<StageStats> CudaBackend::take_stats() {
  std::uint64_t experts = 0;
  copy_and_wait(stream_, &experts, at<void>(layout_.experts_read), sizeof experts);
  clear_experts_read();
  std::array<StageStats, kNumStages> taken = std::exchange(stats_, empty_stats());
  taken[static_cast<std::size_t>(Stage::kExperts)].weight_bytes =
      static_cast<std::int64_t>(experts * slab_.bytes);
  return {taken.begin(), taken.end()};
}

void CudaBackend::read_f32(Buffer buffer, std::span<float> out) {
  copy_and_wait(stream_, out.data(), buffer.data, out.size_bytes());
}

void CudaBackend::write_f32(Buffer buffer, std::span<const float> values) {
  copy_and_wait(stream_, buffer.data, values.data(), values.size_bytes());
}

}  // namespace strata::kernels::cuda

namespace strata::kernels {

std::unique_ptr<Backend> make_cuda_backend(BackendContext context) {
  const CudaDevice device = find_cuda_device();
  if (!device.usable) throw StartupError(device.problem, device.hint);
  return std::make_unique<cuda::CudaBackend>(std::move(context), device);
}

}  // namespace strata::kernels
