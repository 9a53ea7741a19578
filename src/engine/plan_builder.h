// PlanBuilder: spans -> StepPlan, the only place that knows the layout of a plan. Engine thread
// only; keeps nothing between plans.
#pragma once

#include <vector>

#include "engine/model.h"
#include "engine/sequence.h"
#include "plan/step_plan.h"

namespace strata {

struct PlanInputs {
  StepId id = 0;
  std::vector<ScheduledSpan> spans;  // decode before prefill; pages cover them
  std::vector<SlotId> released_slots;
  kv::KvManager::PageWork page_work;
};

// Marks the spans' page tables as uploaded and their slots as admitted; positions are advanced by
// the caller.
StepPlan build_plan(const ModelInfo& info, PlanInputs inputs);

// The buckets of what the plan holds. REQUIRES that the model has room for it.
StepShape shape_of(const StepPlan& plan, const ModelInfo& info);

}  // namespace strata
