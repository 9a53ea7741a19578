// StepPlan and StepResult: the only values that cross the seam between engine and model.
//
// A plan is plain values, built by the engine, immutable after `Model::submit`. It never carries
// what the device already knows: per slot the device owns last token, position, draw key, token
// history, stop ids and the finished flag; the plan carries changes and this step's work.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "plan/sampling_params.h"
#include "plan/step_result.h"  // IWYU pragma: export

namespace strata {

enum class KvDtype : std::uint8_t { kF32, kBf16 };

// Layers fall into two groups with page tables of their own.
enum KvGroup : std::uint8_t { kFullGroup = 0, kWindowGroup = 1 };
inline constexpr int kNumKvGroups = 2;

// The key of a recorded graph: forward.cc's call sequence and pointers depend on nothing else.
// Counts are buckets, at least the plan's real counts; the difference is padding (slot -1).
struct StepShape {
  std::int32_t rows = 0;
  std::int32_t seqs = 0;
  std::int32_t logits_rows = 0;
  bool operator==(const StepShape&) const = default;
};

// The bucket of a count of at most `most`: the next power of two, but at most `most`; 0 for 0.
constexpr std::int32_t shape_bucket(std::int32_t n, std::int32_t most) {
  if (n == 0) return 0;
  return std::min(static_cast<std::int32_t>(std::bit_ceil(static_cast<std::uint32_t>(n))), most);
}

// Where a row's input token comes from.
struct TokenSource {
  TokenId literal = kNoToken;  // kNoToken: the last token of the row's slot
};

struct Row {
  SlotId slot = kNoSlot;  // kNoSlot: padding; reads the scrap page, yields nothing
  TokenSource token;
  std::int32_t pos_offset = 0;  // position = base(slot) + pos_offset, computed on the device
};

enum class SpanKind : std::uint8_t {
  kPrefill,  // n_rows prompt tokens; base(slot) += n_rows
  kDecode,   // one row, the slot's last token; base(slot) += 1
  kVerify,   // last token and d drafts; base(slot) += accepted + 1
};

// The rows [first_row, first_row + n_rows) of one sequence.
struct SeqSpan {
  SlotId slot = kNoSlot;
  SpanKind kind = SpanKind::kPrefill;
  std::int32_t first_row = 0;
  std::int32_t n_rows = 0;
  std::int32_t kv_len_before = 0;  // engine's view of base(slot); a lower bound under speculation
  // Into StepPlan::pages. Group g's table has entries for logical pages
  // [first_page[g], first_page[g] + num_pages[g]); first_page of the full group is 0. Entries
  // below changed_from[g] are as in the last plan that named this slot.
  std::array<std::int32_t, kNumKvGroups> table_offset{};
  std::array<std::int32_t, kNumKvGroups> num_pages{};
  std::array<std::int32_t, kNumKvGroups> first_page{};
  std::array<std::int32_t, kNumKvGroups> changed_from{};
};

enum class LogitsKind : std::uint8_t {
  kSample,         // draw a token for the slot and make it the slot's last token
  kVerify,         // one of 1 + d rows of a kVerify span: accept drafts in order
  kPromptLogprob,  // only report the log-probability of `asked`
};

struct LogitsRow {
  std::int32_t row = 0;  // index into StepPlan::rows
  LogitsKind kind = LogitsKind::kSample;
  std::int32_t top_n = -1;       // >= 0: report this many best ids and the chosen token's logprob
  std::int32_t mask_index = -1;  // >= 0: row of the late mask block given to release_tail
  TokenId asked = kNoToken;      // kPromptLogprob: the prompt token that came next;
                                 // kVerify: the draft token to compare with, kNoToken on the last
};

enum class SlotOp : std::uint8_t { kAdmit, kChange, kRelease };

struct SlotUpdate {
  SlotOp op = SlotOp::kAdmit;
  SlotId slot = kNoSlot;
  SeqId seq = 0;                        // kAdmit: the same when a preempted sequence comes back
  SamplingParams sampling;              // kAdmit, kChange
  std::int32_t position = 0;            // kAdmit: base(slot), > 0 after a prefix hit or swap-in
  std::int32_t num_generated = 0;       // kAdmit: > 0 when a preempted sequence comes back
  std::int32_t max_new_tokens = 0;      // kAdmit: finished flag is set after so many
  std::vector<TokenId> history;         // kAdmit: prompt and generated tokens, if penalties ask
  std::int32_t history_prompt_len = 0;  // how many of `history` are prompt
};

enum class CopyKind : std::uint8_t { kDevice, kSwapOut, kSwapIn };

// Done before the rows of the same plan. Swap pages count in a host pool of their own.
struct PageCopy {
  PageId src = kScrapPage;
  PageId dst = kScrapPage;
  CopyKind kind = CopyKind::kDevice;
};

struct StepPlan {
  StepId id = 0;
  StepShape shape;
  std::vector<SlotUpdate> slots;
  std::vector<Row> rows;          // decode rows first, then verify, then prefill chunks
  std::vector<SeqSpan> seqs;      // in row order
  std::vector<PageId> pages;      // flattened tables of both groups
  std::vector<LogitsRow> logits;  // in row order
  std::vector<PageCopy> copies;
  std::vector<PageId> poison;  // freed pages that debug builds fill with NaN
  EpochId expert_epoch = 0;
  KvDtype kv = KvDtype::kF32;
  bool late_masks = false;  // the tail waits for Model::release_tail
};

}  // namespace strata
