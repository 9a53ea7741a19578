// From a checkpoint's stream of tensors to adopted dense weights and expert slabs. Start-up only.
#pragma once

#include "experts/expert_store.h"
#include "kernels/stages.h"
#include "weights/checkpoint.h"

namespace strata {

// Adopts every dense tensor into `backend` and every expert tensor into `experts`, in file order,
// then checks that none is missing. Throws StartupError naming the tensor.
kernels::ModelWeights load_checkpoint(const weights::Checkpoint& checkpoint,
                                      kernels::Backend& backend, ExpertStore& experts);

}  // namespace strata
