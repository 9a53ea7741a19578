// The one way kernels are launched.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_layout.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/warp.cuh"

namespace strata::kernels::cuda {

constexpr unsigned divide_up(std::int64_t value, std::int64_t by) {
  return static_cast<unsigned>((value + by - 1) / by);
}

// Whether this program's code for the card is of at least this compute capability (x 10).
inline bool has_code(int capability) {
  static const int code = cuda_code_capability();
  return code >= capability;
}

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0;
  int value = 0;
  check(cudaGetDevice(&device), "asking for the card");
  check(cudaDeviceGetAttribute(&value, attribute, device), "asking for an attribute");
  return value;
}

// Shared memory that a block can have; code of compute capability 7.5 keeps to what those cards
// have wherever it runs.
inline int most_block_memory() {
  static const int most = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  return has_code(80) ? most : std::min(most, 64 << 10);
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

// A kernel of these may begin before the launch in front of it has ended (compute capability 9.0
// and newer): what it does before dependency_wait() must read nothing that launches write, and
// every block must call it. Older cards wait at the launch.
__device__ inline void dependency_wait() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}
// Lets the next launch begin as soon as all blocks have called this or ended.
__device__ inline void dependents_may_start() {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

// Whether `kernel` was compiled for cards that let launches begin early, and is to.
template <class Kernel>
bool begins_early(Kernel* kernel) {
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, kernel), "asking for a kernel");
  return attributes.ptxVersion >= 90 && early_launches();
}

struct Grid {
  dim3 blocks;
  std::size_t shared = 0;  // dynamic, bytes of a block
  unsigned threads = kBlockThreads;
  bool all_shared = false;  // no first-level cache, but as many blocks as fit
};

// Launches a kernel that calls dependency_wait().
template <class... Parameters, class... Arguments>
void launch_early(cudaStream_t stream, const Grid& grid, void (*kernel)(Parameters...),
                  Arguments&&... arguments) {
  if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return;
  constexpr std::size_t kAlwaysThere = std::size_t{40} << 10;  // 48 KiB with what is static
  if (grid.shared > kAlwaysThere)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(grid.shared)),
          "asking for shared memory");
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks;
  config.blockDim = dim3(grid.threads);
  config.dynamicSmemBytes = grid.shared;
  config.stream = stream;
  cudaLaunchAttribute attributes[2] = {};
  if (begins_early(kernel)) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
#if CUDART_VERSION >= 13000
    // A multiprocessor must be empty to change how its memory is split between shared memory and
    // the first-level cache: neighbours that want the same split can overlap. This one holds two
    // blocks of most, and leaves a cache.
    constexpr std::size_t kMost = std::size_t{80} << 10;
    cudaLaunchAttribute& split = attributes[config.numAttrs++];
    split.id = cudaLaunchAttributePreferredSharedMemoryCarveout;
    split.val.sharedMemCarveout = !grid.all_shared && grid.shared <= kMost ? 71 : 100;  // percent
#endif
  }
  config.attrs = attributes;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), "a launch");
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
