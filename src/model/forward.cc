#include "model/forward.h"

#include <algorithm>

namespace strata {

using kernels::Activations;
using kernels::CutPoint;
using kernels::Deltas;
using kernels::LayerWeights;

namespace {

// What the last layer left to be added to x. Buffers are constant, so body and tail agree.
Deltas last_deltas(const ForwardContext& context, const Activations& act) {
  return context.config.num_layers > 0 ? Deltas{.a = act.delta_moe, .b = act.delta_host} : Deltas{};
}

}  // namespace

void forward_body(const ForwardContext& context, const StepShape& shape) {
  kernels::Backend& backend = context.backend;
  Comm& comm = context.comm;
  const Activations& act = backend.activations();
  const auto hidden = static_cast<std::size_t>(context.config.hidden);
  const std::size_t residual_size = static_cast<std::size_t>(shape.rows) * hidden;

  backend.embed(shape, context.weights.embedding, act.x);
  comm.all_reduce(act.x.data, residual_size);  // vocabulary rows of other ranks arrive as zeros

  Deltas pending;  // what the layer before left to be added to x
  for (LayerId layer = 0; layer < context.config.num_layers; ++layer) {
    const LayerWeights& weights = context.weights.layers[static_cast<std::size_t>(layer)];

    backend.attn_qkv(shape, layer, weights, act.x, pending, act.q);
    backend.attend(shape, layer, weights, act.q, act.attn);
    backend.attn_out(shape, layer, weights, act.attn, act.delta_attn);
    comm.all_reduce(act.delta_attn.data, residual_size);

    backend.route(shape, layer, weights, act.x, Deltas{.a = act.delta_attn, .b = {}});
    backend.cut(CutPoint::kAfterRoute, layer);
    backend.experts(shape, layer, act.delta_moe);
    backend.experts_host(shape, layer, act.delta_host);
    comm.all_reduce(act.delta_moe.data, residual_size);

    pending = Deltas{.a = act.delta_moe, .b = act.delta_host};
  }

  if (shape.logits_rows > 0)
    backend.head(shape, context.weights, act.x, pending, 0,
                 std::min(shape.logits_rows, kernels::kMaxHeadRows));
  backend.cut(CutPoint::kBeforeSample, context.config.num_layers);
}

void forward_tail(const ForwardContext& context, const StepShape& shape) {
  kernels::Backend& backend = context.backend;
  const Activations& act = backend.activations();
  for (std::int32_t first = 0; first < shape.logits_rows; first += kernels::kMaxHeadRows) {
    const std::int32_t count = std::min(shape.logits_rows - first, kernels::kMaxHeadRows);
    if (first > 0)
      backend.head(shape, context.weights, act.x, last_deltas(context, act), first, count);
    backend.sample(shape, first, count);
  }
}

void forward(const ForwardContext& context, const StepShape& shape) {
  forward_body(context, shape);
  forward_tail(context, shape);
}

}  // namespace strata
