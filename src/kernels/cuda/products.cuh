// Matrix times vectors on one warp: the one place that reads weights. A tile is R rows of a matrix
// and T input vectors; T = 1 is the matrix-vector product of decoding, T = 8 reads each weight once
// for eight rows of the step.
//
// Order of every sum, whatever R and T are: lane l takes K values [256 s + 8 l, + 8) for s = 0, 1,
// ... with fused multiply-adds, then lanes are added up as in sum_over_lanes. So a row's result
// depends on neither batch nor chunking.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/warp.cuh"

namespace strata::kernels::cuda {

inline constexpr int kLaneValues = 8;
inline constexpr int kTileRows = 4;
inline constexpr int kLeastBlocks = 2;  // of a multiprocessor: bounds the registers of products

// Row-major bfloat16 [rows, k], k a multiple of 8.
struct Bf16Weights {
  const std::uint16_t* data;
  int k;

  __device__ Bf16Weights(const std::uint16_t* values, int cols) : data(values), k(cols) {}
  __device__ explicit Bf16Weights(const Matrix& matrix)
      : data(static_cast<const std::uint16_t*>(matrix.data)), k(matrix.cols) {}

  static constexpr float kInputScale = 1.0F;
  using Values = uint4;
  __device__ Values load(int row, int at) const {
    return __ldg(reinterpret_cast<const uint4*>(data + static_cast<std::size_t>(row) * k + at));
  }
  __device__ static float add(const Values& weights, const float (&x)[8], float sum) {
    float w[8];
    unpack8(weights, w);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = fmaf(w[i], x[i], sum);
    return sum;
  }
};

// Row-major int8 [rows, k] with bfloat16 scales [rows, k/32], k a multiple of 32.
struct Int8Weights {
  const std::int8_t* data;
  const std::uint16_t* scales;
  int k;

  __device__ explicit Int8Weights(const Matrix& matrix)
      : data(static_cast<const std::int8_t*>(matrix.data)), scales(matrix.scales), k(matrix.cols) {}

  static constexpr float kInputScale = 1.0F;
  struct Values {
    uint2 words;
    std::uint16_t scale;
  };
  __device__ Values load(int row, int at) const {
    const std::size_t index = static_cast<std::size_t>(row) * k + at;
    return {__ldg(reinterpret_cast<const uint2*>(data + index)), __ldg(scales + index / 32)};
  }
  __device__ static float add(const Values& weights, const float (&x)[8], float sum) {
    float part = 0.0F;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const std::uint32_t word = i < 4 ? weights.words.x : weights.words.y;
      const int value = static_cast<std::int32_t>(word << (24 - 8 * (i % 4))) >> 24;
      part = fmaf(static_cast<float>(value), x[i], part);
    }
    return fmaf(part, from_bf16(weights.scale), sum);
  }
};

// Blocks [rows, k/32, 16] and scales [rows, k/32] of a slab, k a multiple of 32.
struct Mxfp4Weights {
  const std::uint8_t* blocks;
  const std::uint8_t* scales;
  int k;

  // Weights come as multiples of 2^-126; inputs times 2^64 keep products far from underflow, and
  // add() puts the remaining 2^62 right. All of it is exact.
  static constexpr float kInputScale = 18446744073709551616.0F;
  static constexpr float kRest = 4611686018427387904.0F;
  struct Values {
    std::uint32_t nibbles;
    std::uint32_t scale;
  };
  __device__ Values load(int row, int at) const {
    const std::size_t index = static_cast<std::size_t>(row) * k + at;
    return {__ldg(reinterpret_cast<const std::uint32_t*>(blocks + index / 2)),
            __ldg(scales + index / 32)};
  }
  __device__ static float add(const Values& weights, const float (&x)[8], float sum) {
    float part = 0.0F;
#pragma unroll
    for (int i = 0; i < 8; ++i) part = fmaf(tiny_e2m1(weights.nibbles, i), x[i], part);
    return fmaf(part * kRest, from_e8m0(weights.scale), sum);
  }
};

// Row rows[r] of `weights` times the input at x + input[t] for all r and t. The lane gets output
// (r, t) with r * T + t == sum_of_lane<kTileRows * T>(). Rows whose values are not wanted may
// repeat others.
template <int T, class Weights>
__device__ float multiply(const Weights& weights, const int (&rows)[kTileRows], const float* x,
                          const std::uint32_t (&input)[T]) {
  constexpr int kUnroll = T == 1 ? 4 : (T == 2 ? 2 : 1);  // loads in flight; registers bound them
  float sums[kTileRows * T] = {};
#pragma unroll kUnroll
  for (int at = lane_id() * kLaneValues; at < weights.k; at += kWarp * kLaneValues) {
    typename Weights::Values values[kTileRows];
#pragma unroll
    for (int r = 0; r < kTileRows; ++r) values[r] = weights.load(rows[r], at);
#pragma unroll
    for (int t = 0; t < T; ++t) {
      float inputs[8];
      load8(x + (input[t] + static_cast<std::uint32_t>(at)), inputs);
      if constexpr (Weights::kInputScale != 1.0F) {
#pragma unroll
        for (float& input : inputs) input *= Weights::kInputScale;
      }
#pragma unroll
      for (int r = 0; r < kTileRows; ++r)
        sums[r * T + t] = Weights::add(values[r], inputs, sums[r * T + t]);
    }
  }
  return sum_over_lanes(sums);
}

// The output a lane holds after multiply().
template <int T>
struct LaneOutput {
  int row = sum_of_lane<kTileRows * T>() / T;  // of the tile
  int token = sum_of_lane<kTileRows * T>() % T;
  bool owned = owns_sum<kTileRows * T>();
};

// Rows 0 and 1 of a tile pair with rows 2 and 3: the value of the other one of the pair.
__device__ inline float from_paired_row(float value) { return from_lane_xor(value, kWarp / 2); }

}  // namespace strata::kernels::cuda
