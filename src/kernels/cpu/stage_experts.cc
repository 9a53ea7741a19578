// route and experts of the CPU backend.
#include <algorithm>
#include <cmath>

#include "base/bf16.h"
#include "base/check.h"
#include "kernels/cpu/cpu_stages.h"

namespace strata::kernels::cpu {
void CpuBackend::route(const StepShape&, LayerId, const LayerWeights& weights, Buffer x,
                       const Deltas& deltas) {
  Timer timer(*this, Stage::kRoute);
  const DenseWeight& router = weight(weights.router_weight);
  const float* bias = weight(weights.router_bias).vector();
  const int grain = grain_of(std::int64_t{config_.hidden} * (config_.num_experts + kNormCost));
  share_work(pool_, num_live(), grain, [&](int worker, int begin, int end) {
    const Worker& memory = workers_[static_cast<std::size_t>(worker)];
    for (int i = begin; i < end; ++i) {
      const std::int32_t row = live_[static_cast<std::size_t>(i)];
      NormRow norm = norm_row(x, deltas, weights.mlp_norm, row);
      norm.x_out = row_of(x, row, config_.hidden);
      norm.out = normed_.float_row(row);
      primitives_.norm(norm);
      if (experts_are_mxfp4()) quantise(norm.out, config_.hidden, 0, normed_.quad_row(row));
    }
    const auto first = static_cast<std::size_t>(begin);
    const auto count = static_cast<std::size_t>(end - begin);
    multiply(router, 0, router.rows(), Inputs(live_normed_).part(first, count), memory.y, memory);
    for (int i = begin; i < end; ++i) {
      float* logits = memory.y + static_cast<std::ptrdiff_t>(i - begin) * router.rows();
      for (std::int32_t e = 0; e < router.rows(); ++e) logits[e] += bias[e];
      choose_experts({logits, static_cast<std::size_t>(router.rows())}, i);
    }
  });
  timer.multiply(router, num_live());
  group_pairs();
}

// The highest logits, ties to the lower id, and the softmax over the chosen ones.
void CpuBackend::choose_experts(std::span<const float> logits, std::int32_t live) {
  const auto top = static_cast<std::size_t>(config_.experts_per_token);
  ExpertId* chosen = &pair_expert_[static_cast<std::size_t>(live) * top];
  float* share = &pair_weight_[static_cast<std::size_t>(live) * top];
  std::size_t count = 0;
  for (std::size_t e = 0; e < logits.size(); ++e) {
    if (count == top && !(logits[e] > share[top - 1])) continue;
    std::size_t at = count < top ? count++ : top - 1;
    for (; at > 0 && logits[e] > share[at - 1]; --at) {
      share[at] = share[at - 1];
      chosen[at] = chosen[at - 1];
    }
    share[at] = logits[e];
    chosen[at] = static_cast<ExpertId>(e);
  }
  const float best = share[0];
  float total = 0.0F;
  for (std::size_t i = 0; i < top; ++i) {
    share[i] = std::exp(share[i] - best);
    total += share[i];
  }
  for (std::size_t i = 0; i < top; ++i) share[i] /= total;
}

// Sorts the pairs of the step by expert, within an expert by row.
void CpuBackend::group_pairs() {
  const std::int32_t top = config_.experts_per_token;
  const auto pairs = static_cast<std::size_t>(num_live() * top);
  std::vector<std::int32_t>& next = expert_next_;
  next.assign(static_cast<std::size_t>(config_.num_experts), 0);
  for (std::size_t i = 0; i < pairs; ++i) ++next[static_cast<std::size_t>(pair_expert_[i])];
  active_.clear();
  std::int32_t begin = 0;
  for (ExpertId e = 0; e < config_.num_experts; ++e) {
    std::int32_t& count = next[static_cast<std::size_t>(e)];
    if (count > 0) active_.push_back({e, begin, count});
    begin += std::exchange(count, begin);
  }
  for (std::size_t i = 0; i < pairs; ++i) {
    const std::int32_t position = next[static_cast<std::size_t>(pair_expert_[i])]++;
    pair_position_[i] = position;
    const auto to = static_cast<std::size_t>(position);
    const std::size_t row = i / static_cast<std::size_t>(top);
    pair_input_.floats[to] = live_normed_.floats[row];
    pair_input_.quads[to] = live_normed_.quads[row];
  }
}

SlabMatrix CpuBackend::gate_up_of(LayerId layer, ExpertId expert) const {
  const std::byte* slab = slabs_[static_cast<std::size_t>(layer * config_.num_experts + expert)];
  STRATA_CHECK(slab != nullptr, "expert {} of layer {} is not resident", expert, layer);
  return {slab + layout_.gate_up_blocks, slab + layout_.gate_up_scales, slab + layout_.gate_up_bias,
          layout_.hidden};
}

SlabMatrix CpuBackend::down_of(LayerId layer, ExpertId expert) const {
  const std::byte* slab = slabs_[static_cast<std::size_t>(layer * config_.num_experts + expert)];
  return {slab + layout_.down_blocks, slab + layout_.down_scales, slab + layout_.down_bias,
          layout_.intermediate};
}

void CpuBackend::multiply(const SlabMatrix& matrix, std::int32_t first, std::int32_t count,
                          const Inputs& x, float* y, const Worker& worker) const {
  const auto weights_before = static_cast<std::size_t>(first) * static_cast<std::size_t>(matrix.k);
  if (!experts_are_mxfp4()) {
    primitives_.product_bf16({.weights = matrix.weights + weights_before * 2,
                              .k = matrix.k,
                              .count = count,
                              .x = x.floats.data(),
                              .num_x = static_cast<int>(x.size()),
                              .y = y,
                              .y_stride = count,
                              .scratch = worker.product});
    return;
  }
  primitives_.product_mxfp4({.weights = matrix.weights + weights_before / 2,
                             .scales = matrix.scales + weights_before / kBlock,
                             .k = matrix.k,
                             .count = count,
                             .x = x.quads.data(),
                             .num_x = static_cast<int>(x.size()),
                             .planes = planes_,
                             .y = y,
                             .y_stride = count,
                             .scratch = worker.product});
}

void CpuBackend::experts(const StepShape&, LayerId layer, Buffer delta) {
  Timer timer(*this, Stage::kExperts);
  if (live_.empty()) return;
  // gate/up: a unit is one expert's block of 32 SwiGLU outputs.
  const std::int32_t blocks = config_.intermediate / kBlock;
  const auto num_active = static_cast<std::int32_t>(active_.size());
  const std::int64_t pairs = std::int64_t{num_live()} * config_.experts_per_token;
  const std::int64_t block_cost = std::int64_t{kBlock} * config_.hidden * 2 * pairs / num_active;
  share_work(pool_, num_active * blocks, grain_of(block_cost), [&](int worker, int begin, int end) {
    for (int unit = begin; unit < end; ++unit) {
      const ActiveExpert& active = active_[static_cast<std::size_t>(unit / blocks)];
      gate_up_unit(gate_up_of(layer, active.expert), active, unit % blocks * kBlock,
                   workers_[static_cast<std::size_t>(worker)]);
    }
  });
  // down: a unit is a block of 32 outputs of all rows, so one worker adds up a row's experts.
  const std::int64_t down_cost = std::int64_t{kBlock} * config_.intermediate * pairs;
  share_work(pool_, config_.hidden / kBlock, grain_of(down_cost),
             [&](int worker, int begin, int end) {
               for (int unit = begin; unit < end; ++unit)
                 down_unit(layer, unit * kBlock, workers_[static_cast<std::size_t>(worker)], delta);
             });
  timer.experts(num_active, pairs);
}

void CpuBackend::gate_up_unit(const SlabMatrix& matrix, const ActiveExpert& active,
                              std::int32_t first, Worker& worker) {
  const auto begin = static_cast<std::size_t>(active.begin);
  const auto count = static_cast<std::size_t>(active.count);
  multiply(matrix, 2 * first, 2 * kBlock, Inputs(pair_input_).part(begin, count), worker.y, worker);
  for (std::int32_t i = 0; i < active.count; ++i) {
    const std::int32_t pair = active.begin + i;
    float block[kBlock];
    primitives_.swiglu({.gate_up = worker.y + static_cast<std::ptrdiff_t>(i) * 2 * kBlock,
                        .bias = matrix.bias + static_cast<std::ptrdiff_t>(first) * 4,
                        .count = kBlock,
                        .limit = config_.swiglu_limit,
                        .alpha = config_.swiglu_alpha,
                        .out = experts_are_mxfp4() ? block : inner_.float_row(pair) + first});
    if (experts_are_mxfp4()) quantise(block, kBlock, first / kBlock, inner_.quad_row(pair));
  }
}

void CpuBackend::down_unit(LayerId layer, std::int32_t first, Worker& worker, Buffer delta) {
  for (const ActiveExpert& active : active_) {
    const SlabMatrix matrix = down_of(layer, active.expert);
    float* y = worker.y + static_cast<std::ptrdiff_t>(active.begin) * kBlock;
    multiply(matrix, first, kBlock,
             Inputs(inner_).part(static_cast<std::size_t>(active.begin),
                                 static_cast<std::size_t>(active.count)),
             y, worker);
    if (rank_ != 0) continue;
    const auto* bias = reinterpret_cast<const Bf16*>(matrix.bias) + first;
    for (std::int32_t i = 0; i < active.count * kBlock; ++i) y[i] += to_float(bias[i % kBlock]);
  }
  // In the order of rank, whatever the experts are.
  const std::int32_t top = config_.experts_per_token;
  for (std::int32_t i = 0; i < num_live(); ++i) {
    float* out = row_of(delta, live_[static_cast<std::size_t>(i)], config_.hidden) + first;
    std::fill_n(out, kBlock, 0.0F);
    for (std::int32_t rank = 0; rank < top; ++rank) {
      const auto pair = static_cast<std::size_t>(i * top + rank);
      const float* y = worker.y + static_cast<std::ptrdiff_t>(pair_position_[pair]) * kBlock;
      for (std::int32_t o = 0; o < kBlock; ++o) out[o] += pair_weight_[pair] * y[o];
    }
  }
}

}  // namespace strata::kernels::cpu
