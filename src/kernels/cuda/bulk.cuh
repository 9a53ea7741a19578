// Copies in bulk from global to shared memory and the barriers in shared memory that tell when they
// are there: compute capability 9.0 and newer.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace strata::kernels::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define STRATA_CUDA_90(...) __trap()
#else
#define STRATA_CUDA_90(...) __VA_ARGS__
#endif

__device__ inline std::uint32_t shared_address(const void* at) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(at));
}

// In shared memory. A phase ends when all that were to arrive have, and all bytes that were
// expected are there; phases have the parities 0, 1, 0, ...
struct PhaseBarrier {
  std::uint64_t state;

  __device__ void init(int arrivals) {
    STRATA_CUDA_90(asm volatile(
        "mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(this)), "r"(arrivals)
        : "memory"));
  }
  // Makes what init() did known to copies; once, by the thread that called it.
  __device__ static void publish() {
    STRATA_CUDA_90(asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"));
  }
  __device__ void arrive() {
    STRATA_CUDA_90(
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(this))
                     : "memory"));
  }
  __device__ void arrive_and_expect(int bytes) {
    STRATA_CUDA_90(asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(this)),
        "r"(bytes)
        : "memory"));
  }
  // Until the phase of this parity has ended.
  __device__ void wait(int parity) {
    STRATA_CUDA_90(
        asm volatile("{\n\t.reg .pred done;\n\t"
                     "again_%=:\n\t"
                     "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t"
                     "@!done bra again_%=;\n\t}" ::"r"(shared_address(this)),
                     "r"(parity)
                     : "memory"));
  }
};

// 16-byte aligned, a multiple of 16 bytes; `barrier` gets the bytes.
__device__ inline void copy_bulk(std::byte* to, const std::byte* from, int bytes,
                                 PhaseBarrier& barrier) {
  STRATA_CUDA_90(
      asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                   "[%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
                   "l"(from), "r"(bytes), "r"(shared_address(&barrier))
                   : "memory"));
}

#undef STRATA_CUDA_90

}  // namespace strata::kernels::cuda
