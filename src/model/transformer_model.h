// TransformerModel: the Model that runs forward.cc on a backend. submit() hands the plan to a
// compute thread of its own, so the engine thread never computes.
#pragma once

#include <memory>

#include "base/thread_pool.h"
#include "engine/model.h"
#include "experts/expert_store.h"
#include "kernels/stages.h"
#include "model/memory_plan.h"
#include "weights/checkpoint.h"

namespace strata {

class TransformerModel final : public Model {
 public:
  // Loads the checkpoint into `backend` and allocates what `plan` says. Throws StartupError or
  // MemoryError. `pool` (may be null for ref) must be the one the backend computes on; the model
  // keeps it alive.
  TransformerModel(const weights::Checkpoint& checkpoint, const MemoryPlan& plan,
                   std::unique_ptr<kernels::Backend> backend, std::unique_ptr<ThreadPool> pool);
  ~TransformerModel() override;

  ModelInfo info() const override;
  Ticket submit(StepPlan plan, std::function<void()> on_done) override;
  void release_tail(Ticket ticket, std::span<const std::uint32_t> masks) override;
  bool poll(Ticket ticket) override;
  StepResult wait(Ticket ticket) override;

  // Diagnosis, only while no ticket is open.
  std::vector<kernels::StageStats> take_stats();
  kernels::Backend& backend();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace strata
