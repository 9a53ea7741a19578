// PagedModel: a Model whose next token is a hash of what it reads through the plan's page tables,
// so that a wrong page, a page given back too early or a wrong position changes the text. It also
// checks every plan against the rules of plan/step_plan.h and throws std::logic_error.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <vector>

#include "engine/engine.h"
#include "engine/model.h"

namespace strata::test {

inline constexpr TokenId kStopToken = 0;

// What PagedModel answers to `request`: its stop ids are none or kStopToken.
std::vector<TokenId> expected_answer(const ModelInfo& info, const EngineRequest& request);

ModelInfo small_model_info();

class PagedModel final : public Model {
 public:
  // `ready` decides whether a poll finds its step done; without it every step is done at once.
  explicit PagedModel(const ModelInfo& info, std::function<bool()> ready = {});

  ModelInfo info() const override { return info_; }
  Ticket submit(StepPlan plan, std::function<void()> on_done) override;
  void release_tail(Ticket, std::span<const std::uint32_t>) override {}
  bool poll(Ticket ticket) override;
  StepResult wait(Ticket ticket) override;

  std::function<void(const StepPlan&)> on_plan;  // sees every plan, after it was checked
  const StepPlan& last_plan() const { return last_plan_; }
  std::uint64_t steps() const { return steps_; }
  std::int32_t open() const { return static_cast<std::int32_t>(open_.size()); }

 private:
  struct Cell {
    TokenId token = kNoToken;
    std::int32_t position = -1;
  };
  struct Table {
    std::int32_t first_page = 0;
    std::vector<PageId> pages;
  };
  struct Slot {
    bool admitted = false;
    bool finished = false;
    SeqId seq = 0;
    std::int32_t position = 0;
    std::int32_t generated = 0;
    std::int32_t max_new_tokens = 0;
    TokenId last = kNoToken;
    SamplingParams sampling;
    std::array<Table, kNumKvGroups> tables;
  };
  struct Open {
    StepResult result;
    std::map<PageId, SeqId> pages;  // named by the step
  };

  void check_shape(const StepPlan& plan) const;
  void apply(const SlotUpdate& update);
  void copy(const PageCopy& copy);
  void check_span(const StepPlan& plan, const SeqSpan& span, std::int32_t expected_row);
  void take_tables(const StepPlan& plan, const SeqSpan& span);
  void check_owners(const StepPlan& plan, const SeqSpan& span) const;
  void write_rows(const StepPlan& plan, const SeqSpan& span);
  RowResult run_logits(const StepPlan& plan, const LogitsRow& logits);
  TokenId draw(const Slot& slot, std::int32_t position) const;
  Cell& cell(const Table& table, std::int32_t position);
  const Cell& cell(const Table& table, std::int32_t position) const;
  Slot& slot(SlotId id);

  const ModelInfo info_;
  const std::function<bool()> ready_;
  std::vector<Slot> slots_;
  std::vector<Cell> cells_;       // [num_pages][page_tokens]
  std::vector<Cell> host_cells_;  // [num_swap_pages][page_tokens]
  std::deque<Open> open_;
  StepPlan last_plan_;
  std::uint64_t steps_ = 0;
};

}  // namespace strata::test
