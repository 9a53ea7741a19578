#include <algorithm>
#include <functional>
#include <limits>

#include "base/check.h"
#include "tokenizer/vocabulary.h"

namespace strata::tokenizer {
namespace {

// Up to this length a scan of all pairs for each merge is quicker than a heap.
constexpr std::size_t kShortPiece = 40;

using Part = BpeScratch::Part;

class PieceMerger {
 public:
  PieceMerger(const Vocabulary& vocabulary, BpeScratch& scratch)
      : vocabulary_(vocabulary), parts_(scratch.parts), heap_(scratch.heap) {}

  void split(std::string_view piece) {
    parts_.clear();
    for (std::size_t i = 0; i < piece.size(); ++i) {
      const auto at = static_cast<std::int32_t>(i);
      parts_.push_back({vocabulary_.find_byte(static_cast<unsigned char>(piece[i])), Merge::kNoRank,
                        at - 1, i + 1 < piece.size() ? at + 1 : -1});
    }
    for (Part& part : parts_) rank(part);
  }

  void merge_short() {
    for (;;) {
      std::int32_t best = 0;
      for (std::int32_t i = 0; i >= 0; i = parts_[index(i)].next)
        if (parts_[index(i)].rank < parts_[index(best)].rank) best = i;
      if (parts_[index(best)].rank == Merge::kNoRank) return;
      merge(best);
    }
  }

  // Heap entries are never removed early: one is stale when its part has another rank by now.
  void merge_long() {
    heap_.clear();
    for (std::size_t i = 0; i < parts_.size(); ++i)
      if (parts_[i].rank != Merge::kNoRank) heap_.push_back(entry(static_cast<std::int32_t>(i)));
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      const std::uint64_t top = heap_.back();
      heap_.pop_back();
      const auto at = static_cast<std::int32_t>(top & 0xffffffffU);
      if (parts_[index(at)].rank != static_cast<std::uint32_t>(top >> 32)) continue;
      merge(at);
      push(at);
      if (parts_[index(at)].prev >= 0) push(parts_[index(at)].prev);
    }
  }

  void append(std::vector<TokenId>& out) const {
    for (std::int32_t i = 0; i >= 0; i = parts_[index(i)].next) out.push_back(parts_[index(i)].id);
  }

 private:
  static std::size_t index(std::int32_t i) { return static_cast<std::size_t>(i); }
  std::uint64_t entry(std::int32_t at) const {
    return static_cast<std::uint64_t>(parts_[index(at)].rank) << 32 |
           static_cast<std::uint32_t>(at);
  }
  void push(std::int32_t at) {
    if (parts_[index(at)].rank == Merge::kNoRank) return;
    heap_.push_back(entry(at));
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }
  void rank(Part& part) {
    part.rank = part.next < 0 ? Merge::kNoRank
                              : vocabulary_.find_merge(part.id, parts_[index(part.next)].id).rank;
  }
  void merge(std::int32_t at) {
    Part& left = parts_[index(at)];
    Part& right = parts_[index(left.next)];
    left.id = vocabulary_.find_merge(left.id, right.id).result;
    left.next = right.next;
    right.rank = Merge::kNoRank;  // gone: its heap entries are stale
    if (left.next >= 0) parts_[index(left.next)].prev = at;
    rank(left);
    if (left.prev >= 0) rank(parts_[index(left.prev)]);
  }

  const Vocabulary& vocabulary_;
  std::vector<Part>& parts_;
  std::vector<std::uint64_t>& heap_;
};

}  // namespace

void encode_piece(const Vocabulary& vocabulary, std::string_view piece, BpeScratch& scratch,
                  std::vector<TokenId>& out) {
  if (piece.empty()) return;
  STRATA_CHECK(piece.size() < std::numeric_limits<std::int32_t>::max(), "{} bytes", piece.size());
  PieceMerger merger(vocabulary, scratch);
  merger.split(piece);
  if (piece.size() <= kShortPiece) merger.merge_short();
  else merger.merge_long();
  merger.append(out);
}

}  // namespace strata::tokenizer
