// What the attention kernels of tensor cores share: heads of 64 values, bfloat16 keys and values,
// up to eight query heads a KV head, powers of two.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/mma.cuh"

namespace strata::kernels::cuda {

inline constexpr int kAttendDim = 64;
inline constexpr int kAttendHeads = 8;  // query heads of a KV head
inline constexpr int kTokenBytes = kAttendDim * 2;
inline constexpr float kLog2E = 1.44269504088896341F;
// A maximum of no scores: no score of finite inputs is so low.
inline constexpr float kNoMax = -1e30F;

// [first, end) of the keys a row sees.
struct KeyRange {
  int first;
  int end;
};
__device__ inline KeyRange keys_of(const AttendArgs& args, int position) {
  return {args.window > 0 ? max(0, position - args.window + 1) : 0, position + 1};
}

// Where the tokens of one sequence lie, for one KV head. A token's place is counted in tokens from
// `keys`; its value lies `values` bytes behind its key.
struct TokenPlaces {
  const std::byte* keys;
  std::size_t values;
  const std::int32_t* pages;  // of logical page 0, which the table need not reach
  std::uint32_t page_tokens;
  std::uint32_t reciprocal;  // 2^32 / page_tokens, rounded up; 0: one token a page
  std::uint32_t page_places;

  __device__ TokenPlaces(const AttendArgs& args, const StepSeq& seq, int kv_head)
      : keys(args.kv.pages + static_cast<std::size_t>(kv_head) * 2 * args.kv.block_bytes),
        values(args.kv.block_bytes),
        pages(args.inputs.pages + (seq.table[args.kv.group] - seq.first_page[args.kv.group])),
        page_tokens(static_cast<std::uint32_t>(args.kv.page_tokens)),
        reciprocal(0xffffffffU / page_tokens + 1),
        page_places(static_cast<std::uint32_t>(args.kv.page_bytes / kTokenBytes)) {}

  // Exact while position * page_tokens < 2^32.
  __device__ std::uint32_t of(int position) const {
    const auto at = static_cast<std::uint32_t>(position);
    const std::uint32_t logical = reciprocal == 0 ? at : __umulhi(at, reciprocal);
    const auto page = static_cast<std::uint32_t>(pages[logical]);
    return page * page_places + (at - logical * page_tokens);
  }
  __device__ const std::byte* key(std::uint32_t place) const {
    return keys + static_cast<std::size_t>(place) * kTokenBytes;
  }
  // Brings a token's key and value near; what is not written yet may come.
  __device__ void prefetch(std::uint32_t place) const {
    const std::byte* const at = key(place);
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
    asm volatile("prefetch.global.L2 [%0];" ::"l"(at + values));
  }
};

// 2^x; results below 2^-126 are zeros.
__device__ inline float power_of_2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace strata::kernels::cuda
