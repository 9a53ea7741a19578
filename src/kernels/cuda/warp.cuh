// Sums and maxima over a warp and over a block, in an order that depends on nothing but the lanes.
#pragma once

#include <cuda_runtime.h>

namespace strata::kernels::cuda {

inline constexpr int kWarp = 32;
inline constexpr int kBlockThreads = 256;
inline constexpr int kBlockWarps = kBlockThreads / kWarp;

__device__ inline int lane_id() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ inline int warp_id() { return static_cast<int>(threadIdx.x) / kWarp; }

// Asks for the line of 128 bytes that holds `from`.
__device__ inline void prefetch_line(const void* from) {
  asm volatile("prefetch.global.L2 [%0];" : : "l"(from));
}

template <class T>
__device__ T from_lane_xor(T value, int distance) {
  return __shfl_xor_sync(0xffffffffU, value, distance);
}

// Every lane gets the result.
__device__ inline float warp_sum(float value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value += from_lane_xor(value, distance);
  return value;
}
__device__ inline float warp_max(float value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value = fmaxf(value, from_lane_xor(value, distance));
  return value;
}

// Which of N (a power of two up to 32) sums a lane holds after sum_over_lanes; lanes that hold the
// same one are neighbours, and the first of them is its owner.
template <int N>
__device__ int sum_of_lane() {
  return lane_id() * N / kWarp;
}
template <int N>
__device__ bool owns_sum() {
  return lane_id() % (kWarp / N) == 0;
}

// Adds each of N values up over the warp and leaves value sum_of_lane<N>() with the lane. Whatever
// N is, lanes pair up at distances 16, 8, 4, 2, 1, so a sum's bits do not depend on N.
template <int N>
__device__ float sum_over_lanes(float (&values)[N]) {
  int distance = kWarp / 2;
#pragma unroll
  for (int half = N / 2; half > 0; half /= 2) {
    const bool upper = (lane_id() & distance) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float keep = upper ? values[i + half] : values[i];
      const float give = upper ? values[i] : values[i + half];
      values[i] = keep + from_lane_xor(give, distance);
    }
    distance /= 2;
  }
  for (; distance > 0; distance /= 2) values[0] += from_lane_xor(values[0], distance);
  return values[0];
}

// Over a block of so many warps; every thread gets the result. `scratch` is shared memory.
template <int kWarps>
__device__ float block_sum(float value, float (&scratch)[kWarps]) {
  value = warp_sum(value);
  if (lane_id() == 0) scratch[warp_id()] = value;
  __syncthreads();
  float total = 0.0F;
  for (const float part : scratch) total += part;
  return total;
}

}  // namespace strata::kernels::cuda
