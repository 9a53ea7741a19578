// What a model does before its first step: where steps are recorded, the usual ones are run.
#include "model/transformer_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/thread_pool.h"
#include "model/memory_plan.h"
#include "tests/support/micro_model.h"
#include "tests/support/recording_backend.h"
#include "tests/support/step_runner.h"

namespace strata::test {
namespace {

class WarmUp : public testing::Test {
 protected:
  // The calls of a model's start.
  const Recording& start(bool record_graphs) {
    PlanRequest request;
    request.config = checkpoint_->config();
    request.max_model_len = 128;
    request.max_num_seqs = 3;
    request.max_num_batched_tokens = 16;
    request.available_bytes = std::int64_t{1} << 30;
    MemoryPlan plan = make_memory_plan(request).value();
    plan.backend.record_graphs = record_graphs;
    options_ = plan.backend;
    kernels::BackendContext context;
    context.config = checkpoint_->config();
    calls_.clear();
    auto backend = std::make_unique<RecordingBackend>(
        test_backends().front().make(std::move(context)), calls_);
    const TransformerModel model(*checkpoint_, plan, std::move(backend),
                                 std::make_unique<ThreadPool>(1));
    return calls_;
  }

  static std::vector<StepShape> steps(const Recording& calls) {
    std::vector<StepShape> shapes;
    for (const RecordedCall& call : calls)
      if (call.stage == "embed") shapes.push_back(call.shape);
    return shapes;
  }

  const std::unique_ptr<MemoryCheckpoint> checkpoint_ = make_micro_checkpoint(micro_config(), 8);
  Recording calls_;
  kernels::BackendOptions options_;
};

TEST_F(WarmUp, UsualStepsRunTwiceBeforeReady) {
  const Recording& calls = start(true);
  const std::vector<StepShape> ran = steps(calls);
  const auto times = [&](const StepShape& shape) {
    return std::count(ran.begin(), ran.end(), shape);
  };
  for (const std::int32_t seqs : {1, 2, 3})
    EXPECT_EQ(times({.rows = shape_bucket(seqs, options_.max_rows),
                     .seqs = shape_bucket(seqs, options_.max_slots),
                     .logits_rows = shape_bucket(seqs, options_.max_logits_rows)}),
              2)
        << seqs << " decodes";
  for (const std::int32_t rows : {2, 4, 8, 16})
    EXPECT_EQ(times({.rows = rows, .seqs = 1, .logits_rows = 1}), 2) << "a prompt of " << rows;
  EXPECT_EQ(times({.rows = 16, .seqs = 1, .logits_rows = 0}), 2);
  ASSERT_FALSE(calls.empty());
  EXPECT_EQ(calls.back().stage, "ready");
  EXPECT_EQ(std::count_if(calls.begin(), calls.end(),
                          [](const RecordedCall& call) { return call.stage == "ready"; }),
            1);
}

TEST_F(WarmUp, NothingRunsWhereNothingIsRecorded) { EXPECT_TRUE(start(false).empty()); }

}  // namespace
}  // namespace strata::test
