// Matrix times many rows of a step on tensor cores, for cards from compute capability 8.0 on:
// inputs in bfloat16, sums in float32. Its results are close to those of products.cuh, not equal.
//
// A warp multiplies kTensorRows rows of a matrix, as two blocks of eight pairs (first row, second
// row), by N times 8 input rows. Weights and inputs go from memory straight into the operands:
// which K values an instruction's slots hold is free as long as both sides agree, so each lane
// takes eight consecutive ones of every 32.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/products.cuh"

namespace strata::kernels::cuda {

inline constexpr int kTensorRows = 32;
inline constexpr int kTensorPairs = kTensorRows / 2;

// Eight weights as bfloat16 pairs, exact.
__device__ inline uint4 load_pairs(const Bf16Weights& weights, int row, int at) {
  return weights.load(row, at);
}
// Scales of 2^64 and more are not numbers here: no weight of a model is that large.
__device__ inline uint4 load_pairs(const Mxfp4Weights& weights, int row, int at) {
  const Mxfp4Weights::Values values = weights.load(row, at);
  // 2^-126 times 2^62 (kRest) times 2^64 and the scale, since one factor would be out of range.
  const float scale = from_e8m0(values.scale < 191 ? values.scale + 64 : 255);
  std::uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float low = tiny_e2m1(values.nibbles, 2 * i) * Mxfp4Weights::kRest * scale;
    const float high = tiny_e2m1(values.nibbles, 2 * i + 1) * Mxfp4Weights::kRest * scale;
    words[i] = (__float_as_uint(low) >> 16) | (__float_as_uint(high) & 0xffff0000U);
  }
  return {words[0], words[1], words[2], words[3]};
}

// Which pair and which input rows a lane's results belong to: sums[m][n][j] is the first row of
// pair 8 m + pair(), sums[m][n][2 + j] the second, for input row 8 n + token() + j.
__device__ inline int tensor_pair() { return lane_id() / 4; }
__device__ inline int tensor_token() { return lane_id() % 4 * 2; }

// rows[m][h]: row h of pair 8 m + tensor_pair(); x + input[n]: input row 8 n + lane / 4. Rows and
// inputs that are not wanted may repeat others. K is a multiple of 32.
template <int N, class Weights>
__device__ void multiply_tensor(const Weights& weights, const int (&rows)[2][2],
                                const std::uint16_t* x, const std::uint32_t (&input)[N],
                                float (&sums)[2][N][4]) {
  for (int at = lane_id() % 4 * kLaneValues; at < weights.k; at += 32) {
    uint4 a[2][2];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) a[m][h] = load_pairs(weights, rows[m][h], at);
    }
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const uint4 b =
          *reinterpret_cast<const uint4*>(x + (input[n] + static_cast<std::uint32_t>(at)));
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        mma_bf16(sums[m][n], a[m][0].x, a[m][1].x, a[m][0].y, a[m][1].y, b.x, b.y);
        mma_bf16(sums[m][n], a[m][0].z, a[m][1].z, a[m][0].w, a[m][1].w, b.z, b.w);
      }
    }
  }
}

// Calls `store(pair, token, first, second)` for each of the lane's results.
template <int N, class Store>
__device__ void each_result(const float (&sums)[2][N][4], Store&& store) {
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j)
        store(8 * m + tensor_pair(), 8 * n + tensor_token() + j, sums[m][n][j], sums[m][n][2 + j]);
    }
  }
}

// Calls `fn` with N for tensor cores: so many times 8 rows of a step share a read of the weights.
template <class Fn>
void with_tensor_tokens(std::int32_t rows, Fn&& fn) {
  if (rows <= 8) fn(std::integral_constant<int, 1>{});
  else if (rows <= 16) fn(std::integral_constant<int, 2>{});
  else if (rows <= 32) fn(std::integral_constant<int, 4>{});
  else fn(std::integral_constant<int, 8>{});
}

}  // namespace strata::kernels::cuda
