// KvPool: KV memory of the backends on the host. One pool of equal pages serves both groups.
//
// A page of a group holds page_tokens tokens of all layers of that group:
//   [layer in group][kv head][K, then V][token in page][head_dim], f32 or bf16.
// So the keys of one head in one page are one contiguous block of page_tokens * head_dim, followed
// by its values. Page 0 is the scrap page. Compute thread only; disjoint writes from pool workers
// are safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/bf16.h"
#include "base/memory.h"
#include "base/model_config.h"
#include "kernels/stages.h"
#include "plan/step_plan.h"

namespace strata::kernels {

KvGroup kv_group_of(const ModelConfig& config, LayerId layer);

// Bytes of one page, large enough for either group.
std::size_t kv_page_bytes(const ModelConfig& config, std::int32_t page_tokens, KvDtype dtype);

class KvPool {
 public:
  // Allocates options.num_pages pages at site "kv.pool" and num_swap_pages at "kv.swap".
  KvPool(const ModelConfig& config, const BackendOptions& options);

  KvDtype dtype() const { return dtype_; }
  std::int32_t page_tokens() const { return page_tokens_; }
  std::size_t page_bytes() const { return page_bytes_; }

  // First byte of the [page_tokens, head_dim] block of keys (values) of one head.
  std::byte* keys(PageId page, LayerId layer, std::int32_t kv_head) {
    return pool_.data() + offset_of(page, layer, kv_head);
  }
  std::byte* values(PageId page, LayerId layer, std::int32_t kv_head) {
    return keys(page, layer, kv_head) + block_bytes_;
  }

  // Writes one token's [head_dim] key and value of one head, rounding to the pool's dtype.
  void write(PageId page, LayerId layer, std::int32_t kv_head, std::int32_t token_in_page,
             const float* key, const float* value);

  // What a plan asks of pages: first poison, then copies in their order.
  void apply(const StepPlan& plan);

 private:
  std::size_t offset_of(PageId page, LayerId layer, std::int32_t kv_head) const {
    const std::size_t block =
        static_cast<std::size_t>(layer_in_group_[static_cast<std::size_t>(layer)]) *
            static_cast<std::size_t>(num_kv_heads_) +
        static_cast<std::size_t>(kv_head);
    return static_cast<std::size_t>(page) * page_bytes_ + block * 2 * block_bytes_;
  }
  void copy(const PageCopy& copy);
  std::byte* pool_page(PageId page);
  std::byte* swap_page(PageId page);

  const KvDtype dtype_;
  const std::int32_t page_tokens_;
  const std::int32_t head_dim_;
  const std::int32_t num_kv_heads_;
  const std::int32_t num_pages_;
  const std::int32_t num_swap_pages_;
  const std::size_t page_bytes_;
  const std::size_t block_bytes_;             // of one head's keys in one page
  std::vector<std::int32_t> layer_in_group_;  // [num_layers]
  HostBuffer pool_;
  HostBuffer swap_;
};

}  // namespace strata::kernels
