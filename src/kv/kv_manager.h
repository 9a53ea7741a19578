// KvManager: the pages of every sequence. It hands pages of one pool to the tables of the full and
// the window group, takes window pages back as positions are confirmed, finds cached prefixes, and
// answers what a request can ever need. Integers only. Engine thread only.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "kv/block_hash.h"
#include "kv/block_pool.h"
#include "kv/kv_config.h"
#include "kv/prefix_cache.h"

namespace strata::kv {

// Pages of logical pages [first_page, first_page + pages.size()) of one group.
struct GroupTable {
  std::vector<PageId> pages;
  std::int32_t first_page = 0;
  std::int32_t changed_from = 0;  // logical page; entries below are known to the device

  std::int32_t end_page() const { return first_page + static_cast<std::int32_t>(pages.size()); }
};

// Owned by a sequence, changed by KvManager only (changed_from: also by whoever uploads it).
struct SequencePages {
  std::array<GroupTable, kNumGroups> groups;
  BlockChain chain;
  std::int32_t published_blocks = 0;  // offered to the prefix cache so far
  // Window pages shortly before this position are worth keeping: the next turn starts there.
  std::int32_t checkpoint = 0;
  std::vector<PageId> checkpoint_pages;  // those, once they were given back

  bool empty() const { return groups[kFull].pages.empty() && groups[kWindow].pages.empty(); }
};

struct PrefixMatch {
  std::int32_t blocks = 0;         // usable whole blocks from the start
  std::int32_t parked_pages = 0;   // of their pages: those that now count as available
  std::int32_t swapped_pages = 0;  // those in host memory, each of which takes a page
};

struct SwapCopy {
  PageId page = kScrapPage;   // device
  PageId host = kNoHostPage;  // host pool
  bool out = false;           // to the host
};

class KvManager {
 public:
  // `hasher` made the chains of all sequences; it must outlive the manager.
  KvManager(const KvConfig& config, const BlockHasher& hasher);
  const KvConfig& config() const { return config_; }

  std::int32_t capacity() const { return pool_.capacity(); }
  // Pages that can be had now: free ones and cached ones without an owner.
  std::int32_t available() const { return pool_.num_free() + cache_.num_parked(); }

  // New pages to grow `pages` so that it covers [0, length).
  std::int32_t pages_to_grow(const SequencePages& pages, std::int32_t length) const;
  // The largest length in [covered, wanted] that can be had now while `reserve` pages stay
  // available; `covered` is what it has.
  std::int32_t reachable_length(const SequencePages& pages, std::int32_t covered,
                                std::int32_t wanted, std::int32_t reserve) const;
  // Grows both tables to cover [0, length), or changes nothing and returns false.
  bool grow(SequencePages& pages, std::int32_t length);
  // Positions below `confirmed` are final: whole blocks of them enter the prefix cache, window
  // pages that no later row can read are given back. `tokens` are the sequence's, known so far.
  void confirm(SequencePages& pages, std::span<const TokenId> tokens, std::int32_t confirmed);
  // Gives everything back, tails first, so that the beginning of a sequence is evicted last. Pages
  // of kCold are evicted before all others and not kept in host memory.
  void release(SequencePages& pages, PrefixCache::Value value = PrefixCache::Value::kKeep);

  // What release() would leave to evict, and the tokens that would have to be computed again.
  struct Holding {
    std::int32_t pages = 0;
    std::int32_t tokens = 0;
  };
  Holding held_alone(const SequencePages& pages) const;

  // The longest cached prefix of `tokens` that leaves at least one token to compute.
  // REQUIRES a chain extended over them.
  PrefixMatch match(const SequencePages& pages, std::span<const TokenId> tokens) const;
  // Takes the matched pages into the empty tables of `pages`. REQUIRES available pages for what is
  // parked or swapped.
  void adopt(SequencePages& pages, std::span<const TokenId> tokens, const PrefixMatch& match);

  // What the next plan must do, in this order: pages without content that debug builds poison, then
  // copies between the pools.
  struct PageWork {
    std::vector<PageId> freed;
    std::vector<SwapCopy> copies;
  };
  PageWork take_work();
  std::uint64_t pages_swapped_out() const { return swapped_out_; }
  std::uint64_t pages_swapped_in() const { return swapped_in_; }

  // CHECKs that free, parked and owned pages are the whole pool and that every page's owners are
  // counted; `live` are all tables that own pages. For tests: linear in the pool.
  void check_integrity(std::span<const SequencePages* const> live) const;

 private:
  std::int32_t first_needed(Group group, std::int32_t position) const {
    return group == kWindow ? first_window_page(config_, position) : 0;
  }
  std::span<const TokenId> block_tokens(std::span<const TokenId> tokens, std::int32_t block) const;
  CachedAt find(Group group, const SequencePages& pages, std::span<const TokenId> tokens,
                std::int32_t block) const;
  struct MatchedPage;
  std::vector<MatchedPage> matched_pages(SequencePages& pages, std::span<const TokenId> tokens,
                                         const PrefixMatch& match) const;
  PageId take_page();
  void drop_page(PageId page, PrefixCache::Value value);
  void publish(SequencePages& pages, std::span<const TokenId> tokens, std::int32_t confirmed);

  const KvConfig config_;
  const BlockHasher& hasher_;
  BlockPool pool_;
  PrefixCache cache_;
  PageWork work_;
  std::uint64_t swapped_out_ = 0;
  std::uint64_t swapped_in_ = 0;
};

}  // namespace strata::kv
