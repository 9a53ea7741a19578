// ExpertStore: owns the experts' slabs and says where each one is. Filled once by the loader;
// afterwards placement changes only between steps, published to the backend by epoch.
// On the CPU, and on a card that holds them all, every slab stays resident.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/memory.h"
#include "base/model_config.h"
#include "base/tensor_view.h"
#include "base/thread_pool.h"
#include "kernels/slab.h"
#include "kernels/stages.h"

namespace strata {

// The piece of a slab that one checkpoint tensor fills, for all experts of a layer.
// clang-format off
enum class SlabPiece : std::uint8_t {
  kGateUpBlocks, kGateUpScales, kGateUpBias, kDownBlocks, kDownScales, kDownBias,
  kGateUpBf16,  // [E, H, 2I] dequantised, transposed on the way in
  kDownBf16,    // [E, I, H]
};
// clang-format on

class ExpertStore {
 public:
  // Allocates every slab (site "weights.experts"; pages are touched when filled). `pool` may be
  // null; else adopt() shares the experts of a tensor out to its workers and it must outlive the
  // last adopt(). Throws MemoryError.
  explicit ExpertStore(const ModelConfig& config, ThreadPool* pool = nullptr);

  // Scatters the tensor's slices (leading dimension = expert) into the layer's slabs, straight
  // from the source. The view's shape must be the one the config gives. Rethrows what
  // view.source->read throws. One loader thread.
  void adopt(const TensorView& view, LayerId layer, SlabPiece piece);

  // Publishes every slab's address to the backend. Between steps only; returns the new epoch.
  EpochId publish(kernels::Backend& backend);

  const kernels::SlabLayout& layout() const { return layout_; }
  const std::byte* slab(LayerId layer, ExpertId expert) const;
  std::size_t total_bytes() const;

 private:
  struct Destination;

  std::byte* slab_data(LayerId layer, ExpertId expert);
  Destination destination_of(SlabPiece piece) const;
  void adopt_expert(const TensorView& view, const Destination& destination, LayerId layer,
                    ExpertId expert);

  const ModelConfig config_;
  const kernels::SlabLayout layout_;
  ThreadPool* const pool_;
  std::vector<HostBuffer> layers_;  // one buffer of num_experts slabs per layer
  EpochId epoch_ = 0;
};

}  // namespace strata
