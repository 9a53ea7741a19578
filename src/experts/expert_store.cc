#include "experts/expert_store.h"

#include <algorithm>
#include <exception>
#include <mutex>

#include "base/check.h"

namespace strata {
namespace {

// Rows of the checkpoint's [K, rows] matrix held at a time while it is transposed: one cache line
// of a destination row is 32 values, and a strip of 32 source rows stays in the second-level cache.
constexpr std::int64_t kStripK = 32;

// dst[row, k] = src[k, row] for a strip of K values, both bf16. `k_total` is dst's row length.
void transpose_strip(const std::uint16_t* src, std::int64_t strip_k, std::int64_t rows,
                     std::uint16_t* dst, std::int64_t k_total) {
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t k = 0; k < strip_k; ++k) dst[row * k_total + k] = src[k * rows + row];
}

// Source [k, rows] bf16 starting at byte `begin` of the tensor -> `dst` [rows, k].
void read_transposed(const TensorSource& source, std::size_t begin, std::int64_t k,
                     std::int64_t rows, std::byte* dst) {
  std::vector<std::uint16_t> strip(static_cast<std::size_t>(kStripK * rows));
  auto* values = reinterpret_cast<std::uint16_t*>(dst);
  for (std::int64_t first = 0; first < k; first += kStripK) {
    const std::int64_t count = std::min(kStripK, k - first);
    const auto part = std::span(strip).first(static_cast<std::size_t>(count * rows));
    source.read(begin + static_cast<std::size_t>(first * rows) * 2, std::as_writable_bytes(part));
    transpose_strip(strip.data(), count, rows, values + first, k);
  }
}

}  // namespace

// Where one expert's slice of a tensor goes inside its slab.
struct ExpertStore::Destination {
  std::size_t offset = 0;
  std::size_t bytes = 0;
  std::int64_t transposed_k = 0;  // 0: copied as it is; else the slice is [k, rows] bf16
};

ExpertStore::ExpertStore(const ModelConfig& config, ThreadPool* pool)
    : config_(config),
      layout_(kernels::make_slab_layout(config.hidden, config.intermediate, config.expert_format)),
      pool_(pool) {
  const std::size_t layer_bytes = layout_.bytes * static_cast<std::size_t>(config.num_experts);
  for (LayerId layer = 0; layer < config.num_layers; ++layer)
    layers_.emplace_back("weights.experts", layer_bytes);
}

ExpertStore::Destination ExpertStore::destination_of(SlabPiece piece) const {
  const kernels::SlabLayout& slab = layout_;
  switch (piece) {
    case SlabPiece::kGateUpBlocks: return {slab.gate_up_blocks, slab.gate_up_block_bytes(), 0};
    case SlabPiece::kGateUpScales: return {slab.gate_up_scales, slab.gate_up_scale_bytes(), 0};
    case SlabPiece::kGateUpBias: return {slab.gate_up_bias, slab.gate_up_bias_bytes(), 0};
    case SlabPiece::kDownBlocks: return {slab.down_blocks, slab.down_block_bytes(), 0};
    case SlabPiece::kDownScales: return {slab.down_scales, slab.down_scale_bytes(), 0};
    case SlabPiece::kDownBias: return {slab.down_bias, slab.down_bias_bytes(), 0};
    case SlabPiece::kGateUpBf16:
      return {slab.gate_up_blocks, slab.gate_up_block_bytes(), slab.hidden};
    case SlabPiece::kDownBf16:
      return {slab.down_blocks, slab.down_block_bytes(), slab.intermediate};
  }
  STRATA_CHECK(false, "piece {}", static_cast<int>(piece));
  return {};
}

void ExpertStore::adopt(const TensorView& view, LayerId layer, SlabPiece piece) {
  const Destination destination = destination_of(piece);
  const auto experts = static_cast<std::size_t>(config_.num_experts);
  const bool bf16 = piece == SlabPiece::kGateUpBf16 || piece == SlabPiece::kDownBf16;
  const bool bias = piece == SlabPiece::kGateUpBias || piece == SlabPiece::kDownBias;
  STRATA_CHECK(bias || bf16 == (layout_.format == ExpertFormat::kBf16), "{}", view.name);
  STRATA_CHECK(view.num_bytes() == experts * destination.bytes, "{}: {} bytes", view.name,
               view.num_bytes());
  const int workers = pool_ == nullptr ? 1 : pool_->num_threads();
  std::mutex mutex;
  std::exception_ptr failure;  // GUARDED_BY(mutex)
  const auto work = [&](int worker) {
    const Slice slice = slice_of(config_.num_experts, 1, worker, workers);
    try {
      for (ExpertId expert = slice.begin; expert < slice.end; ++expert)
        adopt_expert(view, destination, layer, expert);
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
    }
  };
  if (pool_ == nullptr) work(0);
  else pool_->run(work);
  if (failure) std::rethrow_exception(failure);
}

void ExpertStore::adopt_expert(const TensorView& view, const Destination& destination,
                               LayerId layer, ExpertId expert) {
  const std::size_t begin = static_cast<std::size_t>(expert) * destination.bytes;
  std::byte* dst = slab_data(layer, expert) + destination.offset;
  if (const std::int64_t k = destination.transposed_k; k != 0) {
    const std::int64_t rows = static_cast<std::int64_t>(destination.bytes / 2) / k;
    read_transposed(*view.source, begin, k, rows, dst);
  } else {
    view.source->read(begin, {dst, destination.bytes});
  }
}

EpochId ExpertStore::publish(kernels::Backend& backend) {
  for (LayerId layer = 0; layer < config_.num_layers; ++layer)
    for (ExpertId expert = 0; expert < config_.num_experts; ++expert)
      backend.set_expert(layer, expert, kernels::ExpertSlab{slab(layer, expert)});
  return ++epoch_;
}

const std::byte* ExpertStore::slab(LayerId layer, ExpertId expert) const {
  STRATA_CHECK(
      layer >= 0 && layer < config_.num_layers && expert >= 0 && expert < config_.num_experts,
      "layer {} expert {}", layer, expert);
  return layers_[static_cast<std::size_t>(layer)].data() +
         static_cast<std::size_t>(expert) * layout_.bytes;
}

std::byte* ExpertStore::slab_data(LayerId layer, ExpertId expert) {
  return const_cast<std::byte*>(slab(layer, expert));  // the buffers are this object's own
}

std::size_t ExpertStore::total_bytes() const {
  std::size_t total = 0;
  for (const HostBuffer& layer : layers_) total += layer.size();
  return total;
}

}  // namespace strata
