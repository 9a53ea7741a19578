// An expert as its kernels see it.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/products.cuh"

namespace strata::kernels::cuda {

struct Slab {
  const std::byte* data;
  const SlabLayout& layout;

  template <class Weights>
  __device__ Weights weights(std::size_t blocks, std::size_t scales, int k) const;
  __device__ float bias(std::size_t offset, int row) const {
    return from_bf16(__ldg(reinterpret_cast<const std::uint16_t*>(data + offset) + row));
  }
};
template <>
__device__ inline Mxfp4Weights Slab::weights<Mxfp4Weights>(std::size_t blocks, std::size_t scales,
                                                           int k) const {
  return {reinterpret_cast<const std::uint8_t*>(data + blocks),
          reinterpret_cast<const std::uint8_t*>(data + scales), k};
}
template <>
__device__ inline Bf16Weights Slab::weights<Bf16Weights>(std::size_t blocks, std::size_t /*scales*/,
                                                         int k) const {
  return {reinterpret_cast<const std::uint16_t*>(data + blocks), k};
}

__device__ inline float swiglu(float gate, float up, float limit, float alpha) {
  gate = gate > limit ? limit : gate;
  up = up > limit ? limit : (up < -limit ? -limit : up);
  return gate / (1.0F + expf(-alpha * gate)) * (up + 1.0F);
}

// Where input `i` lies in InputOrder::kFourApart.
__device__ inline int four_apart_place(int i) { return i / 8 * 8 + i % 4 * 2 + i / 4 % 2; }

// Pair `index` of a tile; the last one stands for those it lacks.
__device__ inline int pair_of(const Routing& routing, const ExpertTile& tile, int index) {
  return routing.order[tile.begin + min(index, tile.count - 1)];
}

// Tile `index`, read before it is known whether the step has so many: no wait.
struct TakenTile {
  ExpertTile tile;
  bool there;
  __device__ TakenTile(const Routing& routing, unsigned index)
      : tile(routing.tiles[index]), there(static_cast<std::int32_t>(index) < *routing.num_tiles) {}
};

// The most tiles a step of this shape can have.
inline unsigned most_tiles(const ExpertsArgs& args) {
  const std::int32_t pairs = args.rows * args.routing.top_k;
  if (args.rows == 1) return static_cast<unsigned>(pairs);
  const std::int32_t experts = pairs < args.routing.num_experts ? pairs : args.routing.num_experts;
  return static_cast<unsigned>(pairs / args.routing.tile_tokens + experts);
}

}  // namespace strata::kernels::cuda
