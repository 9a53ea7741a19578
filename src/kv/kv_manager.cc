#include "kv/kv_manager.h"

#include <algorithm>

#include "base/check.h"

namespace strata::kv {

KvManager::KvManager(const KvConfig& config, const BlockHasher& hasher)
    : config_(config), hasher_(hasher), pool_(config.num_pages), cache_(config) {
  STRATA_CHECK(config.page_tokens >= 1 && (!config.has_group[kWindow] || config.window >= 1));
}

std::int32_t min_pages(const KvConfig& config, std::int32_t positions) {
  const std::int32_t all = ceil_div(positions, config.page_tokens);
  std::int32_t pages = config.has_group[kFull] ? all : 0;
  // `window` keys that start in the middle of a page touch one page more than their number fills.
  if (config.has_group[kWindow])
    pages += std::min(all, (config.window + config.page_tokens - 2) / config.page_tokens + 1);
  return pages;
}

std::int32_t KvManager::pages_to_grow(const SequencePages& pages, std::int32_t length) const {
  const std::int32_t end = ceil_div(length, config_.page_tokens);
  std::int32_t count = 0;
  for (int g = 0; g < kNumGroups; ++g) {
    if (config_.has_group[g]) count += std::max(0, end - pages.groups[g].end_page());
  }
  return count;
}

std::int32_t KvManager::reachable_length(const SequencePages& pages, std::int32_t covered,
                                         std::int32_t wanted, std::int32_t reserve) const {
  const std::int32_t room = std::max(0, available() - reserve);
  if (pages_to_grow(pages, wanted) <= room) return wanted;
  // Every further page of length costs one page a group; what the last pages have left is free.
  std::int32_t end = ceil_div(covered, config_.page_tokens);
  while (pages_to_grow(pages, (end + 1) * config_.page_tokens) <= room) ++end;
  return std::clamp(end * config_.page_tokens, covered, wanted);
}

PageId KvManager::take_page() {
  if (pool_.num_free() == 0) {
    const PrefixCache::Evicted evicted = cache_.evict();
    pool_.give_back(evicted.page);
    work_.freed.push_back(evicted.page);
    if (evicted.swap_out != kNoHostPage) {
      work_.copies.push_back({evicted.page, evicted.swap_out, true});
      ++swapped_out_;
    }
  }
  return pool_.allocate();
}

bool KvManager::grow(SequencePages& pages, std::int32_t length) {
  if (pages_to_grow(pages, length) > available()) return false;
  const std::int32_t end = ceil_div(length, config_.page_tokens);
  for (int g = 0; g < kNumGroups; ++g) {
    GroupTable& table = pages.groups[g];
    if (!config_.has_group[g] || table.end_page() >= end) continue;
    while (table.end_page() < end) table.pages.push_back(take_page());
  }
  return true;
}

void KvManager::drop_page(PageId page, PrefixCache::Value value) {
  if (!pool_.drop_ref(page)) return;
  if (cache_.contains(page)) {
    cache_.park(page, value);
  } else {
    pool_.give_back(page);
    work_.freed.push_back(page);
  }
}

std::span<const TokenId> KvManager::block_tokens(std::span<const TokenId> tokens,
                                                 std::int32_t block) const {
  const auto size = static_cast<std::size_t>(config_.page_tokens);
  return tokens.subspan(static_cast<std::size_t>(block) * size, size);
}

void KvManager::publish(SequencePages& pages, std::span<const TokenId> tokens,
                        std::int32_t confirmed) {
  const auto known = std::min(confirmed, static_cast<std::int32_t>(tokens.size()));
  const std::int32_t blocks = known / config_.page_tokens;
  if (blocks <= pages.published_blocks) return;
  hasher_.extend(pages.chain, tokens.first(static_cast<std::size_t>(blocks * config_.page_tokens)),
                 config_.page_tokens);
  for (std::int32_t block = pages.published_blocks; block < blocks; ++block) {
    for (int g = 0; g < kNumGroups; ++g) {
      const GroupTable& table = pages.groups[g];
      if (block < table.first_page || block >= table.end_page()) continue;
      cache_.insert(
          static_cast<Group>(g), table.pages[static_cast<std::size_t>(block - table.first_page)],
          pages.chain.hashes[static_cast<std::size_t>(block)], block_tokens(tokens, block));
    }
  }
  pages.published_blocks = blocks;
}

void KvManager::confirm(SequencePages& pages, std::span<const TokenId> tokens,
                        std::int32_t confirmed) {
  if (config_.prefix_caching) publish(pages, tokens, confirmed);
  GroupTable& table = pages.groups[kWindow];
  const std::int32_t first = std::min(first_needed(kWindow, confirmed), table.end_page());
  if (first <= table.first_page) return;
  // A later request that shares the prompt but for its last tokens reads these.
  const std::int32_t keep_from =
      first_window_page(config_, pages.checkpoint - 2 * config_.page_tokens);
  const std::int32_t keep_end = ceil_div(pages.checkpoint, config_.page_tokens);
  for (std::int32_t logical = table.first_page; logical < first; ++logical) {
    const bool keep = logical >= keep_from && logical < keep_end;
    const PageId page = table.pages[static_cast<std::size_t>(logical - table.first_page)];
    if (keep) pages.checkpoint_pages.push_back(page);
    drop_page(page, keep ? PrefixCache::Value::kKeep : PrefixCache::Value::kCold);
  }
  table.pages.erase(table.pages.begin(), table.pages.begin() + (first - table.first_page));
  table.first_page = first;
}

void KvManager::release(SequencePages& pages, PrefixCache::Value value) {
  std::int32_t end = 0;
  for (const GroupTable& table : pages.groups) end = std::max(end, table.end_page());
  for (std::int32_t logical = end - 1; logical >= 0; --logical) {
    for (GroupTable& table : pages.groups) {
      if (logical < table.first_page || logical >= table.end_page()) continue;
      drop_page(table.pages.back(), value);
      table.pages.pop_back();
    }
  }
  // The checkpoint was parked long ago but is worth more than the answer behind it. A page that
  // was evicted and parked anew by another sequence only becomes a little younger.
  for (const PageId page : pages.checkpoint_pages) {
    if (!cache_.is_parked(page)) continue;
    cache_.unpark(page);
    cache_.park(page, PrefixCache::Value::kKeep);
  }
  pages.checkpoint_pages.clear();
  for (GroupTable& table : pages.groups) table = GroupTable{};
  pages.published_blocks = 0;
}

KvManager::Holding KvManager::held_alone(const SequencePages& pages) const {
  Holding held;
  const int counted = config_.has_group[kFull] ? kFull : kWindow;
  for (int g = 0; g < kNumGroups; ++g) {
    for (const PageId page : pages.groups[g].pages) {
      if (pool_.refs(page) != 1) continue;
      ++held.pages;
      if (g == counted) held.tokens += config_.page_tokens;
    }
  }
  return held;
}

CachedAt KvManager::find(Group group, const SequencePages& pages, std::span<const TokenId> tokens,
                         std::int32_t block) const {
  return cache_.find(group, pages.chain.hashes[static_cast<std::size_t>(block)],
                     block_tokens(tokens, block));
}

PrefixMatch KvManager::match(const SequencePages& pages, std::span<const TokenId> tokens) const {
  PrefixMatch best;
  if (!config_.prefix_caching) return best;
  const auto limit = std::min(static_cast<std::int32_t>(pages.chain.hashes.size()),
                              (static_cast<std::int32_t>(tokens.size()) - 1) / config_.page_tokens);
  const auto count = [this](PrefixMatch& match, const CachedAt& at) {
    if (!at.on_device()) ++match.swapped_pages;
    else if (cache_.is_parked(at.page)) ++match.parked_pages;
  };
  std::vector<CachedAt> window(static_cast<std::size_t>(std::max(limit, 0)));
  PrefixMatch full;      // counts of the full group up to this block
  std::int32_t run = 0;  // window pages without a gap up to this block
  for (std::int32_t block = 0; block < limit; ++block) {
    full.blocks = block + 1;
    if (config_.has_group[kFull]) {
      const CachedAt at = find(kFull, pages, tokens, block);
      if (!at.found()) break;
      count(full, at);
    }
    std::int32_t first = full.blocks;
    if (config_.has_group[kWindow]) {
      first = first_needed(kWindow, full.blocks * config_.page_tokens);
      const CachedAt at = find(kWindow, pages, tokens, block);
      run = at.found() ? run + 1 : 0;
      window[static_cast<std::size_t>(block)] = at;
    }
    if (run < full.blocks - first) continue;
    best = full;
    for (std::int32_t i = first; i < full.blocks; ++i)
      count(best, window[static_cast<std::size_t>(i)]);
  }
  return best;
}

struct KvManager::MatchedPage {
  Group group;
  std::int32_t block;
  CachedAt at;
  bool held = false;  // its host page is held
};

std::vector<KvManager::MatchedPage> KvManager::matched_pages(SequencePages& pages,
                                                             std::span<const TokenId> tokens,
                                                             const PrefixMatch& match) const {
  std::vector<MatchedPage> matched;
  for (int g = 0; g < kNumGroups; ++g) {
    if (!config_.has_group[g]) continue;
    const auto group = static_cast<Group>(g);
    GroupTable& table = pages.groups[g];
    table.first_page = first_needed(group, match.blocks * config_.page_tokens);
    table.changed_from = table.first_page;
    for (std::int32_t block = table.first_page; block < match.blocks; ++block)
      matched.push_back({group, block, find(group, pages, tokens, block), false});
  }
  return matched;
}

void KvManager::adopt(SequencePages& pages, std::span<const TokenId> tokens,
                      const PrefixMatch& match) {
  STRATA_CHECK(pages.empty());
  std::vector<MatchedPage> matched = matched_pages(pages, tokens, match);
  // First keep hold of everything: making room for a swapped page evicts others.
  for (MatchedPage& item : matched) {
    if (!item.at.on_device()) {
      cache_.hold_host(item.at.host);
      item.held = true;
      continue;
    }
    if (cache_.is_parked(item.at.page)) cache_.unpark(item.at.page);
    pool_.add_ref(item.at.page);
  }
  for (MatchedPage& item : matched) {
    if (item.held) {
      item.at.page = take_page();
      cache_.insert(item.group, item.at.page,
                    pages.chain.hashes[static_cast<std::size_t>(item.block)],
                    block_tokens(tokens, item.block));
      work_.copies.push_back({item.at.page, item.at.host, false});
      ++swapped_in_;
    }
    pages.groups[item.group].pages.push_back(item.at.page);
  }
  for (const MatchedPage& item : matched) {
    if (item.held) cache_.unhold_host(item.at.host);
  }
  pages.published_blocks = match.blocks;
}

KvManager::PageWork KvManager::take_work() {
  PageWork out;
  std::swap(out, work_);
  // Poison comes before copies: what is still to be read by a copy keeps its content.
  std::vector<PageId> read;
  for (const SwapCopy& copy : out.copies) {
    if (copy.out) read.push_back(copy.page);
  }
  std::sort(read.begin(), read.end());
  std::erase_if(out.freed,
                [&](PageId page) { return std::binary_search(read.begin(), read.end(), page); });
  return out;
}

void KvManager::check_integrity(std::span<const SequencePages* const> live) const {
  std::vector<std::int32_t> owners(static_cast<std::size_t>(config_.num_pages));
  for (const SequencePages* pages : live) {
    for (const GroupTable& table : pages->groups) {
      for (const PageId page : table.pages) ++owners[static_cast<std::size_t>(page)];
    }
  }
  STRATA_CHECK(owners[kScrapPage] == 0, "the scrap page is in a table");
  std::int32_t used = 0;
  std::int32_t parked = 0;
  for (PageId page = kScrapPage + 1; page < config_.num_pages; ++page) {
    STRATA_CHECK(owners[static_cast<std::size_t>(page)] == pool_.refs(page),
                 "page {} has {} owners and {} references", page,
                 owners[static_cast<std::size_t>(page)], pool_.refs(page));
    if (pool_.refs(page) > 0) ++used;
    if (!cache_.is_parked(page)) continue;
    STRATA_CHECK(pool_.refs(page) == 0, "page {} is parked and owned", page);
    ++parked;
  }
  cache_.check_integrity();
  STRATA_CHECK(parked == cache_.num_parked() && used + parked + pool_.num_free() == capacity(),
               "{} used + {} parked + {} free of {}", used, parked, pool_.num_free(), capacity());
}

}  // namespace strata::kv
