#include "kv/prefix_cache.h"

#include <algorithm>

#include "base/check.h"

namespace strata::kv {

PrefixCache::PrefixCache(const KvConfig& config)
    : page_tokens_(static_cast<std::size_t>(config.page_tokens)),
      block_of_page_(static_cast<std::size_t>(config.num_pages), -1),
      block_of_host_page_(static_cast<std::size_t>(config.num_swap_pages), -1),
      parked_(config.num_pages),
      host_used_(config.num_swap_pages) {
  for (PageId host = config.num_swap_pages - 1; host >= 0; --host) free_host_.push_back(host);
}

bool PrefixCache::same_tokens(std::int32_t block, std::span<const TokenId> tokens) const {
  const auto begin =
      tokens_.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(block) * page_tokens_);
  return std::equal(tokens.begin(), tokens.end(), begin);
}

CachedAt PrefixCache::find(Group group, const BlockHash& key,
                           std::span<const TokenId> tokens) const {
  const auto found = index_.find(key);
  if (found == index_.end() || !same_tokens(found->second, tokens)) return {};
  return blocks_[static_cast<std::size_t>(found->second)].at[group];
}

std::int32_t PrefixCache::new_block(const BlockHash& key, std::span<const TokenId> tokens) {
  if (free_blocks_.empty()) {
    free_blocks_.push_back(static_cast<std::int32_t>(blocks_.size()));
    blocks_.emplace_back();
    tokens_.resize(blocks_.size() * page_tokens_);
  }
  const auto block = static_cast<std::size_t>(free_blocks_.back());
  free_blocks_.pop_back();
  blocks_[block] = Block{key, {}};
  std::copy(tokens.begin(), tokens.end(),
            tokens_.begin() + static_cast<std::ptrdiff_t>(block * page_tokens_));
  return static_cast<std::int32_t>(block);
}

void PrefixCache::insert(Group group, PageId page, const BlockHash& key,
                         std::span<const TokenId> tokens) {
  STRATA_CHECK(tokens.size() == page_tokens_, "{} tokens in a block of {}", tokens.size(),
               page_tokens_);
  if (contains(page)) return;  // it came from the cache
  const auto [found, is_new] = index_.try_emplace(key, -1);
  if (is_new) found->second = new_block(key, tokens);
  else if (!same_tokens(found->second, tokens)) return;
  CachedAt& at = blocks_[static_cast<std::size_t>(found->second)].at[group];
  if (at.on_device()) return;
  at.page = page;
  block_of_page_[static_cast<std::size_t>(page)] = found->second;
}

// REQUIRES contains(page).
CachedAt& PrefixCache::place_of(PageId page) {
  Block& block = blocks_[static_cast<std::size_t>(block_of(page))];
  return block.at[block.at[kFull].page == page ? kFull : kWindow];
}

void PrefixCache::drop_if_empty(std::int32_t index) {
  const Block& block = blocks_[static_cast<std::size_t>(index)];
  if (block.at[kFull].found() || block.at[kWindow].found()) return;
  index_.erase(block.key);
  free_blocks_.push_back(index);
}

// A free host page, or the longest unused one, whose block forgets it. kNoHostPage: none to have.
PageId PrefixCache::take_host_page() {
  if (!free_host_.empty()) {
    const PageId host = free_host_.back();
    free_host_.pop_back();
    return host;
  }
  const PageId host = host_used_.front(0);
  if (host == PageLists<1>::kNobody) return kNoHostPage;
  host_used_.remove(host);
  const std::int32_t index = block_of_host_page_[static_cast<std::size_t>(host)];
  for (CachedAt& at : blocks_[static_cast<std::size_t>(index)].at) {
    if (at.host == host) at.host = kNoHostPage;
  }
  drop_if_empty(index);
  return host;
}

PrefixCache::Evicted PrefixCache::evict() {
  const PageId cold = parked_.front(static_cast<int>(Value::kCold));
  const bool is_cold = cold != PageLists<2>::kNobody;
  const PageId page = is_cold ? cold : parked_.front(static_cast<int>(Value::kKeep));
  STRATA_CHECK(page != PageLists<2>::kNobody, "nothing is parked");
  parked_.remove(page);
  const std::int32_t index = block_of(page);
  Evicted out{page, kNoHostPage};
  if (place_of(page).host == kNoHostPage && !is_cold) {
    // May make this very block forget the host page of its other group, never the block: it still
    // has this page.
    out.swap_out = take_host_page();
    if (out.swap_out != kNoHostPage) {
      place_of(page).host = out.swap_out;
      block_of_host_page_[static_cast<std::size_t>(out.swap_out)] = index;
      host_used_.push_back(0, out.swap_out);
    }
  }
  place_of(page).page = kScrapPage;
  block_of_page_[static_cast<std::size_t>(page)] = -1;
  drop_if_empty(index);
  return out;
}

void PrefixCache::check_integrity() const {
  std::size_t device = 0;
  std::size_t host = 0;
  for (const auto& [key, index] : index_) {
    const Block& block = blocks_[static_cast<std::size_t>(index)];
    STRATA_CHECK(block.key == key && (block.at[kFull].found() || block.at[kWindow].found()));
    for (const CachedAt& at : block.at) {
      if (at.on_device()) {
        STRATA_CHECK(block_of(at.page) == index, "page {}", at.page);
        ++device;
      }
      if (at.host != kNoHostPage) {
        STRATA_CHECK(block_of_host_page_[static_cast<std::size_t>(at.host)] == index &&
                         host_used_.contains(at.host),
                     "host page {}", at.host);
        ++host;
      }
    }
  }
  const auto cached = static_cast<std::size_t>(std::count_if(
      block_of_page_.begin(), block_of_page_.end(), [](std::int32_t block) { return block >= 0; }));
  STRATA_CHECK(device == cached, "{} pages in blocks, {} cached", device, cached);
  STRATA_CHECK(host + free_host_.size() == block_of_host_page_.size(), "{} + {} of {} host pages",
               host, free_host_.size(), block_of_host_page_.size());
}

}  // namespace strata::kv
