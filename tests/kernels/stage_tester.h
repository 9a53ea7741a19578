// StageTester: runs single stages of a backend on inputs made here, so that a test can compare
// them with double computations of its own. One per model shape.
//
//   StageTester tester(backend, config);
//   tester.begin(0, 0, 7);                       // slot 0 at position 0, 7 rows
//   tester.write(tester.act().x, x);             // floats, row-major
//   tester.backend().attn_qkv(tester.shape(), 0, tester.layer(0), ...);
//   const auto q = tester.read(tester.act().q, 7 * q_dim);
//   tester.end();
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/memory_checkpoint.h"
#include "tests/support/micro_model.h"
#include "tests/support/step_runner.h"

namespace strata::test {

using Doubles = std::vector<double>;
using Floats = std::vector<float>;

// A computed value and the sum of the magnitudes it was made of: rounding errors of any order of
// summation are a small multiple of the latter.
struct Bounded {
  double value = 0.0;
  double magnitude = 0.0;
};

class StageTester {
 public:
  StageTester(const TestBackend& backend, std::unique_ptr<MemoryCheckpoint> checkpoint,
              const kernels::BackendOptions& options = small_options());
  // The micro model's weights for this shape.
  StageTester(const TestBackend& backend, const ModelConfig& config,
              const kernels::BackendOptions& options = small_options());

  const ModelConfig& config() const { return checkpoint_->config(); }
  kernels::Backend& backend() { return runner_.backend(); }
  const kernels::Activations& act() { return runner_.backend().activations(); }
  const kernels::LayerWeights& layer(LayerId layer) const {
    return runner_.weights().layers[static_cast<std::size_t>(layer)];
  }
  const kernels::ModelWeights& weights() const { return runner_.weights(); }
  PlanBuilder& builder() { return runner_.builder(); }
  const StepShape& shape() const { return plan_->shape; }

  // Queues a span of `rows` rows (tokens 0, 1, ...); admits the slot at `position` if it is free.
  void add(SlotId slot, std::int32_t position, std::int32_t rows, Want want = Want::kNothing,
           std::int32_t top_n = -1);
  void begin();  // starts the step with what was queued; every activation buffer is NaN
  StepResult end();

  void write(kernels::Buffer buffer, const Floats& values);
  Floats read(kernels::Buffer buffer, std::size_t count);
  // The same for act().attn, [rows, q_dim] in the order of heads.
  void write_attn(const Floats& values);
  Floats read_attn(std::size_t count);

  // A tensor of the checkpoint in double: bf16 as it is, MXFP4 (name without suffix) decoded to
  // [experts * rows, K].
  Doubles tensor(const std::string& name) const;
  Doubles mxfp4(const std::string& name) const;

 private:
  std::size_t attn_position(std::size_t i) const;

  const TestBackend& description_;
  std::unique_ptr<MemoryCheckpoint> checkpoint_;
  const kernels::BackendOptions options_;
  StepRunner runner_;
  std::optional<StepPlan> plan_;
  std::vector<SlotId> admitted_;
};

// Suites of one stage: after each test prints the error that came nearest to its tolerance.
class StageTest : public testing::TestWithParam<TestBackend> {
 protected:
  bool within(double got, double expected, double tolerance);
  void TearDown() override;

 private:
  double worst_share_ = -1.0;
  double error_ = 0.0;
  double tolerance_ = 0.0;
};

// Overwrites a bf16 tensor; values must be exact in bf16.
void set_tensor(MemoryCheckpoint& checkpoint, const std::string& name, const Floats& values);

// Uniform in [-amplitude, amplitude], the same for the same key.
Floats random_floats(std::size_t count, std::uint64_t key, double amplitude = 1.0);
Floats nans(std::size_t count);

// Row `row` of a row-major matrix with x.size() columns times x, plus bias.
Bounded dot(const Doubles& matrix, std::size_t row, const Doubles& x, double bias = 0.0);
Doubles rms_norm(const Doubles& x, const Doubles& weight, double eps);
// x, then plus a, then plus b, each sum rounded to float32 as the residual stream is.
Floats add_rounded(const Floats& x, const Floats& a, const Floats& b);
Doubles row_of(const Floats& values, std::size_t row, std::size_t width);

}  // namespace strata::test
