// The one forward pass. Compute thread of a rank only.
#pragma once

#include "base/model_config.h"
#include "comm/comm.h"
#include "kernels/stages.h"

namespace strata {

// Everything forward() passes on; constant after start-up.
struct ForwardContext {
  const ModelConfig& config;
  const kernels::ModelWeights& weights;
  kernels::Backend& backend;
  Comm& comm;
};

// Runs embed .. sample for a step begun on the backend.
//
// Data-independent: its sequence of stage calls and every pointer it passes are a function of
// (ModelConfig, StepShape). It reads no stage's result, allocates nothing and branches on no value
// of a plan, so its recording for one StepShape replays for every plan of that shape.
void forward(const ForwardContext& context, const StepShape& shape);

// forward() is these two, which are separate recordings: a grammar mask is due before the tail
// only. The body ends with the logits of the first kMaxHeadRows logits rows; the tail samples
// them, then computes and samples the rest.
void forward_body(const ForwardContext& context, const StepShape& shape);
void forward_tail(const ForwardContext& context, const StepShape& shape);

}  // namespace strata
