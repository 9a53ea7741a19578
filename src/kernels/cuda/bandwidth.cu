// What code the card runs, and how fast it reads its memory: the roof that `strata bench` compares
// with.
#include <algorithm>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/launch.cuh"

namespace strata::kernels {
namespace {

using cuda::kBlockThreads;

// Each thread reads 16 bytes at a time, four reads in flight; the sum keeps them from being
// dropped.
__global__ void read_kernel(const uint4* data, std::size_t count, std::uint32_t* sink) {
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * kBlockThreads;
  std::uint32_t sum = 0;
#pragma unroll 4
  for (std::size_t i = static_cast<std::size_t>(blockIdx.x) * kBlockThreads + threadIdx.x;
       i < count; i += stride) {
    const uint4 words = __ldg(data + i);
    sum += words.x ^ words.y ^ words.z ^ words.w;
  }
  if (sum == 0x9e3779b9U) *sink = sum;
}

}  // namespace

int cuda_code_capability() {
  cudaFuncAttributes attributes{};
  cuda::check(cudaFuncGetAttributes(&attributes, read_kernel), "asking for a kernel");
  return attributes.ptxVersion;
}

// In shared memory of compute capability 7.5 there is no room for tiles of bfloat16 experts.
bool cuda_tensor_cores(ExpertFormat experts) {
  return cuda_code_capability() >= (experts == ExpertFormat::kMxfp4 ? 75 : 80);
}

double cuda_read_bandwidth(std::size_t bytes) {
  constexpr int kPasses = 10;
  constexpr unsigned kBlocks = 2048;
  const cuda::Stream stream;
  cuda::DeviceArena memory("bench.roof", bytes + cuda::kAlign);
  // Not zeros: a card may read those faster.
  cuda::check(cudaMemsetAsync(memory.data(), 0x5a, memory.size(), stream.get()), "filling");
  const cuda::Event begin;
  const cuda::Event end;
  double best = 0.0;
  for (int pass = 0; pass < kPasses; ++pass) {
    begin.record(stream);
    cuda::launch(stream.get(), dim3(kBlocks), read_kernel,
                 reinterpret_cast<const uint4*>(memory.data()), bytes / sizeof(uint4),
                 reinterpret_cast<std::uint32_t*>(memory.data() + bytes));
    end.record(stream);
    stream.synchronize();
    const double seconds = static_cast<double>(end.milliseconds_since(begin)) * 1e-3;
    best = std::max(best, static_cast<double>(bytes) / seconds);
  }
  return best;
}

}  // namespace strata::kernels
