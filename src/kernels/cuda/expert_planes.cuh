// MXFP4 experts as integer products see them.
#pragma once

#include "kernels/cuda/experts.cuh"
#include "kernels/cuda/planes.cuh"

namespace strata::kernels::cuda {

__device__ inline Mxfp4Pieces gate_up_pieces(const Slab& slab) {
  return {slab.data + slab.layout.gate_up_blocks, slab.data + slab.layout.gate_up_scales,
          slab.layout.hidden};
}
__device__ inline Mxfp4Pieces down_pieces(const Slab& slab) {
  return {slab.data + slab.layout.down_blocks, slab.data + slab.layout.down_scales,
          slab.layout.intermediate};
}

// One warp: 32 outputs, a lane's each, as block `block` of a row of k planes.
__device__ inline void store_block(std::byte* planes, int k, int block, float output) {
  const float values[1] = {output};
  int integers[1];
  const PlaneScale scale = to_planes<1, kWarp>(values, integers);
  const int at = block * kPlaneBlock + lane_id();
  auto* byte = reinterpret_cast<std::int8_t*>(planes + plane_chunk(at / 16) + at % 16);
  byte[0] = static_cast<std::int8_t>(high_plane(integers[0]));
  byte[padded_k(k)] = static_cast<std::int8_t>(low_plane(integers[0]));
  if (lane_id() == 0) reinterpret_cast<PlaneScale*>(planes + 2 * padded_k(k))[block] = scale;
}

}  // namespace strata::kernels::cuda
