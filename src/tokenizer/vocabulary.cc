#include "tokenizer/vocabulary.h"

#include <bit>

#include "base/check.h"
#include "base/random.h"

namespace strata::tokenizer {
namespace {

// A table at most half full.
std::size_t slots_for(std::size_t count) { return std::bit_ceil(2 * count + 2); }

}  // namespace

void Vocabulary::add(TokenId id, std::string_view bytes) {
  STRATA_CHECK(id >= 0 && !has(id), "token id {}", id);
  if (id >= size()) entries_.resize(static_cast<std::size_t>(id) + 1);
  entries_[static_cast<std::size_t>(id)] = {static_cast<std::uint32_t>(arena_.size()),
                                            static_cast<std::uint32_t>(bytes.size()), true};
  arena_ += bytes;
}

TokenId Vocabulary::index() {
  slots_.assign(slots_for(entries_.size()), kNoToken);
  byte_ids_.fill(kNoToken);
  TokenId duplicate = kNoToken;
  for (TokenId id = 0; id < size(); ++id) {
    if (!has(id)) continue;
    const std::string_view text = bytes(id);
    if (text.size() == 1) byte_ids_[static_cast<unsigned char>(text[0])] = id;
    std::size_t slot = fnv1a64(text) & (slots_.size() - 1);
    for (; slots_[slot] != kNoToken; slot = (slot + 1) & (slots_.size() - 1))
      if (bytes(slots_[slot]) == text) duplicate = id;
    slots_[slot] = id;
  }
  return duplicate;
}

void Vocabulary::reserve_merges(std::size_t count) {
  merge_slots_.assign(slots_for(count), MergeSlot{});
}

void Vocabulary::add_merge(TokenId left, TokenId right, Merge merge) {
  const std::uint64_t pair =
      static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
  std::size_t slot = mix64(pair) & (merge_slots_.size() - 1);
  while (merge_slots_[slot].pair != kNoPair && merge_slots_[slot].pair != pair)
    slot = (slot + 1) & (merge_slots_.size() - 1);
  merge_slots_[slot] = {pair, merge};
}

std::string_view Vocabulary::bytes(TokenId id) const {
  if (!has(id)) return {};
  const Entry& entry = entries_[static_cast<std::size_t>(id)];
  return std::string_view(arena_).substr(entry.offset, entry.length);
}

TokenId Vocabulary::find(std::string_view text) const {
  for (std::size_t slot = fnv1a64(text) & (slots_.size() - 1); slots_[slot] != kNoToken;
       slot = (slot + 1) & (slots_.size() - 1))
    if (bytes(slots_[slot]) == text) return slots_[slot];
  return kNoToken;
}

Merge Vocabulary::find_merge(TokenId left, TokenId right) const {
  const std::uint64_t pair =
      static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
  std::size_t slot = mix64(pair) & (merge_slots_.size() - 1);
  while (merge_slots_[slot].pair != kNoPair) {
    if (merge_slots_[slot].pair == pair) return merge_slots_[slot].merge;
    slot = (slot + 1) & (merge_slots_.size() - 1);
  }
  return {};
}

}  // namespace strata::tokenizer
