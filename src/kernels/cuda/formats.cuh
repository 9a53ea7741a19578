// Weights of tensor-core products as they lie in shared memory, and as operands.
//
// A stage of a product holds kStep values of each row of a tile. A lane with q = lane % 4 takes 16
// values of every 64 of a row, [16 q, 16 q + 16), whatever the format: which K values an
// instruction's slots hold is free as long as weights and inputs agree, and this way a lane reads
// whole words and a scale serves all it reads. Rows are placed so that eight neighbouring lanes'
// reads (a phase of 16-byte reads) touch all banks once.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/warp.cuh"

namespace strata::kernels::cuda {

// Values and places of bfloat16 rows: in lines of 64 values, with the 16-byte chunks of odd rows
// exchanged pairwise.
template <int Step>
struct Bf16Rows {
  static constexpr int kRowBytes = 2 * Step;
  __device__ static int place(int row, int chunk) {
    return row * kRowBytes + chunk / 8 * 128 + ((chunk % 8) ^ (row & 1)) * 16;
  }
  // Half `half` (8 values) of the lane's 16 in line `line` of `row`, whose parity is lane / 4's.
  __device__ static uint4 read(const std::byte* rows, int row, int line, int half) {
    const int lane = lane_id();
    return *reinterpret_cast<const uint4*>(rows + row * kRowBytes + line * 128 + lane % 4 * 32 +
                                           ((half ^ (lane / 4 & 1)) * 16));
  }
};

template <int Step>
struct Bf16Format {
  static constexpr int kStep = Step;      // values of a row in a stage
  static constexpr int kChunkValues = 8;  // of 16 bytes
  static constexpr int kRowBytes = 2 * Step;
  static constexpr int kCopyLanes = 8;   // threads that copy a row together
  static constexpr int kScaleBytes = 0;  // of 32 values
  static constexpr InputOrder kInputOrder = InputOrder::kPlain;
  static constexpr float kUnit = 1.0F;  // of a sum of products
  // A lane's 16 values.
  struct Values {
    const std::byte* rows;
    int row, line;
  };
  __device__ static int place(int row, int chunk) { return Bf16Rows<Step>::place(row, chunk); }
  __device__ static Values load(const std::byte* rows, int row, int line, const std::byte*) {
    return {rows, row, line};
  }
  // Half of them as pairs of operands.
  __device__ static uint4 pairs(const Values& values, int half) {
    return bf16_operands(Bf16Rows<Step>::read(values.rows, values.row, values.line, half));
  }
};

// int8 with a bfloat16 scale; the product of both is rounded. As fp16 it is larger by 2^6, so that
// scales of small weights stay normal numbers.
template <int Step>
struct Int8Format {
  static_assert(Step == 64 || Step == 128);
  static constexpr int kStep = Step;
  static constexpr int kChunkValues = 16;
  static constexpr int kRowBytes = Step;
  static constexpr int kCopyLanes = 4;
  static constexpr int kScaleBytes = 2;
  static constexpr float kUnit = kFp16Operands ? 0x1p-6F : 1.0F;
  struct Values {
    uint4 bytes;
    std::uint32_t scale;  // twice
  };
  __device__ static int place(int row, int chunk) {
    return row * kRowBytes + (Step == 64 ? chunk : chunk ^ (row & 1) * 4) * 16;
  }
  __device__ static Values load(const std::byte* rows, int row, int line, const std::byte* scale) {
    const int chunk = (Step == 64 ? 0 : line ^ (lane_id() / 4 & 1)) * 4 + lane_id() % 4;
    std::uint16_t factor = *reinterpret_cast<const std::uint16_t*>(scale);
    if constexpr (kFp16Operands) factor = to_fp16(from_bf16(factor) * (1.0F / kUnit));
    return {*reinterpret_cast<const uint4*>(rows + row * kRowBytes + chunk * 16),
            factor * 0x10001U};
  }
  // Two bytes from `index` on. As bfloat16: 128 + the low seven bits has those in its mantissa, and
  // so has what must be taken away, 128 or 256, the sign bit in its exponent. As fp16: 1024 + a
  // byte has it in its mantissa, which is 128 too much once its sign bit is turned.
  __device__ static std::uint32_t pair(std::uint32_t bytes, int index, std::uint32_t scale) {
    const unsigned places = index == 0 ? 0x4140U : 0x4342U;
    std::uint32_t value;
    if constexpr (kFp16Operands) {
      const std::uint32_t spread = __byte_perm(bytes ^ 0x80808080U, 0x64646464U, places);
      value = multiply_add_pairs(spread, 0x3c003c00U /* 1 */, 0xe480e480U /* -1152 */);
    } else {
      const std::uint32_t spread = __byte_perm(bytes, 0x43434343U, places);
      value = multiply_add_pairs(spread & 0xff80ff80U, 0xbf80bf80U /* -1 */, spread & 0xff7fff7fU);
    }
    return multiply_add_pairs(value, scale, 0x80008000U /* -0 */);
  }
  __device__ static uint4 pairs(const Values& values, int half) {
    const std::uint32_t low = half == 0 ? values.bytes.x : values.bytes.z;
    const std::uint32_t high = half == 0 ? values.bytes.y : values.bytes.w;
    return {pair(low, 0, values.scale), pair(low, 2, values.scale), pair(high, 0, values.scale),
            pair(high, 2, values.scale)};
  }
};

// Blocks and scales of a slab. Operands are exact, and smaller by 2^64, so that a scale's factor
// stays in range while sign, exponent and mantissa bits of an E2M1 number, moved to their places,
// mean 2^-126 of its value. Scales of 2^66 and more are not numbers here; below 2^-60 bits are
// lost. As fp16 they are smaller by 2^4, the moved bits mean 2^-14, and the bounds are 2^6 and
// 2^-19. No weight of a model is that large or small.
template <int Step>
struct Mxfp4Format {
  static constexpr int kStep = Step;
  static constexpr int kChunkValues = 32;
  static constexpr int kRowBytes = Step / 2;
  static constexpr int kCopyLanes = 2;
  static constexpr int kScaleBytes = 1;
  static constexpr InputOrder kInputOrder = InputOrder::kFourApart;  // as experts_input_order
  static constexpr float kUnit = kFp16Operands ? 0x1p4F : 0x1p64F;
  struct Values {
    uint2 nibbles;
    std::uint32_t scale;  // 2^62 (2^10) times the E8M0 number, twice
  };
  __device__ static int place(int row, int chunk) { return row * kRowBytes + chunk * 16; }
  __device__ static Values values(const uint2& nibbles, std::uint32_t scale) {
    if constexpr (kFp16Operands) {
      if (scale > 132) return {nibbles, 0x7e007e00U};
      return {nibbles, scale < 103 ? 0 : (scale - 102) * 0x04000400U};
    }
    return {nibbles, scale <= 192 ? scale * 0x00800080U + 0x1f001f00U : 0x7fc07fc0U};
  }
  __device__ static Values load(const std::byte* rows, int row, int line, const std::byte* scale) {
    const std::byte* at = rows + row * kRowBytes + line * 32 + lane_id() % 4 * 8;
    return values(*reinterpret_cast<const uint2*>(at), static_cast<std::uint32_t>(*scale));
  }
  // Nibbles i and i + 4 as pairs: a product puts copies of a nibble where the sign and where
  // exponent and mantissa belong. It runs beside the other integer instructions, which are what
  // this is bound by.
  __device__ static std::uint32_t pair(std::uint32_t nibbles, std::uint32_t copies,
                                       std::uint32_t scale) {
    return multiply_add_pairs(nibbles * copies & 0x81c081c0U, scale, 0x80008000U /* -0 */);
  }
  // The same where sign and the other bits are too close for a product: `word` has the nibbles four
  // times `index` bits above their places.
  __device__ static std::uint32_t fp16_pair(std::uint32_t word, int index, std::uint32_t scale) {
    const std::uint32_t signs = word << (12 - 4 * index) & 0x80008000U;
    const std::uint32_t others = (index < 3 ? word << (9 - 4 * index) : word >> 3) & 0x0e000e00U;
    return multiply_add_pairs(signs | others, scale, 0x80008000U /* -0 */);
  }
  __device__ static uint4 pairs(const Values& values, int half) {
    const std::uint32_t word = half == 0 ? values.nibbles.x : values.nibbles.y;
    if constexpr (kFp16Operands)
      return {fp16_pair(word, 0, values.scale), fp16_pair(word, 1, values.scale),
              fp16_pair(word, 2, values.scale), fp16_pair(word, 3, values.scale)};
    constexpr std::uint32_t kLower = (1U << 12) + (1U << 6);
    constexpr std::uint32_t kUpper = kLower >> 4;
    return {pair(word & 0x000f000fU, kLower, values.scale),
            pair(word & 0x00f000f0U, kUpper, values.scale),
            pair(word >> 8 & 0x000f000fU, kLower, values.scale),
            pair(word >> 8 & 0x00f000f0U, kUpper, values.scale)};
  }
};

}  // namespace strata::kernels::cuda
