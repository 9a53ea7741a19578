// Random contents of card memory for benchmarks.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace strata::kernels::cuda {

__device__ inline std::uint32_t mixed(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return static_cast<std::uint32_t>(z >> 32);
}

// Words of bfloat16 pairs of magnitudes 2^-7 to 2^-5, or any bytes.
static __global__ void fill_kernel(std::uint32_t* to, std::size_t count, std::uint64_t seed,
                                   bool bf16) {
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * blockDim.x;
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    const std::uint32_t bits = mixed(seed + i * 0x9e3779b97f4a7c15ULL);
    to[i] = bf16 ? (bits & 0x80ff80ffU) | 0x3c003c00U : bits;
  }
}

static __global__ void floats_kernel(float* to, std::size_t count, std::uint64_t seed) {
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * blockDim.x;
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride)
    to[i] = static_cast<float>(static_cast<std::int32_t>(mixed(seed + i * 0x9e3779b97f4a7c15ULL))) *
            0x1p-31F;
}

}  // namespace strata::kernels::cuda
