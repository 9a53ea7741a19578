// HostStep: the state that backends on the host (ref, cpu) keep of slots, and the running step
// resolved against it. A device keeps the same things in its own memory.
//
// Owned by a backend; compute thread only. A step is begin(plan), any number of reads and
// record_*() calls, end(). The plan must stay valid until end().
//
// A row is padding when its slot is kNoSlot, when it lies beyond the plan's rows, or when its slot
// had already finished before this step (the lag rule: a plan may name a sequence one step past its
// end). Padding rows belong to no sequence, write no KV, select no expert; what their
// activations hold is of no meaning.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "kernels/stages.h"
#include "plan/step_plan.h"

namespace strata::kernels {

// How often a token occurred in a sequence, for penalties.
struct TokenCount {
  bool in_prompt = false;
  std::int32_t generated = 0;
};

// Pages of logical pages [first_page, first_page + pages.size()) of one group.
struct PageTable {
  std::int32_t first_page = 0;
  std::vector<PageId> pages;

  PageId page_of(std::int32_t logical_page) const {
    return pages[static_cast<std::size_t>(logical_page - first_page)];
  }
};

// What a slot remembers between steps.
struct SlotState {
  bool admitted = false;
  bool finished = false;
  std::int32_t position = 0;  // base(slot): tokens whose KV is written and confirmed
  TokenId last_token = kNoToken;
  std::int32_t num_generated = 0;
  std::int32_t max_new_tokens = 0;
  SamplingParams sampling;
  std::unordered_map<TokenId, TokenCount> history;
  std::array<PageTable, kNumKvGroups> tables;
};

// One row of the step. Padding: slot and seq -1, token and position 0.
struct RowInput {
  SlotId slot = kNoSlot;
  TokenId token = 0;
  std::int32_t position = 0;  // absolute
  std::int32_t seq = -1;      // index into HostStep::seqs()
};

// The rows [first_row, first_row + n_rows) of one live sequence, at positions
// [first_position, first_position + n_rows).
struct SeqInput {
  SlotId slot = kNoSlot;
  SpanKind kind = SpanKind::kPrefill;
  std::int32_t first_row = 0;
  std::int32_t n_rows = 0;
  std::int32_t first_position = 0;
  std::array<const PageTable*, kNumKvGroups> tables{};  // valid until end()
};

class HostStep {
 public:
  explicit HostStep(const BackendOptions& options);

  // Applies slot updates in their order, takes over page tables, resolves rows.
  void begin(const StepPlan& plan);
  const StepPlan& plan() const { return *plan_; }
  std::span<const RowInput> rows() const { return rows_; }  // [shape.rows]
  std::span<const SeqInput> seqs() const { return seqs_; }  // live ones only, in row order
  std::int32_t page_tokens() const { return page_tokens_; }

  // Logits row `index` of the plan, or nullptr for padding of the bucket.
  const LogitsRow* logits_row(std::int32_t index) const;
  // False when nothing has to be computed for this logits row: padding of the bucket, a slot that
  // finished in an earlier step, or a verify row behind the end of its span's accepted rows.
  bool wants_logits(std::int32_t index) const;
  const SlotState& slot(SlotId slot) const { return slots_[static_cast<std::size_t>(slot)]; }

  // Results, in the order of logits rows. record_token makes `result.token` the slot's last
  // token, counts it and sets `result.finish`; record_report only passes the result on. skip is
  // for rows that do not want logits: a finished slot yields one skipped result a span.
  void record_token(std::int32_t index, RowResult result);
  void record_report(std::int32_t index, RowResult result);
  void skip(std::int32_t index);

  // Advances slots by SpanKind and hands the results over (timings are the backend's to fill).
  StepResult end();

 private:
  // What this step knows of a span beside its SeqInput.
  struct SpanProgress {
    std::int32_t tokens = 0;  // drawn in this step
    bool ended = false;       // a verify span met its first mismatch, or the slot finished
  };

  SlotState& slot_ref(SlotId slot);
  void apply_update(const SlotUpdate& update);
  void update_tables(const SeqSpan& span);
  void resolve_span(const SeqSpan& span);
  void emit(std::int32_t index, RowResult result);

  const std::int32_t page_tokens_;
  const std::int32_t max_rows_;
  const StepPlan* plan_ = nullptr;
  std::vector<SlotState> slots_;
  std::vector<RowInput> rows_;
  std::vector<SeqInput> seqs_;
  std::vector<SpanProgress> progress_;  // [seqs]
  SlotId last_skipped_ = kNoSlot;
  StepResult result_;
};

}  // namespace strata::kernels
