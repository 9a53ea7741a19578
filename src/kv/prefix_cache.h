// PrefixCache: which pages hold the KV of which token blocks, on the device and in host memory, and
// the order in which pages without an owner are given up.
//
// A block is page_tokens tokens at a fixed place of a sequence; its KV depends on all tokens before
// it, hence the chained key. In either group it may have a device page, a host page or both. A
// cached device page without an owner is parked; parked pages are evicted cold ones first, then in
// the order of parking. What is evicted moves to a host page, the one longest unused. Integers
// only: the caller sees to the copying. Engine thread only.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "kv/block_hash.h"
#include "kv/kv_config.h"
#include "kv/page_lists.h"

namespace strata::kv {

inline constexpr PageId kNoHostPage = -1;

// Where a block's KV of one group is.
struct CachedAt {
  PageId page = kScrapPage;   // device
  PageId host = kNoHostPage;  // host pool

  bool on_device() const { return page != kScrapPage; }
  bool found() const { return on_device() || host != kNoHostPage; }
};

class PrefixCache {
 public:
  explicit PrefixCache(const KvConfig& config);

  // `tokens` are compared: two blocks with one key are never taken for each other.
  CachedAt find(Group group, const BlockHash& key, std::span<const TokenId> tokens) const;

  // `page` holds this block from now on, unless another device page already does.
  void insert(Group group, PageId page, const BlockHash& key, std::span<const TokenId> tokens);

  bool contains(PageId page) const { return block_of(page) >= 0; }

  // REQUIRES contains(page). A parked page has no owner and may be evicted.
  enum class Value { kKeep, kCold };  // kCold: of little use to later requests, goes first
  void park(PageId page, Value value) { parked_.push_back(static_cast<int>(value), page); }
  void unpark(PageId page) { parked_.remove(page); }
  bool is_parked(PageId page) const { return parked_.contains(page); }
  std::int32_t num_parked() const { return parked_.size(); }

  // REQUIRES num_parked() > 0. The page is forgotten; where `swap_out` is a host page, its content
  // must be copied there before the page is written.
  struct Evicted {
    PageId page = kScrapPage;
    PageId swap_out = kNoHostPage;
  };
  Evicted evict();

  // A held host page is not reused: between finding it and emitting the copy that reads it.
  void hold_host(PageId host) { host_used_.remove(host); }
  void unhold_host(PageId host) { host_used_.push_back(0, host); }

  void check_integrity() const;  // CHECKs, linear; for tests

 private:
  struct Block {
    BlockHash key{};
    std::array<CachedAt, kNumGroups> at;
  };

  std::int32_t block_of(PageId page) const { return block_of_page_[static_cast<size_t>(page)]; }
  CachedAt& place_of(PageId page);
  bool same_tokens(std::int32_t block, std::span<const TokenId> tokens) const;
  std::int32_t new_block(const BlockHash& key, std::span<const TokenId> tokens);
  void drop_if_empty(std::int32_t block);
  PageId take_host_page();

  const std::size_t page_tokens_;
  std::unordered_map<BlockHash, std::int32_t, BlockHashKey> index_;
  std::vector<Block> blocks_;
  std::vector<TokenId> tokens_;  // [blocks][page_tokens]
  std::vector<std::int32_t> free_blocks_;
  std::vector<std::int32_t> block_of_page_;       // [num_pages], -1: not cached
  std::vector<std::int32_t> block_of_host_page_;  // [num_swap_pages], -1: free
  std::vector<PageId> free_host_;
  PageLists<2> parked_;     // by Value
  PageLists<1> host_used_;  // longest unused first
};

}  // namespace strata::kv
