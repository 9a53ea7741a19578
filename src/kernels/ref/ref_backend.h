// The reference backend: the specification of every stage, one thread, double accumulation,
// float32 storage, exact MXFP4 and bf16 weights, float32 KV. Slow on purpose.
#pragma once

#include <memory>

#include "kernels/stages.h"

namespace strata::kernels {

// With several ranks, context.config holds this rank's head counts and intermediate size. The
// vocabulary may be split for the embedding, not for the unembedding.
std::unique_ptr<Backend> make_ref_backend(BackendContext context);

}  // namespace strata::kernels
