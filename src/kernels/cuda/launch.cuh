// The one way kernels are launched.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels/cuda/cuda_layout.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/warp.cuh"

namespace strata::kernels::cuda {

constexpr unsigned divide_up(std::int64_t value, std::int64_t by) {
  return static_cast<unsigned>((value + by - 1) / by);
}

// Blocks of `threads` with `memory` bytes of shared memory of variable size. An empty grid launches
// nothing.
template <class... Parameters, class... Arguments>
void launch_threads(cudaStream_t stream, dim3 grid, int threads, int memory,
                    void (*kernel)(Parameters...), Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(memory);
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), "a launch");
}

// Blocks of kBlockThreads.
template <class... Parameters, class... Arguments>
void launch(cudaStream_t stream, dim3 grid, void (*kernel)(Parameters...),
            Arguments&&... arguments) {
  launch_threads(stream, grid, kBlockThreads, 0, kernel, std::forward<Arguments>(arguments)...);
}

// Calls `fn` with the number of rows of a step that share a read of the weights.
template <class Fn>
void with_tile_tokens(std::int32_t rows, Fn&& fn) {
  if (rows <= 1) fn(std::integral_constant<int, 1>{});
  else if (rows <= 2) fn(std::integral_constant<int, 2>{});
  else if (rows <= 4) fn(std::integral_constant<int, 4>{});
  else fn(std::integral_constant<int, 8>{});
}

}  // namespace strata::kernels::cuda
