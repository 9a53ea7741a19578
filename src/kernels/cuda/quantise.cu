// Dense weights to int8, as they are loaded.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numbers.cuh"

namespace strata::kernels::cuda {
namespace {

static_assert(kInt8Group == kWarp);

// A lane holds one value, a warp one group: the same numbers as on the CPU (cpu/dense.cc).
__global__ void __launch_bounds__(kBlockThreads)
    quantise_kernel(const std::uint16_t* from, std::int8_t* to, std::uint16_t* scales,
                    std::int64_t groups) {
  const std::int64_t group = static_cast<std::int64_t>(blockIdx.x) * kBlockWarps + warp_id();
  if (group >= groups) return;
  const std::int64_t index = group * kInt8Group + lane_id();
  const float value = from_bf16(from[index]);
  const float largest = warp_max(fabsf(value));
  std::uint16_t scale = to_bf16(largest / 127.0F);
  if (from_bf16(scale) * 127.0F < largest) ++scale;  // the next one: no weight exceeds 127
  const float wide = from_bf16(scale);
  const float inverse = wide > 0.0F ? 1.0F / wide : 0.0F;
  to[index] = static_cast<std::int8_t>(fminf(fmaxf(rintf(value * inverse), -127.0F), 127.0F));
  if (lane_id() == 0) scales[group] = scale;
}

}  // namespace

void launch_quantise(cudaStream_t stream, const std::uint16_t* from, std::int8_t* to,
                     std::uint16_t* scales, std::int64_t count) {
  const std::int64_t groups = count / kInt8Group;
  launch(stream, dim3(divide_up(groups, kBlockWarps)), quantise_kernel, from, to, scales, groups);
}

}  // namespace strata::kernels::cuda
