// x += deltas and its root mean square norm, one row by one block.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/warp.cuh"

namespace strata::kernels::cuda {

// Eight values as operands.
__device__ inline void store8_operands(std::uint16_t* to, const float (&values)[8],
                                       InputOrder order) {
  const bool plain = order == InputOrder::kPlain;
  std::uint32_t pairs[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float low = plain ? values[2 * j] : values[j];
    const float high = plain ? values[2 * j + 1] : values[j + 4];
    pairs[j] = operand_pair(low, high);
  }
  *reinterpret_cast<uint4*>(to) = {pairs[0], pairs[1], pairs[2], pairs[3]};
}

// Eight elements of x + a + b.
__device__ inline void load_with_deltas(const NormArgs& args, std::size_t index,
                                        float (&values)[8]) {
  load8(args.x + index, values);
  for (const float* delta : {args.delta_a, args.delta_b}) {
    if (delta == nullptr) continue;
    float more[8];
    load8(delta + index, more);
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] += more[i];
  }
}

// Norms a row by a block of kWarps warps and gives each eight of it to `store(i, values)`; x is
// written with the sums if kWriteX.
template <bool kWriteX, int kWarps, class Store>
__device__ void norm_row(const NormArgs& args, std::int32_t row, Store&& store) {
  __shared__ float scratch[kWarps];
  constexpr int kStride = kWarps * kWarp * 8;
  constexpr int kHeld = (4096 + kStride - 1) / kStride;  // eights a thread keeps; others are reread
  const std::size_t first = static_cast<std::size_t>(row) * args.hidden;
  float held[kHeld][8];
  float squares = 0.0F;
  const auto add = [&](const float(&values)[8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) squares = fmaf(values[i], values[i], squares);
  };
  const int begin = static_cast<int>(threadIdx.x) * 8;
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    if (begin + h * kStride >= args.hidden) break;
    load_with_deltas(args, first + begin + h * kStride, held[h]);
    add(held[h]);
  }
  for (int i = begin + kHeld * kStride; i < args.hidden; i += kStride) {
    float values[8];
    load_with_deltas(args, first + i, values);
    add(values);
  }
  const float mean = block_sum<kWarps>(squares, scratch) / static_cast<float>(args.hidden);
  const float factor = 1.0F / sqrtf(mean + args.eps);
  const auto finish = [&](int i, float(&values)[8]) {
    if constexpr (kWriteX) store8(args.x + first + i, values);
    float weight[8];
    load8(args.weight + i, weight);
#pragma unroll
    for (int j = 0; j < 8; ++j) values[j] = values[j] * factor * weight[j];
    store(i, values);
  };
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    if (begin + h * kStride >= args.hidden) break;
    finish(begin + h * kStride, held[h]);
  }
  for (int i = begin + kHeld * kStride; i < args.hidden; i += kStride) {
    float values[8];
    load_with_deltas(args, first + i, values);
    finish(i, values);
  }
}

}  // namespace strata::kernels::cuda
