// What the KV side knows of the model: integers only, no device memory.
#pragma once

#include <array>
#include <cstdint>

#include "base/ids.h"

namespace strata::kv {

// Layers with full attention and layers with a sliding window have page tables of their own over
// one pool; a page has the same size in both.
enum Group : std::uint8_t { kFull = 0, kWindow = 1 };
inline constexpr int kNumGroups = 2;

struct KvConfig {
  std::int32_t page_tokens = 16;
  std::int32_t window = 128;        // keys a row of the window group sees, its own included
  std::int32_t num_pages = 0;       // of the pool, scrap page included
  std::int32_t num_swap_pages = 0;  // of the host pool, where evicted prefixes go
  std::array<bool, kNumGroups> has_group = {true, true};
  bool prefix_caching = true;
};

constexpr std::int32_t ceil_div(std::int32_t a, std::int32_t b) { return (a + b - 1) / b; }

// First logical page of the window group that a row at position `position` or later can read.
constexpr std::int32_t first_window_page(const KvConfig& config, std::int32_t position) {
  const std::int32_t first_key = position - config.window + 1;
  return first_key > 0 ? first_key / config.page_tokens : 0;
}

// The least pages with which a sequence of `positions` runs to its end, one token at a time.
std::int32_t min_pages(const KvConfig& config, std::int32_t positions);

}  // namespace strata::kv
