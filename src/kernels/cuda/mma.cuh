// What tensor-core products need of the instruction set, from compute capability 7.5 on: the matrix
// instruction, copies from global to shared memory, and the numbers that it all takes.
//
// Those numbers, "operands", are bfloat16, on compute capability 7.5, whose tensor cores do not
// know it, fp16. What becomes an operand is rounded to nearest; in fp16 what is beyond the largest
// number becomes that, and NaN stays NaN. Operands lie in pairs, the first in the lower half of a
// word.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/numbers.cuh"

namespace strata::kernels::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define STRATA_CUDA_80(...) ((void)0)
inline constexpr bool kFp16Operands = true;
#else
#define STRATA_CUDA_80(...) __VA_ARGS__
inline constexpr bool kFp16Operands = false;
#endif

// c [16, 8] += a [16, 16] times b [16, 8], with float32 sums, over a warp. With g = lane / 4 and q
// = lane % 4 a lane holds rows g (a[0], a[2]) and g + 8 (a[1], a[3]) of a, column g of b, and of c
// row g (c[0], c[1]) and g + 8 (c[2], c[3]) in columns 2 q and 2 q + 1.
__device__ inline void mma(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                           std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  if constexpr (kFp16Operands) {
    const auto half = [&c](std::uint32_t first, std::uint32_t second, std::uint32_t column) {
      asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
          "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(first), "r"(second), "r"(column));
    };
    half(a0, a1, b0);
    half(a2, a3, b1);
  } else {
    STRATA_CUDA_80(
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1)));
  }
}

// The first `bytes` of 16 bytes at `from`, and zeros for the rest; both 16-byte aligned. On compute
// capability 7.5 all of them or none, and they are there at once.
__device__ inline void copy16(std::byte* to, const std::byte* from, int bytes) {
  if constexpr (kFp16Operands)
    *reinterpret_cast<uint4*>(to) = bytes == 0 ? uint4{} : *reinterpret_cast<const uint4*>(from);
  else
    STRATA_CUDA_80(asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                                :
                                : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(to))),
                                  "l"(from), "r"(bytes)
                                : "memory"));
}
// Ends a group of copies.
__device__ inline void commit_copies() {
  STRATA_CUDA_80(asm volatile("cp.async.commit_group;" : : : "memory"));
}
// Waits until at most `pending` (up to 3) of the thread's groups are not done.
__device__ inline void wait_copies(int pending) {
  switch (pending) {
    case 0: STRATA_CUDA_80(asm volatile("cp.async.wait_group 0;" : : : "memory")); break;
    case 1: STRATA_CUDA_80(asm volatile("cp.async.wait_group 1;" : : : "memory")); break;
    case 2: STRATA_CUDA_80(asm volatile("cp.async.wait_group 2;" : : : "memory")); break;
    default: STRATA_CUDA_80(asm volatile("cp.async.wait_group 3;" : : : "memory")); break;
  }
}

// Four 8 x 8 blocks of 16-bit numbers in shared memory; lane 8 i + r gives the address of row r of
// block i. Of block i a lane gets in to[i] row lane / 4, columns 2 q and 2 q + 1 (q = lane % 4),
// or, if they are transposed, rows 2 q and 2 q + 1 of column lane / 4.
template <bool kTransposed>
__device__ inline void load_blocks(std::uint32_t (&to)[4], const std::byte* row) {
  const auto at = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
}

__device__ inline std::uint16_t to_fp16(float value) {
  constexpr float kMost = 65504.0F;
  if (fabsf(value) > kMost) value = copysignf(kMost, value);
  std::uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
__device__ inline float from_fp16(std::uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

__device__ inline std::uint16_t to_operand(float value) {
  return kFp16Operands ? to_fp16(value) : to_bf16(value);
}
__device__ inline std::uint32_t operand_pair(float low, float high) {
  std::uint32_t pair = 0;
  if constexpr (kFp16Operands) pair = to_fp16(low) | std::uint32_t{to_fp16(high)} << 16;
  else STRATA_CUDA_80(asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low)));
  return pair;
}
__device__ inline float low_operand(std::uint32_t pair) {
  return kFp16Operands ? from_fp16(static_cast<std::uint16_t>(pair)) : low_bf16(pair);
}
__device__ inline float high_operand(std::uint32_t pair) {
  return kFp16Operands ? from_fp16(static_cast<std::uint16_t>(pair >> 16)) : high_bf16(pair);
}
// What memory holds in bfloat16. In fp16 it is exact within the normal numbers' range.
__device__ inline std::uint32_t bf16_operands(std::uint32_t pair) {
  if constexpr (kFp16Operands) return operand_pair(low_bf16(pair), high_bf16(pair));
  else return pair;
}
__device__ inline uint4 bf16_operands(const uint4& pairs) {
  return {bf16_operands(pairs.x), bf16_operands(pairs.y), bf16_operands(pairs.z),
          bf16_operands(pairs.w)};
}

// Pairs of operands: a b + c, rounded once.
__device__ inline std::uint32_t multiply_add_pairs(std::uint32_t a, std::uint32_t b,
                                                   std::uint32_t c) {
  std::uint32_t d = 0;
  if constexpr (kFp16Operands)
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  else STRATA_CUDA_80(asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c)));
  return d;
}

// The block's shared memory of variable size.
__device__ inline std::byte* block_memory() {
  extern __shared__ uint4 memory[];
  return reinterpret_cast<std::byte*>(memory);
}

#undef STRATA_CUDA_80

}  // namespace strata::kernels::cuda
