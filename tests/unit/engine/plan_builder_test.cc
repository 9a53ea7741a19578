#include "engine/plan_builder.h"

#include <gtest/gtest.h>

#include "tests/unit/engine/paged_model.h"

namespace strata::test {
namespace {

class PlanBuilder : public testing::Test {
 protected:
  PlanBuilder() {
    info.max_rows = 100;
    info.max_logits_rows = 32;
    seq.id = 7;
    seq.slot = 3;
    seq.phase = SeqPhase::kPrefilling;
    seq.request.max_new_tokens = 5;
    for (TokenId i = 0; i < 30; ++i) seq.tokens.push_back(i);
    seq.prompt_len = 30;
    seq.prefill_target = 30;
  }
  StepPlan build(SpanKind kind, std::int32_t n_rows) {
    EXPECT_TRUE(kv.grow(seq.pages, seq.planned_len + n_rows));
    PlanInputs inputs;
    inputs.id = 9;
    inputs.spans = {{&seq, kind, n_rows}};
    StepPlan plan = build_plan(info, std::move(inputs));
    seq.planned_len += n_rows;
    return plan;
  }

  ModelInfo info = small_model_info();  // pages of 4, window 10
  const kv::BlockHasher hasher{kv::BlockHash{1}};
  kv::KvManager kv{kv::KvConfig{.page_tokens = 4, .window = 10, .num_pages = 64}, hasher};
  Sequence seq;
};

TEST(ShapeBucket, IsThePowerOfTwoAboveWithinTheLimit) {
  EXPECT_EQ(shape_bucket(0, 100), 0);
  EXPECT_EQ(shape_bucket(1, 100), 1);
  EXPECT_EQ(shape_bucket(3, 100), 4);
  EXPECT_EQ(shape_bucket(64, 100), 64);
  EXPECT_EQ(shape_bucket(65, 100), 100);
}

TEST_F(PlanBuilder, TheFirstChunkAdmitsAndCarriesLiterals) {
  const StepPlan plan = build(SpanKind::kPrefill, 6);
  ASSERT_EQ(plan.slots.size(), 1U);
  EXPECT_EQ(plan.slots[0].op, SlotOp::kAdmit);
  EXPECT_EQ(plan.slots[0].seq, 7U);
  EXPECT_EQ(plan.slots[0].position, 0);
  EXPECT_TRUE(plan.slots[0].history.empty()) << "no penalty asks for it";
  ASSERT_EQ(plan.rows.size(), 6U);
  EXPECT_EQ(plan.rows[5].token.literal, 5);
  EXPECT_EQ(plan.rows[5].pos_offset, 5);
  EXPECT_TRUE(plan.logits.empty());
  EXPECT_EQ(plan.shape.rows, 8);
  EXPECT_EQ(plan.shape.seqs, 1);
  EXPECT_EQ(plan.shape.logits_rows, 0);
}

TEST_F(PlanBuilder, TablesNameOnlyWhatTheRowsReadAndWhatIsNew) {
  build(SpanKind::kPrefill, 21);
  const StepPlan plan = build(SpanKind::kPrefill, 2);
  EXPECT_TRUE(plan.slots.empty()) << "admitted already";
  const SeqSpan& span = plan.seqs.at(0);
  EXPECT_EQ(span.kv_len_before, 21);
  EXPECT_EQ(span.num_pages[kFullGroup], 6);
  EXPECT_EQ(span.changed_from[kFullGroup], 6);
  EXPECT_EQ(span.first_page[kWindowGroup], 3) << "the row at 21 sees 12..21";
  EXPECT_EQ(span.num_pages[kWindowGroup], 3);
  EXPECT_EQ(span.table_offset[kWindowGroup], 6);
  const StepPlan next = build(SpanKind::kPrefill, 2);
  EXPECT_EQ(next.seqs.at(0).changed_from[kFullGroup], 6);
  EXPECT_EQ(next.seqs.at(0).num_pages[kFullGroup], 7);
}

TEST_F(PlanBuilder, TheLastPromptRowIsSampledAndDecodeUsesTheLastToken) {
  seq.request.sampling.top_logprobs = 2;
  const StepPlan plan = build(SpanKind::kPrefill, 30);
  ASSERT_EQ(plan.logits.size(), 1U);
  EXPECT_EQ(plan.logits[0].row, 29);
  EXPECT_EQ(plan.logits[0].kind, LogitsKind::kSample);
  EXPECT_EQ(plan.logits[0].top_n, 2);
  seq.phase = SeqPhase::kDecoding;
  const StepPlan decode = build(SpanKind::kDecode, 1);
  EXPECT_EQ(decode.rows.at(0).token.literal, kNoToken);
  EXPECT_EQ(decode.logits.size(), 1U);
}

TEST_F(PlanBuilder, PromptReportsAskForTheNextToken) {
  seq.request.prompt_logprobs = true;
  seq.request.prompt_top_logprobs = 4;
  build(SpanKind::kPrefill, 10);
  seq.logprobs_planned = 10;
  const StepPlan plan = build(SpanKind::kPrefill, 20);
  ASSERT_EQ(plan.logits.size(), 20U);
  EXPECT_EQ(plan.logits[0].row, 0);
  EXPECT_EQ(plan.logits[0].asked, 11);
  EXPECT_EQ(plan.logits[0].top_n, 4);
  EXPECT_EQ(plan.logits[18].asked, 29);
  EXPECT_EQ(plan.logits[19].kind, LogitsKind::kSample);
}

TEST_F(PlanBuilder, APreemptedSequenceBringsItsCountAndHistory) {
  seq.request.sampling.frequency_penalty = 0.5F;
  seq.tokens.push_back(40);
  seq.tokens.push_back(41);
  seq.prefill_target = 32;
  const StepPlan plan = build(SpanKind::kPrefill, 32);
  ASSERT_EQ(plan.slots.size(), 1U);
  EXPECT_EQ(plan.slots[0].num_generated, 2);
  EXPECT_EQ(plan.slots[0].max_new_tokens, 5);
  EXPECT_EQ(plan.slots[0].history.size(), 32U);
  EXPECT_EQ(plan.slots[0].history_prompt_len, 30);
  EXPECT_EQ(plan.logits.at(0).row, 31);
}

TEST_F(PlanBuilder, ReleasesComeBeforeAdmissions) {
  EXPECT_TRUE(kv.grow(seq.pages, 4));
  PlanInputs inputs;
  inputs.spans = {{&seq, SpanKind::kPrefill, 4}};
  inputs.released_slots = {1, 3};
  inputs.page_work.freed = {9};
  inputs.page_work.copies = {{5, 2, true}, {6, 2, false}};
  const StepPlan plan = build_plan(info, std::move(inputs));
  ASSERT_EQ(plan.slots.size(), 3U);
  EXPECT_EQ(plan.slots[1].op, SlotOp::kRelease);
  EXPECT_EQ(plan.slots[1].slot, 3);
  EXPECT_EQ(plan.slots[2].op, SlotOp::kAdmit);
  EXPECT_EQ(plan.poison, (std::vector<PageId>{9}));
  ASSERT_EQ(plan.copies.size(), 2U);
  EXPECT_EQ(plan.copies[0].kind, CopyKind::kSwapOut);
  EXPECT_EQ(plan.copies[0].src, 5);
  EXPECT_EQ(plan.copies[0].dst, 2);
  EXPECT_EQ(plan.copies[1].kind, CopyKind::kSwapIn);
  EXPECT_EQ(plan.copies[1].src, 2);
  EXPECT_EQ(plan.copies[1].dst, 6);
}

}  // namespace
}  // namespace strata::test
