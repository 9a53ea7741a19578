#include "engine/scripted_model.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/unit/engine/paged_model.h"

namespace strata::test {
namespace {

constexpr TokenId kEnd = 49;

std::unique_ptr<Model> scripted(std::vector<std::vector<TokenId>> scripts, int delay_us = 0) {
  ScriptedOptions options;
  options.scripts = std::move(scripts);
  options.end_token = kEnd;
  options.info = small_model_info();
  options.step_delay_us = delay_us;
  return make_scripted_model(std::move(options));
}

SlotUpdate admit(SlotId slot, SeqId seq, std::int32_t max_new_tokens,
                 std::vector<TokenId> stop_ids = {}, std::int32_t num_generated = 0) {
  SlotUpdate update;
  update.slot = slot;
  update.seq = seq;
  update.max_new_tokens = max_new_tokens;
  update.num_generated = num_generated;
  update.sampling.stop_ids = std::move(stop_ids);
  return update;
}

// A plan in which every slot of `slots` draws one token.
StepPlan plan_of(StepId id, std::vector<SlotId> slots, std::vector<SlotUpdate> updates = {}) {
  StepPlan plan;
  plan.id = id;
  plan.slots = std::move(updates);
  for (const SlotId slot : slots) {
    LogitsRow logits;
    logits.row = static_cast<std::int32_t>(plan.rows.size());
    plan.rows.push_back(Row{slot, {}, 0});
    plan.logits.push_back(logits);
  }
  return plan;
}

StepResult run(Model& model, StepPlan plan) {
  return model.wait(model.submit(std::move(plan), {}));
}

std::vector<TokenId> draw(Model& model, SlotId slot, int count, StepId first_step) {
  std::vector<TokenId> tokens;
  for (int i = 0; i < count; ++i) {
    const StepResult result = run(model, plan_of(first_step + static_cast<StepId>(i), {slot}));
    tokens.push_back(result.rows.at(0).token);
  }
  return tokens;
}

TEST(ScriptedModel, TheNthAdmittedSequenceGetsLineN) {
  const auto model = scripted({{1, 2, 3}, {4, 5}, {}});
  StepResult result = run(*model, plan_of(1, {0, 1}, {admit(0, 10, 9), admit(1, 11, 9)}));
  EXPECT_EQ(result.rows[0].token, 1);
  EXPECT_EQ(result.rows[1].token, 4);
  EXPECT_EQ(result.rows[1].slot, 1);
  result = run(*model, plan_of(2, {0, 1, 2}, {admit(2, 12, 9)}));
  EXPECT_EQ(result.rows[0].token, 2);
  EXPECT_EQ(result.rows[1].token, 5);
  EXPECT_EQ(result.rows[2].token, kEnd) << "an empty line";
  result = run(*model, plan_of(3, {0, 1, 3}, {admit(3, 13, 9)}));
  EXPECT_EQ(result.rows[0].token, 3);
  EXPECT_EQ(result.rows[1].token, kEnd) << "behind the script";
  EXPECT_EQ(result.rows[2].token, 1) << "after the last line comes the first";
}

TEST(ScriptedModel, StopIdsAndLengthFinishASlot) {
  const auto model = scripted({{1, 2, 3}});
  StepResult result = run(*model, plan_of(1, {0, 1}, {admit(0, 1, 9, {2}), admit(1, 2, 1)}));
  EXPECT_EQ(result.rows[0].finish, SlotFinish::kNone);
  EXPECT_EQ(result.rows[1].finish, SlotFinish::kLength);
  result = run(*model, plan_of(2, {0, 1}));
  EXPECT_EQ(result.rows[0].token, 2);
  EXPECT_EQ(result.rows[0].finish, SlotFinish::kStopId);
  EXPECT_TRUE(result.rows[1].skipped);
  EXPECT_TRUE(run(*model, plan_of(3, {0})).rows[0].skipped);
}

TEST(ScriptedModel, APreemptedSequenceGoesOnWithItsLine) {
  const auto model = scripted({{1, 2, 3}, {4, 5, 6}});
  run(*model, plan_of(1, {0}, {admit(0, 7, 9)}));
  SlotUpdate release;
  release.op = SlotOp::kRelease;
  release.slot = 0;
  EXPECT_EQ(run(*model, plan_of(2, {1}, {release, admit(1, 8, 9)})).rows[0].token, 4);
  EXPECT_EQ(run(*model, plan_of(3, {0}, {admit(0, 7, 9, {}, 1)})).rows[0].token, 2);
  EXPECT_EQ(draw(*model, 0, 1, 4), (std::vector<TokenId>{3}));
}

TEST(ScriptedModel, ReportsPromptRowsAndBestIds) {
  const auto model = scripted({{48}});
  StepPlan plan = plan_of(1, {0, 0}, {admit(0, 1, 9)});
  plan.logits[0].kind = LogitsKind::kPromptLogprob;
  plan.logits[0].asked = 17;
  plan.logits[1].top_n = 3;
  const StepResult result = run(*model, std::move(plan));
  EXPECT_EQ(result.rows[0].token, 17);
  EXPECT_EQ(result.rows[0].rank, 1);
  EXPECT_EQ(result.rows[0].logprob, 0.0F);
  EXPECT_TRUE(result.rows[0].top.empty());
  ASSERT_EQ(result.rows[1].top.size(), 3U);
  EXPECT_EQ(result.rows[1].top[0].token, 48);
  EXPECT_EQ(result.rows[1].top[2].token, 0) << "ids wrap at the vocabulary";
  EXPECT_GT(result.rows[1].top[1].logprob, result.rows[1].top[2].logprob);
}

TEST(ScriptedModel, AcceptsDraftsThatEqualTheScript) {
  const auto model = scripted({{1, 2, 3, 4, 5}});
  const auto verify = [](StepId id, std::vector<TokenId> drafts) {
    StepPlan plan = plan_of(id, std::vector<SlotId>(drafts.size() + 1, 0));
    drafts.push_back(kNoToken);
    for (std::size_t i = 0; i < drafts.size(); ++i) {
      plan.logits[i].kind = LogitsKind::kVerify;
      plan.logits[i].asked = drafts[i];
    }
    return plan;
  };
  StepPlan first = verify(1, {1, 2, 9});
  first.slots = {admit(0, 1, 99)};
  StepResult result = run(*model, std::move(first));
  ASSERT_EQ(result.rows.size(), 3U) << "two accepted and the token in place of the third";
  EXPECT_EQ(result.rows[2].token, 3);
  result = run(*model, verify(2, {4}));
  ASSERT_EQ(result.rows.size(), 2U);
  EXPECT_EQ(result.rows[1].token, 5) << "all accepted, and one more";
}

TEST(ScriptedModel, APacedStepIsDoneLaterAndWakesTheEngine) {
  const auto model = scripted({{1, 2}}, 1000);
  std::atomic<int> woken{0};
  const Ticket one = model->submit(plan_of(1, {0}, {admit(0, 1, 9)}), [&] { ++woken; });
  const Ticket two = model->submit(plan_of(2, {0}), [&] { ++woken; });
  EXPECT_EQ(model->wait(one).rows[0].token, 1);
  EXPECT_EQ(model->wait(two).rows[0].token, 2);
  while (woken < 2) std::this_thread::yield();
}

TEST(ScriptedModel, ScriptsMustFitTheVocabulary) {
  EXPECT_THROW(scripted({}), StartupError);
  EXPECT_THROW(scripted({{1}, {50}}), StartupError);
  ScriptedOptions options;
  options.scripts = {{1}};
  options.info = small_model_info();
  EXPECT_THROW(make_scripted_model(options), StartupError) << "no end token";
}

}  // namespace
}  // namespace strata::test
