// The stages of the CUDA backend: what each one launches.
#include "kernels/cuda/cuda_stages.h"

#include <cmath>
#include <utility>

#include "base/check.h"
#include "kernels/cuda/kernels.h"
#include "kernels/host/kv_pool.h"

namespace strata::kernels::cuda {
namespace {

float* floats(Buffer buffer) { return static_cast<float*>(buffer.data); }

}  // namespace

// One stage call: counts it and times it by events, unless it is being recorded. A replayed call
// only counts.
class CudaBackend::Scope {
 public:
  Scope(CudaBackend& backend, Stage stage)
      : backend_(backend),
        stats_(backend.stats_[static_cast<std::size_t>(stage)]),
        timed_(!backend.graphs_->recording() && !backend.graphs_->replaying() &&
               (stage == Stage::kSample || !backend.graphs_->eager_for_good())) {
    ++stats_.calls;
    if (!timed_) return;
    backend_.spans_.push_back({stage, backend_.events_used_});
    backend_.next_event().record(backend_.stream_);
    end_ = backend_.events_used_;
    backend_.next_event();
  }
  ~Scope() {
    if (timed_) backend_.events_[end_].record(backend_.stream_);
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  bool launches() const { return !backend_.graphs_->replaying(); }
  void read(const DenseWeight& weight) {
    stats_.weight_bytes += static_cast<std::int64_t>(weight.bytes);
  }

 private:
  CudaBackend& backend_;
  StageStats& stats_;
  const bool timed_;
  std::size_t end_ = 0;
};

KvLayer CudaBackend::kv_layer(LayerId layer) const {
  const bool bf16 = options_.kv_dtype == KvDtype::kBf16;
  KvLayer kv;
  kv.block_bytes = static_cast<std::size_t>(options_.page_tokens) *
                   static_cast<std::size_t>(config_.head_dim) * (bf16 ? 2 : sizeof(float));
  const auto in_group = static_cast<std::size_t>(layer_in_group_[static_cast<std::size_t>(layer)]);
  kv.pages = kv_memory_->data() +
             in_group * static_cast<std::size_t>(config_.num_kv_heads) * 2 * kv.block_bytes;
  kv.page_bytes = page_bytes_;
  kv.page_tokens = options_.page_tokens;
  kv.heads = config_.num_kv_heads;
  kv.head_dim = config_.head_dim;
  kv.group = kv_group_of(config_, layer);
  kv.bf16 = bf16;
  return kv;
}

NormArgs CudaBackend::norm_args(Buffer x, const Deltas& deltas, WeightHandle norm,
                                float* out) const {
  return {.inputs = upload_->inputs(),
          .x = floats(x),
          .delta_a = floats(deltas.a),
          .delta_b = floats(deltas.b),
          .weight = dense_[norm].vector(),
          .eps = config_.rms_eps,
          .hidden = config_.hidden,
          .out = out};
}

Routing CudaBackend::routing(std::int32_t rows) const {
  std::int32_t tile_tokens = kTileTokens;
  if (expert_products(rows) == Products::kGemm)
    tile_tokens = is_batch(rows, slab_)
                      ? kBatchTokens
                      : tensor_tile_tokens(rows, config_.experts_per_token, config_.num_experts);
  return {.expert = at<std::int32_t>(layout_.pair_expert),
          .weight = at<float>(layout_.pair_weight),
          .order = at<std::int32_t>(layout_.pair_order),
          .tiles = at<ExpertTile>(layout_.tiles),
          .num_tiles = at<std::int32_t>(layout_.num_tiles),
          .experts_read = at<unsigned long long>(layout_.experts_read),
          .num_experts = config_.num_experts,
          .top_k = config_.experts_per_token,
          .tile_tokens = tile_tokens};
}

Products CudaBackend::products(std::int32_t rows) const {
  if (!options_.tensor_cores) return Products::kFloat;
  return rows <= kTileTokens ? Products::kStream : Products::kGemm;
}

Products CudaBackend::expert_products(std::int32_t rows) const {
  const Products how = products(rows);
  return how != Products::kFloat && is_batch(rows, slab_) ? Products::kGemm : how;
}

bool CudaBackend::norms_on_the_way(Products how, std::int32_t rows) {
  constexpr std::int32_t kMostRows = 2;  // every block norms all of them
  return how == Products::kStream && rows <= kMostRows;
}

const std::byte* const* CudaBackend::layer_slabs(LayerId layer) const {
  return at<const std::byte*>(layout_.slab_table) + slab_index(layer, 0);
}

// MXFP4 experts of few rows take their inputs as integers.
std::byte* CudaBackend::plane_inputs(std::int32_t rows) const {
  const bool takes =
      expert_products(rows) == Products::kStream && slab_.format == ExpertFormat::kMxfp4;
  return takes ? at<std::byte>(layout_.planes) : nullptr;
}

bool CudaBackend::one_row(std::int32_t rows) const {
  return products(rows) == Products::kStream &&
         is_one_row(rows, slab_, config_.num_experts, config_.experts_per_token);
}

std::uint16_t* CudaBackend::gemm_scratch(std::size_t offset) const {
  return options_.tensor_cores ? at<std::uint16_t>(offset) : nullptr;
}

// What the experts put between their products is free while other products run.
Partials CudaBackend::partials() const {
  if (!options_.tensor_cores) return {};
  const std::size_t bytes = layout_.normed16 - layout_.inner;  // and `outer`
  return {.sums = at<float>(layout_.inner),
          .size = static_cast<std::int64_t>(bytes / sizeof(float)),
          .arrived = at<std::int32_t>(layout_.arrivals)};
}

void CudaBackend::embed(const StepShape& shape, WeightHandle embedding, Buffer x) {
  Scope scope(*this, Stage::kEmbed);
  if (!scope.launches()) return;
  const DenseWeight& table = dense_[embedding];
  launch_embed(stream_.get(), shape.rows,
               {.inputs = upload_->inputs(),
                .table = table.matrix(),
                .first_row = table.first_row,
                .x = floats(x)});
}

void CudaBackend::attn_qkv(const StepShape& shape, LayerId layer, const LayerWeights& weights,
                           Buffer x, const Deltas& deltas, Buffer q) {
  Scope scope(*this, Stage::kAttnQkv);
  const DenseWeight& query = dense_[weights.q_weight];
  const DenseWeight& key = dense_[weights.k_weight];
  const DenseWeight& value = dense_[weights.v_weight];
  STRATA_CHECK(query.rows == config_.q_dim() && key.rows == config_.kv_dim(),
               "heads of another shard");
  for (const DenseWeight* read : {&query, &key, &value}) scope.read(*read);
  if (!scope.launches()) return;
  auto* normed = at<float>(layout_.normed);
  NormArgs norm = norm_args(x, deltas, weights.attn_norm, normed);
  const Products how = dense_products(products(shape.rows), query.matrix(), shape.rows);
  if (how == Products::kGemm) norm.out16 = gemm_scratch(layout_.normed16);
  const bool on_the_way = norms_on_the_way(how, shape.rows) && norm.delta_b == nullptr;
  unwritten_delta_ = on_the_way ? norm.delta_a : nullptr;
  const QkvArgs args{.inputs = upload_->inputs(),
                     .x = on_the_way ? nullptr : normed,
                     .norm = norm,
                     .products = how,
                     .x16 = gemm_scratch(layout_.normed16),
                     .partials = partials(),
                     .rows = shape.rows,
                     .weight = {query.matrix(), key.matrix(), value.matrix()},
                     .bias = {dense_[weights.q_bias].vector(), dense_[weights.k_bias].vector(),
                              dense_[weights.v_bias].vector()},
                     .inv_freq = inv_freq_,
                     .concentration = rope_.concentration,
                     .rotations = at<float2>(layout_.rotations),
                     .q_heads = config_.num_q_heads,
                     .kv = kv_layer(layer),
                     .q = floats(q)};
  if (how == Products::kGemm && !std::exchange(has_rotations_, true))
    launch_rotations(stream_.get(), args);
  if (!on_the_way) launch_norm(stream_.get(), shape.rows, norm);
  launch_qkv(stream_.get(), args);
}

void CudaBackend::attend(const StepShape& shape, LayerId layer, const LayerWeights& weights,
                         Buffer q, Buffer attn) {
  Scope scope(*this, Stage::kAttend);
  if (!scope.launches()) return;
  const bool windowed = kv_group_of(config_, layer) == kWindowGroup;
  launch_attend(stream_.get(), {.inputs = upload_->inputs(),
                                .q = floats(q),
                                .sinks = dense_[weights.sinks].vector(),
                                .kv = kv_layer(layer),
                                .q_heads = config_.num_q_heads,
                                .window = windowed ? config_.window : 0,
                                .scale = 1.0F / std::sqrt(static_cast<float>(config_.head_dim)),
                                .rows = shape.rows,
                                .seqs = shape.seqs,
                                .split_rows = layout_.split_rows,
                                .max_splits = layout_.max_splits,
                                .split_out = at<float>(layout_.split_out),
                                .split_state = at<float>(layout_.split_state),
                                .arrived = partials().arrived,
                                .out = floats(attn)});
}

void CudaBackend::attn_out(const StepShape& shape, LayerId, const LayerWeights& weights,
                           Buffer attn, Buffer delta) {
  Scope scope(*this, Stage::kAttnOut);
  const DenseWeight& matrix = dense_[weights.out_weight];
  scope.read(matrix);
  if (!scope.launches()) return;
  launch_dense(stream_.get(),
               {.weight = matrix.matrix(),
                .bias = rank_ == 0 ? dense_[weights.out_bias].vector() : nullptr,
                .x = floats(attn),
                .products = dense_products(products(shape.rows), matrix.matrix(), shape.rows),
                .x16 = gemm_scratch(layout_.attn16),
                .partials = partials(),
                .out = floats(delta),
                .count = shape.rows});
}

void CudaBackend::route(const StepShape& shape, LayerId layer, const LayerWeights& weights,
                        Buffer x, const Deltas& deltas) {
  Scope scope(*this, Stage::kRoute);
  const DenseWeight& router = dense_[weights.router_weight];
  scope.read(router);
  if (!scope.launches()) return;
  NormArgs norm = norm_args(x, deltas, weights.mlp_norm, at<float>(layout_.normed));
  if (expert_products(shape.rows) == Products::kGemm) {
    norm.out16 = gemm_scratch(layout_.normed16);
    norm.order16 = experts_input_order(slab_.format);
  }
  if (unwritten_delta_ != nullptr) {
    STRATA_CHECK(norm.delta_b == nullptr, "three deltas");
    norm.delta_b = std::exchange(norm.delta_a, std::exchange(unwritten_delta_, nullptr));
  }
  launch_route(stream_.get(), shape.rows,
               {.norm = norm,
                .weight = router.matrix(),
                .bias = dense_[weights.router_bias].vector(),
                .routing = routing(shape.rows),
                .planes = plane_inputs(shape.rows),
                .slabs = layer_slabs(layer),
                .logits = at<float>(layout_.router_logits),
                .arrived = at<std::int32_t>(layout_.router_arrivals),
                .one_row = one_row(shape.rows)});
}

void CudaBackend::experts(const StepShape& shape, LayerId layer, Buffer delta) {
  Scope scope(*this, Stage::kExperts);
  if (!scope.launches()) return;
  launch_experts(
      stream_.get(),
      {.routing = routing(shape.rows),
       .slabs = layer_slabs(layer),
       .slab = slab_,
       .x = at<float>(layout_.normed),
       .products = expert_products(shape.rows),
       .rows = shape.rows,
       .limit = config_.swiglu_limit,
       .alpha = config_.swiglu_alpha,
       .add_bias = rank_ == 0,
       .x16 = gemm_scratch(layout_.normed16),
       .inner16 = gemm_scratch(layout_.inner16),
       .inner = at<float>(layout_.inner),
       .logits = one_row(shape.rows) ? at<float>(layout_.router_logits) : nullptr,
       .planes = plane_inputs(shape.rows),
       .inner_planes =
           plane_inputs(shape.rows) == nullptr ? nullptr : at<std::byte>(layout_.inner_planes),
       .outer = at<float>(layout_.outer),
       .out = floats(delta)});
}

void CudaBackend::head(const StepShape&, const ModelWeights& weights, Buffer x,
                       const Deltas& deltas, std::int32_t first, std::int32_t count) {
  Scope scope(*this, Stage::kHead);
  const DenseWeight& matrix = dense_[weights.unembedding];
  STRATA_CHECK(matrix.rows == config_.vocab, "{} of {} ids", matrix.rows, config_.vocab);
  scope.read(matrix);
  if (!scope.launches()) return;
  auto* input = at<float>(layout_.head_input);
  const NormArgs norm = norm_args(x, deltas, weights.final_norm, input);
  const DenseArgs args{.weight = matrix.matrix(),
                       .bias = nullptr,
                       .x = input,
                       .products = dense_products(products(count), matrix.matrix(), count),
                       .x16 = gemm_scratch(layout_.normed16),
                       .partials = partials(),
                       .out = at<float>(layout_.logits),
                       .count = count};
  if (norms_on_the_way(args.products, count))
    return launch_normed_head(stream_.get(), first, norm, args);
  launch_head_norm(stream_.get(), first, count, norm);
  launch_dense(stream_.get(), args);
}

void CudaBackend::sample(const StepShape&, std::int32_t first, std::int32_t count) {
  Scope scope(*this, Stage::kSample);
  sampler_->sample(*step_, *upload_, first, count);
}

}  // namespace strata::kernels::cuda
