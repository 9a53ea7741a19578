// StepDriver: runs a fixed batch of equal sequences through a Model without an engine, for `bench`.
// It hands out pages by arithmetic. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "engine/model.h"
#include "plan/step_plan.h"

namespace strata::app {

class StepDriver {
 public:
  // REQUIRES batch <= max_slots and pages for `context` tokens of each sequence: see pages_needed.
  StepDriver(Model& model, std::int32_t batch, std::int32_t context);

  // Pages that `batch` sequences of `context` tokens take, the scrap page included.
  static std::int64_t pages_needed(const ModelInfo& info, std::int32_t batch, std::int32_t context);

  // Starts every sequence anew, behind `context` tokens whose keys and values are copies of the
  // first pages': what is computed with them means nothing, but costs what it should.
  void admit(std::int32_t max_new_tokens, std::int32_t context = 0);
  // Computes prompts[slot] for each sequence, one after the other, in steps of max_rows; the last
  // one samples. Returns the number of steps. REQUIRES one prompt a sequence, none empty.
  int prefill(const std::vector<std::vector<TokenId>>& prompts);
  // One token for every sequence, in slot order.
  std::vector<TokenId> decode();
  // So many steps of one token for every sequence, two in flight as the engine has them; `each`
  // gets the tokens of a step in slot order.
  void decode(int steps, const std::function<void(const std::vector<TokenId>&)>& each);

 private:
  struct Sequence {
    std::int32_t length = 0;  // tokens whose keys and values are in pages
  };

  StepPlan new_plan();
  void add_span(StepPlan& plan, SlotId slot, SpanKind kind, std::int32_t rows);
  void fill_pages(SlotId slot);
  void add_table(StepPlan& plan, SeqSpan& span, KvGroup group) const;
  StepPlan decode_plan();
  Ticket submit(StepPlan plan);

  Model& model_;
  const ModelInfo info_;
  const std::int32_t full_pages_;    // of one sequence
  const std::int32_t window_pages_;  // of one sequence, used as a ring
  std::vector<Sequence> sequences_;
  std::vector<SlotUpdate> updates_;  // of the next plan
  std::vector<PageCopy> copies_;     // of the next plan
  StepId next_id_ = 1;
};

}  // namespace strata::app
