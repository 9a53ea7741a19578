#include "kernels/host/kv_pool.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"

namespace strata::kernels {
namespace {

std::size_t value_bytes(KvDtype dtype) {
  return dtype == KvDtype::kF32 ? sizeof(float) : sizeof(Bf16);
}

void store(std::byte* to, const float* from, std::int32_t count, KvDtype dtype) {
  if (dtype == KvDtype::kF32) {
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
    return;
  }
  auto* out = reinterpret_cast<Bf16*>(to);
  for (std::int32_t i = 0; i < count; ++i) out[i] = to_bf16(from[i]);
}

}  // namespace

KvGroup kv_group_of(const ModelConfig& config, LayerId layer) {
  return config.windowed[static_cast<std::size_t>(layer)] ? kWindowGroup : kFullGroup;
}

std::size_t kv_page_bytes(const ModelConfig& config, std::int32_t page_tokens, KvDtype dtype) {
  std::array<std::size_t, kNumKvGroups> layers{};
  for (LayerId layer = 0; layer < config.num_layers; ++layer) ++layers[kv_group_of(config, layer)];
  const std::size_t token_bytes =
      static_cast<std::size_t>(config.kv_dim()) * 2 * value_bytes(dtype);
  return std::max(layers[0], layers[1]) * static_cast<std::size_t>(page_tokens) * token_bytes;
}

KvPool::KvPool(const ModelConfig& config, const BackendOptions& options)
    : dtype_(options.kv_dtype),
      page_tokens_(options.page_tokens),
      head_dim_(config.head_dim),
      num_kv_heads_(config.num_kv_heads),
      num_pages_(options.num_pages),
      num_swap_pages_(options.num_swap_pages),
      page_bytes_(kv_page_bytes(config, options.page_tokens, options.kv_dtype)),
      block_bytes_(static_cast<std::size_t>(options.page_tokens) *
                   static_cast<std::size_t>(config.head_dim) * value_bytes(options.kv_dtype)),
      pool_("kv.pool", static_cast<std::size_t>(options.num_pages) * page_bytes_),
      swap_("kv.swap", static_cast<std::size_t>(options.num_swap_pages) * page_bytes_) {
  std::array<std::int32_t, kNumKvGroups> next{};
  for (LayerId layer = 0; layer < config.num_layers; ++layer)
    layer_in_group_.push_back(next[kv_group_of(config, layer)]++);
}

void KvPool::write(PageId page, LayerId layer, std::int32_t kv_head, std::int32_t token_in_page,
                   const float* key, const float* value) {
  const std::size_t offset = static_cast<std::size_t>(token_in_page) *
                             static_cast<std::size_t>(head_dim_) * value_bytes(dtype_);
  store(keys(page, layer, kv_head) + offset, key, head_dim_, dtype_);
  store(values(page, layer, kv_head) + offset, value, head_dim_, dtype_);
}

std::byte* KvPool::pool_page(PageId page) {
  STRATA_CHECK(page >= 0 && page < num_pages_, "KV page {} of {}", page, num_pages_);
  return pool_.data() + static_cast<std::size_t>(page) * page_bytes_;
}

std::byte* KvPool::swap_page(PageId page) {
  STRATA_CHECK(page >= 0 && page < num_swap_pages_, "swap page {} of {}", page, num_swap_pages_);
  return swap_.data() + static_cast<std::size_t>(page) * page_bytes_;
}

void KvPool::apply(const StepPlan& plan) {
  STRATA_CHECK(plan.kv == dtype_, "plan {} is for another KV dtype", plan.id);
  // All bits set is a NaN in float32 and in bfloat16.
  for (const PageId page : plan.poison) std::memset(pool_page(page), 0xff, page_bytes_);
  for (const PageCopy& each : plan.copies) copy(each);
}

void KvPool::copy(const PageCopy& copy) {
  switch (copy.kind) {
    case CopyKind::kDevice:
      std::memmove(pool_page(copy.dst), pool_page(copy.src), page_bytes_);
      break;
    case CopyKind::kSwapOut:
      std::memcpy(swap_page(copy.dst), pool_page(copy.src), page_bytes_);
      break;
    case CopyKind::kSwapIn:
      std::memcpy(pool_page(copy.dst), swap_page(copy.src), page_bytes_);
      break;
  }
}

}  // namespace strata::kernels
