// Number formats on the device, by bit operations that every card has: bfloat16, E2M1, E8M0.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace strata::kernels::cuda {

// The upper and the lower of two bfloat16 in one word.
__device__ inline float low_bf16(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_bf16(std::uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000U);
}
__device__ inline float from_bf16(std::uint16_t bits) {
  return __uint_as_float(static_cast<std::uint32_t>(bits) << 16);
}
// To nearest, ties to even; NaN stays NaN.
__device__ inline std::uint16_t to_bf16(float value) {
  const std::uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

// E2M1 number `index` of eight nibbles, times 2^-126: its sign, exponent and mantissa bits moved to
// their places in a float32 are that value, the subnormal 0.5 included.
__device__ inline float tiny_e2m1(std::uint32_t nibbles, int index) {
  const std::uint32_t top = nibbles << (28 - 4 * index);
  const auto spread = static_cast<std::uint32_t>(static_cast<std::int32_t>(top) >> 6);
  return __uint_as_float(spread & 0x81c00000U);
}

// A power of two; 255 is NaN.
__device__ inline float from_e8m0(std::uint32_t bits) {
  if (bits == 0) return __uint_as_float(0x00400000U);
  return __uint_as_float(bits == 255 ? 0x7fc00000U : bits << 23);
}

// Keys and values of the KV pool: float32, or the bits of bfloat16.
__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(std::uint16_t bits) { return from_bf16(bits); }
__device__ inline void store_rounded(float* to, float value) { *to = value; }
__device__ inline void store_rounded(std::uint16_t* to, float value) { *to = to_bf16(value); }

// Eight consecutive values, 32- or 16-byte aligned.
__device__ inline void load8(const float* from, float (&out)[8]) {
  const float4 a = *reinterpret_cast<const float4*>(from);
  const float4 b = *reinterpret_cast<const float4*>(from + 4);
  out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
  out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
}
__device__ inline void store8(float* to, const float (&values)[8]) {
  *reinterpret_cast<float4*>(to) = {values[0], values[1], values[2], values[3]};
  *reinterpret_cast<float4*>(to + 4) = {values[4], values[5], values[6], values[7]};
}
__device__ inline void unpack8(const uint4& words, float (&out)[8]) {
  out[0] = low_bf16(words.x), out[1] = high_bf16(words.x);
  out[2] = low_bf16(words.y), out[3] = high_bf16(words.y);
  out[4] = low_bf16(words.z), out[5] = high_bf16(words.z);
  out[6] = low_bf16(words.w), out[7] = high_bf16(words.w);
}
__device__ inline void load8(const std::uint16_t* from, float (&out)[8]) {
  unpack8(*reinterpret_cast<const uint4*>(from), out);
}

}  // namespace strata::kernels::cuda
