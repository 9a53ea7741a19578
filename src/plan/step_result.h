// What a step gives back to the engine: one row per logits row of its plan. Plain values.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.h"

namespace strata {

struct TokenLogprob {
  TokenId token = kNoToken;
  float logprob = 0.0F;
};

// Why the device stopped a slot on its own.
enum class SlotFinish : std::uint8_t { kNone, kStopId, kLength };

struct RowResult {
  std::int32_t row = 0;  // as in the plan's LogitsRow
  SlotId slot = kNoSlot;
  TokenId token = kNoToken;  // drawn token; `asked` for kPromptLogprob
  bool skipped = false;      // the slot was already finished: ignore this row
  SlotFinish finish = SlotFinish::kNone;
  bool has_logprob = false;
  float logprob = 0.0F;           // of `token`, raw (before temperature, penalties and masks)
  std::int32_t rank = 0;          // of `token` among raw logits, 1 = best; 0 = not asked
  std::vector<TokenLogprob> top;  // the LogitsRow's top_n best, descending
};

struct StepTimings {
  std::int64_t begin_ns = 0;    // taking the plan in, page copies above all
  std::int64_t compute_ns = 0;  // forward pass without sampling
  std::int64_t sample_ns = 0;
  std::int64_t wait_ns = 0;  // body done, waiting for release_tail
};

struct StepResult {
  StepId id = 0;
  std::vector<RowResult> rows;  // one per LogitsRow, in order; kVerify: only accepted + 1 of them
  StepTimings timings;
};

}  // namespace strata
