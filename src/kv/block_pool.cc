#include "kv/block_pool.h"

#include "base/check.h"

namespace strata::kv {

BlockPool::BlockPool(std::int32_t num_pages) {
  STRATA_CHECK(num_pages >= 1, "num_pages {}", num_pages);
  refs_.resize(static_cast<std::size_t>(num_pages));
  is_free_.resize(static_cast<std::size_t>(num_pages), true);
  is_free_[kScrapPage] = false;
  for (PageId page = num_pages - 1; page > kScrapPage; --page) free_.push_back(page);
}

PageId BlockPool::allocate() {
  STRATA_CHECK(!free_.empty());
  const PageId page = free_.back();
  free_.pop_back();
  is_free_[static_cast<std::size_t>(page)] = false;
  refs_[static_cast<std::size_t>(page)] = 1;
  return page;
}

void BlockPool::add_ref(PageId page) {
  STRATA_CHECK(page > kScrapPage && !is_free_[static_cast<std::size_t>(page)], "page {}", page);
  ++refs_[static_cast<std::size_t>(page)];
}

bool BlockPool::drop_ref(PageId page) {
  std::int32_t& refs = refs_[static_cast<std::size_t>(page)];
  STRATA_CHECK(refs > 0, "page {} has no owner", page);
  return --refs == 0;
}

void BlockPool::give_back(PageId page) {
  const auto index = static_cast<std::size_t>(page);
  STRATA_CHECK(page > kScrapPage && refs_[index] == 0 && !is_free_[index], "page {}", page);
  is_free_[index] = true;
  free_.push_back(page);
}

}  // namespace strata::kv
