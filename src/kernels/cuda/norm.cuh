// x += deltas and its root mean square norm, one row by one block of kBlockThreads.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/warp.cuh"

namespace strata::kernels::cuda {

// The sum x + a + b of element i as the residual stream rounds it.
__device__ inline float with_deltas(const NormArgs& args, std::size_t index) {
  float value = args.x[index];
  if (args.delta_a != nullptr) value += args.delta_a[index];
  if (args.delta_b != nullptr) value += args.delta_b[index];
  return value;
}

// Threads see all of `out` after the next __syncthreads().
template <bool kWriteX>
__device__ void norm_row(const NormArgs& args, std::int32_t row, float* out) {
  __shared__ float scratch[kBlockWarps];
  const std::size_t first = static_cast<std::size_t>(row) * args.hidden;
  float squares = 0.0F;
  for (int i = threadIdx.x; i < args.hidden; i += kBlockThreads) {
    const float value = with_deltas(args, first + i);
    if constexpr (kWriteX) args.x[first + i] = value;
    out[i] = value;
    squares = fmaf(value, value, squares);
  }
  const float mean = block_sum(squares, scratch) / static_cast<float>(args.hidden);
  const float factor = 1.0F / sqrtf(mean + args.eps);
  for (int i = threadIdx.x; i < args.hidden; i += kBlockThreads)
    out[i] = out[i] * factor * args.weight[i];
}

}  // namespace strata::kernels::cuda
