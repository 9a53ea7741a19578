// PageLists: pages in order of use, in a few doubly linked lists through one array; every operation
// is constant time. A page is in one list or in none.
#pragma once

#include <cstdint>
#include <vector>

#include "base/check.h"
#include "base/ids.h"

namespace strata::kv {

template <int kNumLists>
class PageLists {
 public:
  explicit PageLists(std::int32_t num_pages) : links_(static_cast<std::size_t>(num_pages)) {}

  static constexpr PageId kNobody = -1;

  bool contains(PageId page) const { return at(page).list != kNoList; }
  std::int32_t size() const { return size_; }
  PageId front(int list) const { return ends_[list].first; }  // kNobody: empty

  void push_back(int list, PageId page) {
    STRATA_CHECK(!contains(page), "page {} is listed", page);
    Ends& ends = ends_[list];
    at(page) = Link{ends.last, kNobody, list};
    (ends.last == kNobody ? ends.first : at(ends.last).next) = page;
    ends.last = page;
    ++size_;
  }

  void remove(PageId page) {
    STRATA_CHECK(contains(page), "page {} is not listed", page);
    const Link old = at(page);
    Ends& ends = ends_[old.list];
    (old.previous == kNobody ? ends.first : at(old.previous).next) = old.next;
    (old.next == kNobody ? ends.last : at(old.next).previous) = old.previous;
    at(page) = Link{};
    --size_;
  }

 private:
  static constexpr int kNoList = -1;
  struct Link {
    PageId previous = kNobody;
    PageId next = kNobody;
    int list = kNoList;
  };
  struct Ends {
    PageId first = kNobody;
    PageId last = kNobody;
  };
  Link& at(PageId page) { return links_[static_cast<std::size_t>(page)]; }
  const Link& at(PageId page) const { return links_[static_cast<std::size_t>(page)]; }

  std::vector<Link> links_;  // [num_pages]
  Ends ends_[kNumLists];
  std::int32_t size_ = 0;
};

}  // namespace strata::kv
