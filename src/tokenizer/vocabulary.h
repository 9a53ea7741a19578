// Token bytes by id, ids by bytes, and the merges of byte-pair encoding. Immutable after it is
// built; any thread may read.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"

namespace strata::tokenizer {

struct Merge {
  std::uint32_t rank = kNoRank;  // lower merges first
  TokenId result = kNoToken;

  static constexpr std::uint32_t kNoRank = 0xffffffffU;
};

class Vocabulary {
 public:
  // Adds a token; the id must be free. Ids may come in any order and leave holes.
  void add(TokenId id, std::string_view bytes);
  // All tokens are known: makes find() work. Returns an id whose bytes another id has too, or
  // kNoToken when all differ.
  TokenId index();
  // Adds a merge of two indexed tokens; a later one of the same pair replaces it.
  void reserve_merges(std::size_t count);
  void add_merge(TokenId left, TokenId right, Merge merge);

  bool has(TokenId id) const {
    return id >= 0 && id < size() && entries_[static_cast<std::size_t>(id)].present;
  }
  std::string_view bytes(TokenId id) const;
  TokenId find(std::string_view bytes) const;  // kNoToken if there is none
  TokenId find_byte(unsigned char byte) const { return byte_ids_[byte]; }
  Merge find_merge(TokenId left, TokenId right) const;
  TokenId size() const { return static_cast<TokenId>(entries_.size()); }  // highest id + 1

 private:
  struct Entry {
    std::uint32_t offset = 0;  // in arena_
    std::uint32_t length = 0;
    bool present = false;
  };
  struct MergeSlot {
    std::uint64_t pair = kNoPair;  // left << 32 | right
    Merge merge;
  };
  static constexpr std::uint64_t kNoPair = ~0ULL;

  std::string arena_;           // the bytes of all tokens
  std::vector<Entry> entries_;  // by id
  std::array<TokenId, 256> byte_ids_{};
  std::vector<TokenId> slots_;          // open addressing by bytes; a power of two, half empty
  std::vector<MergeSlot> merge_slots_;  // open addressing by pair, likewise
};

// Scratch memory of encode_piece, reused from piece to piece.
struct BpeScratch {
  struct Part {
    TokenId id;
    std::uint32_t rank;  // of the merge with the next part
    std::int32_t prev;
    std::int32_t next;  // -1 at the end
  };
  std::vector<Part> parts;
  std::vector<std::uint64_t> heap;  // rank << 32 | part
};

// Appends the tokens of one piece: bytes are joined by the merge of lowest rank, leftmost first,
// until none applies. O(n log n).
void encode_piece(const Vocabulary& vocabulary, std::string_view piece, BpeScratch& scratch,
                  std::vector<TokenId>& out);

}  // namespace strata::tokenizer
