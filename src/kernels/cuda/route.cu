// route: norm, router, the experts of each row and their weights; then rows sorted by expert.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/products.cuh"

namespace strata::kernels::cuda {
namespace {

struct Candidate {
  float logit;
  int expert;
};

// Higher logits first, equal ones by expert.
__device__ bool before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.expert < b.expert);
}

// The best candidate of a warp behind `last`; where logits are NaN there may be none.
__device__ Candidate next_best(const float* logits, int num_experts, const Candidate& last) {
  Candidate best{-INFINITY, num_experts};
  for (int expert = lane_id(); expert < num_experts; expert += kWarp) {
    const Candidate each{logits[expert], expert};
    if (before(last, each) && before(each, best)) best = each;
  }
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const Candidate other{from_lane_xor(best.logit, distance),
                          from_lane_xor(best.expert, distance)};
    if (before(other, best)) best = other;
  }
  return best;
}

// One warp: the top_k experts of a row and the softmax over them.
__device__ void choose(const RouteArgs& args, std::int32_t row, const float* logits) {
  const Routing& routing = args.routing;
  const std::size_t first = static_cast<std::size_t>(row) * routing.top_k;
  Candidate last{INFINITY, -1};
  float best = 0.0F;
  float total = 0.0F;
  for (int i = 0; i < routing.top_k; ++i) {
    last = next_best(logits, routing.num_experts, last);
    if (i == 0) best = last.logit;
    const float weight = expf(last.logit - best);
    total += weight;
    if (lane_id() != 0) continue;
    routing.expert[first + i] = last.expert < routing.num_experts ? last.expert : i;
    routing.weight[first + i] = weight;
  }
  if (lane_id() == 0)
    for (int i = 0; i < routing.top_k; ++i) routing.weight[first + i] /= total;
}

// Norm, router and choice of one row by one block.
__device__ void route_row(const RouteArgs& args, std::int32_t row) {
  const Routing& routing = args.routing;
  float* normed = args.norm.out + static_cast<std::size_t>(row) * args.norm.hidden;
  norm_row<true>(args.norm, row, normed);
  __syncthreads();
  float* logits = args.logits + static_cast<std::size_t>(row) * routing.num_experts;
  const std::uint32_t input[1] = {0};
  for (int first = warp_id() * kTileRows; first < routing.num_experts;
       first += kBlockWarps * kTileRows) {
    int rows[kTileRows];
    for (int r = 0; r < kTileRows; ++r) rows[r] = min(first + r, routing.num_experts - 1);
    const float value =
        multiply<1>(Bf16Weights{args.weight}, rows, normed, input);
    const LaneOutput<1> lane;
    const int expert = first + lane.row;
    if (lane.owned && expert < routing.num_experts) logits[expert] = value + args.bias[expert];
  }
  __syncthreads();
  if (warp_id() == 0) choose(args, row, logits);
}

// One block sorts all pairs by expert and cuts each expert's into tiles. Pairs of one expert come
// in any order: no result depends on it.
__device__ void group_pairs(const Routing& routing, std::int32_t pairs) {
  for (int e = threadIdx.x; e < routing.num_experts; e += kBlockThreads) routing.next[e] = 0;
  __syncthreads();
  for (int pair = threadIdx.x; pair < pairs; pair += kBlockThreads)
    if (routing.expert[pair] >= 0) atomicAdd(&routing.next[routing.expert[pair]], 1);
  __syncthreads();
  if (threadIdx.x == 0) {
    std::int32_t tiles = 0;
    std::int32_t begin = 0;
    unsigned long long active = 0;
    for (int e = 0; e < routing.num_experts; ++e) {
      const std::int32_t count = routing.next[e];
      active += count > 0 ? 1 : 0;
      for (int done = 0; done < count; done += routing.tile_tokens)
        routing.tiles[tiles++] = {e, begin + done, min(routing.tile_tokens, count - done)};
      routing.next[e] = begin;
      begin += count;
    }
    *routing.num_tiles = tiles;
    *routing.experts_read += active;
  }
  __syncthreads();
  for (int pair = threadIdx.x; pair < pairs; pair += kBlockThreads)
    if (routing.expert[pair] >= 0)
      routing.order[atomicAdd(&routing.next[routing.expert[pair]], 1)] = pair;
}

// A step of one row is grouped at once, others by a kernel of its own.
__global__ void __launch_bounds__(kBlockThreads) route_kernel(const RouteArgs args) {
  const std::int32_t row = blockIdx.x;
  const Routing& routing = args.routing;
  if (args.norm.inputs.rows[row].seq >= 0) {
    route_row(args, row);
  } else {
    for (int i = threadIdx.x; i < routing.top_k; i += kBlockThreads)
      routing.expert[static_cast<std::size_t>(row) * routing.top_k + i] = -1;
  }
  if (gridDim.x > 1) return;
  __syncthreads();
  group_pairs(routing, routing.top_k);
}

__global__ void group_kernel(const Routing routing, std::int32_t pairs) {
  group_pairs(routing, pairs);
}

}  // namespace

void launch_route(cudaStream_t stream, std::int32_t rows, const RouteArgs& args) {
  launch(stream, dim3(rows), route_kernel, args);
  if (rows > 1) launch(stream, dim3(1), group_kernel, args.routing, rows * args.routing.top_k);
}

}  // namespace strata::kernels::cuda
