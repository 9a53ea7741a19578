// Recordings of forward_body, one for each StepShape: the stages' launches between begin_step and
// cut(kBeforeSample) depend on the shape alone, so a graph of them replays every step of the shape.
//
// The first step of a shape runs eagerly (modules are loaded, mistakes show where they are made),
// the second is recorded while its stages are called, later ones launch the graph and their stage
// calls do nothing. After close() shapes that have no graph stay eager: recordings take memory and
// time, which requests should not wait for. Compute thread only.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "kernels/cuda/device.h"
#include "plan/step_plan.h"

namespace strata::kernels::cuda {

class StepGraphs {
 public:
  // Without `enabled` every step is eager.
  StepGraphs(bool enabled, const Stream& stream) : enabled_(enabled), stream_(stream) {}
  ~StepGraphs();
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;

  // The body of a step of `shape` begins.
  void begin(const StepShape& shape);
  // It ends: a recorded or replayed body is launched here.
  void end();

  void close() { closed_ = true; }
  // Of shapes without a graph.
  bool eager_for_good() const { return closed_ && mode_ == Mode::kEager; }
  bool recording() const { return mode_ == Mode::kRecord; }
  bool replaying() const { return mode_ == Mode::kReplay; }

 private:
  enum class Mode { kEager, kRecord, kReplay };
  struct Entry {
    StepShape shape;
    cudaGraphExec_t graph = nullptr;  // null: seen once
  };

  const bool enabled_;
  bool closed_ = false;
  const Stream& stream_;
  std::vector<Entry> entries_;  // shapes are few: they are buckets
  Entry* current_ = nullptr;
  Mode mode_ = Mode::kEager;
};

}  // namespace strata::kernels::cuda
