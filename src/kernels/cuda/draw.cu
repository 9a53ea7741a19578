// Draws tokens on the card as HostSampler does: the maximum, or the maximum of logit / temperature
// + Gumbel noise, which is a function of (seed, position, id), among the candidates that are kept.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"

namespace strata::kernels::cuda {
namespace {

__device__ bool card_draws(const StepLogits& how) {
  return how.row >= 0 && (how.draw == DrawKind::kGreedy || how.draw == DrawKind::kGumbel);
}

__device__ bool better(const DrawPart& a, const DrawPart& b) {
  if (a.id < 0 || b.id < 0) return a.id >= 0;
  return a.score > b.score || (a.score == b.score && a.id < b.id);
}

// base/random.h: value `counter` of the stream `key`.
__device__ std::uint64_t random_bits(std::uint64_t key, std::uint64_t counter) {
  std::uint64_t z = key + (counter + 1) * 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

// Offers `id` against the thread's best. An id whose random number leaves it no chance costs no
// logarithm: noise <= -log(v) for v in (0, 1), so behind by n bits it needs v <= 2^-n.
__device__ void offer(DrawPart& best, const StepLogits& how, float logit, std::int32_t id) {
  DrawPart each{static_cast<double>(logit) * how.scale, id};
  if (how.draw == DrawKind::kGumbel) {
    const double gap = best.id >= 0 ? best.score - each.score : 0.0;
    const int n = gap > 0.0 ? static_cast<int>((gap < 100.0 ? gap : 100.0) * 1.442695) : 0;
    if (n > 53) return;
    const std::uint64_t bits = random_bits(how.key, static_cast<std::uint64_t>(id)) >> 11;
    if ((bits >> (53 - n)) != 0) return;
    const double v = (static_cast<double>(bits) + 0.5) * 0x1.0p-53;
    each.score -= log(-log1p(-v));
  }
  if (better(each, best)) best = each;
}

__device__ DrawPart best_of_block(DrawPart best) {
  __shared__ DrawPart of_warp[kBlockWarps];
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const DrawPart other{from_lane_xor(best.score, distance), from_lane_xor(best.id, distance)};
    if (better(other, best)) best = other;
  }
  if (lane_id() == 0) of_warp[warp_id()] = best;
  __syncthreads();
  for (const DrawPart& each : of_warp)
    if (better(each, best)) best = each;
  return best;
}

// Block (part, row).
__global__ void __launch_bounds__(kBlockThreads) draw_kernel(const DrawArgs args) {
  const StepLogits how = args.inputs.logits[args.first + blockIdx.y];
  dependents_may_start();
  dependency_wait();
  if (!card_draws(how)) return;
  const DrawCut cut = how.filtered ? args.cuts[blockIdx.y] : DrawCut{};
  const float* logits = args.logits + static_cast<std::size_t>(blockIdx.y) * args.vocab;
  DrawPart best{0.0, -1};
  for (int id = blockIdx.x * kBlockThreads + threadIdx.x; id < args.vocab;
       id += kDrawParts * kBlockThreads) {
    bool allowed = (args.banned[id / 32] >> (id % 32) & 1U) == 0;
#pragma unroll
    for (const std::int32_t masked : how.masked) allowed = allowed && id != masked;
    if (!allowed || !(logits[id] > -INFINITY)) continue;
    if (how.filtered && !keeps(cut, order_of(logits[id]), id)) continue;
    offer(best, how, logits[id], id);
  }
  best = best_of_block(best);
  if (threadIdx.x == 0)
    args.parts[static_cast<std::size_t>(blockIdx.y) * kDrawParts + blockIdx.x] = best;
}

__global__ void __launch_bounds__(kBlockThreads) draw_end_kernel(const DrawArgs args) {
  const StepLogits how = args.inputs.logits[args.first + blockIdx.x];
  dependents_may_start();
  dependency_wait();
  if (!card_draws(how)) return;
  DrawPart best{0.0, -1};
  for (int part = threadIdx.x; part < kDrawParts; part += kBlockThreads) {
    const DrawPart each = args.parts[static_cast<std::size_t>(blockIdx.x) * kDrawParts + part];
    if (better(each, best)) best = each;
  }
  best = best_of_block(best);
  if (!isfinite(best.score)) best.id = -1;  // +infinity: as HostSampler has it, none can be drawn
  if (threadIdx.x == 0) args.out[blockIdx.x] = best;
}

}  // namespace

void launch_draw(cudaStream_t stream, const DrawArgs& args) {
  const auto rows = static_cast<unsigned>(args.count);
  launch_early(stream, {dim3(kDrawParts, rows)}, draw_kernel, args);
  launch_early(stream, {dim3(rows)}, draw_end_kernel, args);
}

}  // namespace strata::kernels::cuda
