// How a plan is resolved against slots: positions, tokens, padding, page tables.
#include "kernels/host/host_step.h"

#include <gtest/gtest.h>

namespace strata::kernels {
namespace {

BackendOptions options() {
  BackendOptions options;
  options.max_rows = 16;
  options.max_slots = 4;
  options.page_tokens = 4;
  return options;
}

SlotUpdate admission(SlotId slot, std::int32_t position) {
  SlotUpdate update;
  update.slot = slot;
  update.position = position;
  update.max_new_tokens = 100;
  return update;
}

SeqSpan span_of(SlotId slot, SpanKind kind, std::int32_t first_row, std::int32_t n_rows) {
  SeqSpan span;
  span.slot = slot;
  span.kind = kind;
  span.first_row = first_row;
  span.n_rows = n_rows;
  return span;
}

void set_window(SeqSpan& span, StepPlan& plan, std::int32_t first_page, std::int32_t changed_from,
                const std::vector<PageId>& pages) {
  span.table_offset[kWindowGroup] = static_cast<std::int32_t>(plan.pages.size());
  span.first_page[kWindowGroup] = first_page;
  span.num_pages[kWindowGroup] = static_cast<std::int32_t>(pages.size());
  span.changed_from[kWindowGroup] = changed_from;
  plan.pages.insert(plan.pages.end(), pages.begin(), pages.end());
}

RowResult token(TokenId id) {
  RowResult result;
  result.token = id;
  return result;
}

class HostStepTest : public testing::Test {
 protected:
  // A decode step of slot 0 with a window table.
  void window_step(std::int32_t first_page, std::int32_t changed_from,
                   const std::vector<PageId>& pages) {
    StepPlan plan;
    plan.shape = {.rows = 1, .seqs = 1, .logits_rows = 0};
    plan.rows = {{.slot = 0, .token = {9}, .pos_offset = 0}};
    plan.seqs = {span_of(0, SpanKind::kPrefill, 0, 1)};
    set_window(plan.seqs[0], plan, first_page, changed_from, pages);
    step_.begin(plan);
    table_ = *step_.seqs()[0].tables[kWindowGroup];
    step_.end();
  }
  void admit(SlotId slot, std::int32_t position) {
    StepPlan plan;
    plan.slots = {admission(slot, position)};
    step_.begin(plan);
    step_.end();
  }

