// PlanBuilder: makes StepPlans as the engine would, for tests of backends: it knows slots, their
// positions and both page tables, and hands out pages in a scrambled order.
//
//   builder.admit(0);  builder.prefill(0, prompt, Want::kSample);
//   const StepPlan plan = builder.take();
//   ... run it ...
//   builder.confirm(result);
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/model_config.h"
#include "kernels/stages.h"
#include "plan/step_plan.h"

namespace strata::test {

// Which rows of a prefill span yield what.
enum class Want { kNothing, kSample, kAllLogprobs };

struct Admission {
  std::int32_t position = 0;
  std::int32_t num_generated = 0;
  std::int32_t max_new_tokens = 1 << 20;
  std::vector<TokenId> history = {};
  std::int32_t history_prompt_len = 0;
};

class PlanBuilder {
 public:
  PlanBuilder(const ModelConfig& config, const kernels::BackendOptions& options);

  void admit(SlotId slot, SamplingParams sampling = {}, Admission admission = {});
  void change(SlotId slot, SamplingParams sampling);
  void release(SlotId slot);  // its pages return to the pool and are poisoned by the next plan

  // Spans of the step, in row order. top_n >= 0 asks for logprobs.
  void prefill(SlotId slot, std::span<const TokenId> tokens, Want want, std::int32_t top_n = -1);
  void decode(SlotId slot, std::int32_t top_n = -1);
  void verify(SlotId slot, std::span<const TokenId> drafts, std::int32_t top_n = -1);
  void pad(std::int32_t rows, std::int32_t seqs, std::int32_t logits_rows);

  // The plan so far, for what only one test needs (masks, copies).
  StepPlan& plan() { return plan_; }
  StepPlan take();
  // Moves positions on by what the step did.
  void confirm(const StepResult& result);

  std::int32_t position(SlotId slot) const { return slots_.at(slot).position; }
  std::span<const PageId> pages(SlotId slot, KvGroup group) const {
    return slots_.at(slot).tables[group].pages;
  }
  // Gives every page of `slot` a new number; returns copies old -> new of the kind asked for.
  std::vector<PageCopy> move_pages(SlotId slot);
  std::size_t free_pages() const { return free_.size(); }

 private:
  struct Table {
    std::int32_t first_page = 0;
    std::int32_t sent = 0;  // logical pages below this are known to the backend
    std::vector<PageId> pages;
  };
  struct Slot {
    std::int32_t position = 0;
    std::array<Table, kNumKvGroups> tables;
  };

  void add_span(SlotId slot, SpanKind kind, std::span<const TokenSource> tokens);
  void extend_tables(Slot& slot, std::int32_t end, SeqSpan& span);
  void add_logits(std::int32_t row, LogitsKind kind, std::int32_t top_n, TokenId asked);
  PageId allocate();
  void free_page(PageId page);

  const std::int32_t page_tokens_;
  const std::int32_t window_;
  std::array<bool, kNumKvGroups> has_group_{};
  std::map<SlotId, Slot> slots_;
  std::vector<PageId> free_;
  std::vector<PageId> poison_;
  std::vector<PageId> moved_from_;
  std::vector<SeqSpan> last_spans_;
  StepPlan plan_;
  StepId next_id_ = 1;
};

}  // namespace strata::test
