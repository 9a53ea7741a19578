// Index types that cross folders. Plain 32-bit integers where they are array indices in a plan or
// on a device; the names say which table they index.
#pragma once

#include <cstdint>

namespace strata {

using TokenId = std::int32_t;   // row of the vocabulary
using LayerId = std::int32_t;   // 0 .. num_layers-1
using ExpertId = std::int32_t;  // 0 .. num_experts-1
using SlotId = std::int32_t;    // 0 .. max_num_seqs-1; a running sequence's state on the device
using PageId = std::int32_t;    // KV page in the pool; page 0 is the scrap page, never allocated
using SeqId = std::uint64_t;    // a sequence for its whole life, never reused
using StepId = std::uint64_t;   // a plan, counting from 1
using EpochId = std::uint64_t;  // version of the expert slot table

inline constexpr SlotId kNoSlot = -1;    // a padding row
inline constexpr PageId kScrapPage = 0;  // written by padding rows, read by nobody's result
inline constexpr TokenId kNoToken = -1;

}  // namespace strata