  HostStep step_{options()};
  PageTable table_;
};

TEST_F(HostStepTest, ResolvesRowsAndPadsTheRest) {
  StepPlan plan;
  plan.shape = {.rows = 5, .seqs = 2, .logits_rows = 3};
  plan.slots = {admission(2, 7)};
  plan.rows = {{.slot = 2, .token = {5}, .pos_offset = 0},
               {.slot = 2, .token = {6}, .pos_offset = 1}};
  plan.seqs = {span_of(2, SpanKind::kPrefill, 0, 2)};
  step_.begin(plan);
  ASSERT_EQ(step_.rows().size(), 5U);
  EXPECT_EQ(step_.rows()[1].token, 6);
  EXPECT_EQ(step_.rows()[1].position, 8);
  EXPECT_EQ(step_.rows()[1].seq, 0);
  for (std::size_t i = 2; i < 5; ++i) EXPECT_EQ(step_.rows()[i].seq, -1);
  EXPECT_EQ(step_.seqs().size(), 1U);
  EXPECT_EQ(step_.seqs()[0].first_position, 7);
  EXPECT_EQ(step_.logits_row(0), nullptr);
  EXPECT_FALSE(step_.wants_logits(0));
  step_.end();
  EXPECT_EQ(step_.slot(2).position, 9);
}

TEST_F(HostStepTest, DecodeTakesTheLastToken) {
  StepPlan plan;
  plan.shape = {.rows = 1, .seqs = 1, .logits_rows = 1};
  plan.slots = {admission(1, 0)};
  plan.rows = {{.slot = 1, .token = {5}, .pos_offset = 0}};
  plan.seqs = {span_of(1, SpanKind::kPrefill, 0, 1)};
  plan.logits = {LogitsRow{}};
  step_.begin(plan);
  step_.record_token(0, token(42));
  step_.end();
  plan.slots.clear();
  plan.rows[0].token = {};
  plan.seqs[0].kind = SpanKind::kDecode;
  step_.begin(plan);
  EXPECT_EQ(step_.rows()[0].token, 42);
  EXPECT_EQ(step_.rows()[0].position, 1);
  step_.record_token(0, token(43));
  const StepResult result = step_.end();
  EXPECT_EQ(result.rows[0].slot, 1);
  EXPECT_EQ(step_.slot(1).num_generated, 2);
}

TEST_F(HostStepTest, WindowTableDropsItsFrontAndTakesTheChangedSuffix) {
  admit(0, 0);
  window_step(0, 0, {11, 12, 13});
  EXPECT_EQ(table_.page_of(2), 13);
  window_step(0, 3, {11, 12, 13, 14});
  EXPECT_EQ(table_.page_of(3), 14);
  window_step(2, 4, {13, 14, 15});
  EXPECT_EQ(table_.first_page, 2);
  EXPECT_EQ(table_.pages, (std::vector<PageId>{13, 14, 15}));
  window_step(3, 4, {14, 25});  // the tail was replaced
  EXPECT_EQ(table_.pages, (std::vector<PageId>{14, 25}));
  window_step(9, 9, {31});  // everything known fell out
  EXPECT_EQ(table_.first_page, 9);
  EXPECT_EQ(table_.page_of(9), 31);
}

TEST_F(HostStepTest, EntriesBelowTheChangedSuffixAreTheSlotsOwn) {
  admit(0, 0);
  window_step(0, 0, {11, 12});
  window_step(0, 2, {99, 99, 13});  // only logical page 2 is new
  EXPECT_EQ(table_.pages, (std::vector<PageId>{11, 12, 13}));
}

TEST_F(HostStepTest, AdmissionForgetsTheSlotBefore) {
  admit(0, 0);
  window_step(0, 0, {11, 12});
  admit(0, 4);
  EXPECT_EQ(step_.slot(0).position, 4);
  window_step(1, 1, {21});
  EXPECT_EQ(table_.pages, (std::vector<PageId>{21}));
}

TEST_F(HostStepTest, PrefillOfAFinishedSlotIsPaddingAndDoesNotAdvance) {
  StepPlan plan;
  plan.shape = {.rows = 1, .seqs = 1, .logits_rows = 1};
  plan.slots = {admission(0, 0)};
  plan.slots[0].max_new_tokens = 1;
  plan.rows = {{.slot = 0, .token = {5}, .pos_offset = 0}};
  plan.seqs = {span_of(0, SpanKind::kPrefill, 0, 1)};
  plan.logits = {LogitsRow{}};
  step_.begin(plan);
  step_.record_token(0, token(3));
  EXPECT_EQ(step_.end().rows[0].finish, SlotFinish::kLength);
  plan.slots.clear();
  step_.begin(plan);
  EXPECT_EQ(step_.rows()[0].seq, -1);
  EXPECT_TRUE(step_.seqs().empty());
  step_.skip(0);
  const StepResult result = step_.end();
  ASSERT_EQ(result.rows.size(), 1U);
  EXPECT_TRUE(result.rows[0].skipped);
  EXPECT_EQ(step_.slot(0).position, 1);
}

using HostStepDeathTest = HostStepTest;

TEST_F(HostStepDeathTest, BrokenPlansAreBugs) {
  StepPlan plan;
  plan.shape = {.rows = 1, .seqs = 1, .logits_rows = 0};
  plan.rows = {{.slot = 3, .token = {5}, .pos_offset = 0}};
  plan.seqs = {span_of(3, SpanKind::kPrefill, 0, 1)};
  EXPECT_DEATH(step_.begin(plan), "names free slot 3");
  plan.slots = {admission(3, 0)};
  plan.rows[0].token = {};
  EXPECT_DEATH(step_.begin(plan), "no last token");
  plan.rows[0] = {.slot = 3, .token = {5}, .pos_offset = 2};
  EXPECT_DEATH(step_.begin(plan), "does not belong to its span");
  plan.slots[0].slot = 4;
  EXPECT_DEATH(step_.begin(plan), "slot 4 of 4");
  plan.shape.rows = 17;
  EXPECT_DEATH(step_.begin(plan), "17 rows, room for 16");
}

}  // namespace
}  // namespace strata::kernels
