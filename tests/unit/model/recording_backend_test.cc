// Law 5: what forward() asks of a backend is a function of (ModelConfig, StepShape). Different
// plans of one shape are run on a real backend, whose results differ, and the calls are compared.
#include <gtest/gtest.h>

#include <functional>

#include "model/forward.h"
#include "tests/support/micro_model.h"
#include "tests/support/recording_backend.h"
#include "tests/support/step_runner.h"

namespace strata::test {
namespace {

class ForwardRecording : public testing::Test {
 protected:
  ForwardRecording() {
    TestBackend recording = test_backends().front();
    const auto make_inner = recording.make;
    recording.make = [this, make_inner](kernels::BackendContext context) {
      return std::make_shared<RecordingBackend>(make_inner(std::move(context)), calls_);
    };
    runner_ = std::make_unique<StepRunner>(recording, *checkpoint_);
  }

  // The calls of one step; `queue` fills the builder, the rest of the shape is padding.
  Recording record(const StepShape& shape, const std::function<void(PlanBuilder&)>& queue) {
    PlanBuilder& builder = runner_->builder();
    queue(builder);
    const StepPlan& open = builder.plan();
    builder.pad(shape.rows - static_cast<std::int32_t>(open.rows.size()),
                shape.seqs - static_cast<std::int32_t>(open.seqs.size()),
                shape.logits_rows - static_cast<std::int32_t>(open.logits.size()));
    const StepPlan plan = builder.take();
    EXPECT_EQ(plan.shape, shape);
    calls_.clear();
    RecordingComm comm(calls_);
    const ForwardContext context{config_, runner_->weights(), runner_->backend(), comm};
    runner_->backend().begin_step(plan);
    forward(context, plan.shape);
    builder.confirm(runner_->backend().end_step());
    return calls_;
  }

  static void admit_and_prefill(PlanBuilder& builder, SlotId slot, std::size_t rows, Want want) {
    builder.admit(slot);
    builder.prefill(slot, random_tokens(rows, 384, static_cast<std::uint64_t>(slot)), want, 3);
  }

  const ModelConfig config_ = micro_config();
  const std::unique_ptr<MemoryCheckpoint> checkpoint_ = make_micro_checkpoint(config_, 8);
  Recording calls_;
  std::unique_ptr<StepRunner> runner_;
};

TEST_F(ForwardRecording, PlansOfOneShapeGiveTheSameCalls) {
  for (const StepShape shape : {StepShape{.rows = 8, .seqs = 3, .logits_rows = 3},
                                StepShape{.rows = 16, .seqs = 4, .logits_rows = 4},
                                StepShape{.rows = 9, .seqs = 3, .logits_rows = 6}}) {
    const Recording mixed = record(shape, [](PlanBuilder& builder) {
      admit_and_prefill(builder, 0, 2, Want::kSample);
      admit_and_prefill(builder, 1, 5, Want::kNothing);
    });
    const Recording decodes = record(shape, [](PlanBuilder& builder) {
      builder.decode(0);
      builder.prefill(1, random_tokens(3, 384, 9), Want::kSample);
    });
    const Recording drafts = record(shape, [](PlanBuilder& builder) {
      builder.verify(0, std::vector<TokenId>{3});
      builder.decode(1, 5);
      admit_and_prefill(builder, 2, 3, Want::kNothing);
    });
    const Recording nothing = record(shape, [](PlanBuilder&) {});
    EXPECT_EQ(mixed, decodes);
    EXPECT_EQ(mixed, drafts);
    EXPECT_EQ(mixed, nothing) << "a step of padding alone";
    for (const SlotId slot : {0, 1, 2}) runner_->builder().release(slot);
  }
}

TEST_F(ForwardRecording, LogitsBeyondTheHeadLimitGoInBlocks) {
  const StepShape shape{.rows = 100, .seqs = 2, .logits_rows = 100};
  const Recording full = record(
      shape, [](PlanBuilder& builder) { admit_and_prefill(builder, 0, 100, Want::kAllLogprobs); });
  const Recording one = record(shape, [](PlanBuilder& builder) {
    builder.prefill(0, std::vector<TokenId>{7}, Want::kSample);
  });
  EXPECT_EQ(full, one);
  std::vector<std::pair<std::int64_t, std::int64_t>> blocks;
  for (const RecordedCall& call : full)
    if (call.stage == "head") blocks.emplace_back(call.first, call.count);
  EXPECT_EQ(blocks, (std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 64}, {64, 36}}));
}

TEST_F(ForwardRecording, ShapesDifferInTheirCalls) {
  const auto queue = [](PlanBuilder& builder) { admit_and_prefill(builder, 0, 2, Want::kSample); };
  const Recording small = record({.rows = 4, .seqs = 1, .logits_rows = 1}, queue);
  const Recording large = record({.rows = 8, .seqs = 1, .logits_rows = 1}, queue);
  EXPECT_NE(small, large) << "the recording must see the shape";
}

TEST_F(ForwardRecording, EveryStageOfEveryLayerInOrder) {
  const Recording calls =
      record({.rows = 2, .seqs = 1, .logits_rows = 1},
             [](PlanBuilder& builder) { admit_and_prefill(builder, 0, 2, Want::kSample); });
  std::vector<std::string> expected = {"embed", "all_reduce"};
  for (LayerId layer = 0; layer < config_.num_layers; ++layer)
    for (const char* stage : {"attn_qkv", "attend", "attn_out", "all_reduce", "route",
                              "cut after route", "experts", "experts_host", "all_reduce"})
      expected.emplace_back(stage);
  for (const char* stage : {"head", "cut before sample", "sample"}) expected.emplace_back(stage);
  std::vector<std::string> got;
  for (const RecordedCall& call : calls) got.push_back(call.stage);
  EXPECT_EQ(got, expected);
}

}  // namespace
}  // namespace strata::test
