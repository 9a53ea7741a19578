// BlockPool: ref-counted page ids over one pool. Page 0 is the scrap page and never handed out.
// Engine thread only.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.h"

namespace strata::kv {

class BlockPool {
 public:
  explicit BlockPool(std::int32_t num_pages);  // scrap page included

  std::int32_t capacity() const { return static_cast<std::int32_t>(refs_.size()) - 1; }
  std::int32_t num_free() const { return static_cast<std::int32_t>(free_.size()); }
  std::int32_t refs(PageId page) const { return refs_[static_cast<std::size_t>(page)]; }

  PageId allocate();            // REQUIRES num_free() > 0; the page has one owner
  void add_ref(PageId page);    // one owner more; the page may have had none (a cached page)
  bool drop_ref(PageId page);   // true: that was the last owner; the page is not free yet
  void give_back(PageId page);  // REQUIRES refs == 0 and the page not free

 private:
  std::vector<std::int32_t> refs_;  // [num_pages]
  std::vector<bool> is_free_;       // [num_pages]
  std::vector<PageId> free_;        // a stack: recently used pages are warm
};

}  // namespace strata::kv
