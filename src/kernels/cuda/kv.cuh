// Where a token's keys and values lie in the KV pool.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/kernels.h"

namespace strata::kernels::cuda {

// The [page_tokens, head_dim] block of keys of one head in the page of `position`; the block of its
// values follows.
__device__ inline std::byte* kv_block(const KvLayer& kv, const StepInputs& inputs,
                                      const StepRow& row, int position, int head) {
  const StepSeq& seq = inputs.seqs[row.seq];
  const int logical = position / kv.page_tokens - seq.first_page[kv.group];
  const std::int32_t page = inputs.pages[seq.table[kv.group] + logical];
  return kv.pages + static_cast<std::size_t>(page) * kv.page_bytes +
         static_cast<std::size_t>(head) * 2 * kv.block_bytes;
}

}  // namespace strata::kernels::cuda
