// The tensor core instruction that every card from compute capability 8.0 on has.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace strata::kernels::cuda {

// c [16, 8] += a [16, 16] times b [16, 8], bfloat16 with float32 sums, over a warp. With g = lane /
// 4 and q = lane % 4 a lane holds rows g (a[0], a[2]) and g + 8 (a[1], a[3]) of a, column g of b,
// and of c row g (c[0], c[1]) and g + 8 (c[2], c[3]) in columns 2 q and 2 q + 1.
__device__ inline void mma_bf16(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
  __trap();  // older cards take the path of products.cuh
#endif
}

}  // namespace strata::kernels::cuda
