// route: norm, router, the experts of each row and their weights; then rows sorted by expert.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/products.cuh"

namespace strata::kernels::cuda {
namespace {

constexpr int kGroupThreads = 1024;

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
__device__ void choose(const Routing& routing, std::int32_t row, const float* logits) {
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

constexpr int kRouteWarps = 32;
constexpr int kRouteThreads = kRouteWarps * kWarp;
constexpr int kRouterAhead = 6;  // reads of a lane before the launch in front has ended

// The logit of `expert` for a normed row in shared memory, by one warp in the order of
// products.cuh; `ahead` holds the lane's first reads of the router's row.
__device__ float router_logit(const Bf16Weights& router, int expert,
                              const uint4 (&ahead)[kRouterAhead], bool use_ahead,
                              const float* normed) {
  float sum = 0.0F;
  int at = lane_id() * kLaneValues;
  const auto add = [&](const uint4& weights) {
    float inputs[8];
    load8(normed + at, inputs);
    sum = Bf16Weights::add(weights, inputs, sum);
    at += kWarp * kLaneValues;
  };
  if (use_ahead) {
#pragma unroll
    for (int u = 0; u < kRouterAhead; ++u)
      if (at < router.k) add(ahead[u]);
  }
#pragma unroll kRouterAhead
  while (at < router.k) add(router.load(expert, at));
  return warp_sum(sum);
}

// A step of one row has its experts' tiles at once.
__device__ void group_row(const Routing& routing) {
  __syncwarp();
  for (int i = lane_id(); i < routing.top_k; i += kWarp) {
    routing.order[i] = i;
    routing.tiles[i] = {routing.expert[i], i, 1};
  }
  if (lane_id() != 0) return;
  *routing.num_tiles = routing.top_k;
  *routing.experts_read += routing.top_k;
}

// A whole warp: adds each lane to `counts` of its expert (-1: none) and gives its place there.
__device__ int take_place(int* counts, int expert) {
  const unsigned peers = __match_any_sync(0xffffffffU, expert);
  const int leader = __ffs(static_cast<int>(peers)) - 1;
  int first = 0;
  if (lane_id() == leader && expert >= 0) first = atomicAdd(&counts[expert], __popc(peers));
  first = __shfl_sync(0xffffffffU, first, leader);
  return first + __popc(peers & ((1U << lane_id()) - 1U));
}

// Sums of a value over the lanes up to this one.
__device__ int sum_up_to_lane(int value) {
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int other = __shfl_up_sync(0xffffffffU, value, distance);
    if (lane_id() >= distance) value += other;
  }
  return value;
}

// One warp: the tiles of all experts; counts[e] becomes where the pairs of e begin.
__device__ void cut_tiles(const Routing& routing, int* counts) {
  const int size = routing.tile_tokens;
  int begin = 0;
  int first = 0;  // tile
  int active = 0;
  for (int at = 0; at < routing.num_experts; at += kWarp) {
    const int expert = at + lane_id();
    const int count = expert < routing.num_experts ? counts[expert] : 0;
    const int tiles = (count + size - 1) / size;
    const int end = begin + sum_up_to_lane(count);
    const int last = first + sum_up_to_lane(tiles);
    for (int i = 0; i < tiles; ++i)
      routing.tiles[last - tiles + i] = {expert, end - count + i * size,
                                         min(size, count - i * size)};
    if (expert < routing.num_experts) counts[expert] = end - count;
    begin = __shfl_sync(0xffffffffU, end, kWarp - 1);
    first = __shfl_sync(0xffffffffU, last, kWarp - 1);
    active += __popc(__ballot_sync(0xffffffffU, count > 0));
  }
  if (lane_id() != 0) return;
  *routing.num_tiles = first;
  *routing.experts_read += static_cast<unsigned long long>(active);
}

// One block sorts all pairs by expert and cuts each expert's into tiles. Pairs of one expert come
// in any order: no result depends on it.
__device__ void group_pairs(const Routing& routing, std::int32_t pairs) {
  __shared__ int counts[kMostExperts];
  for (int e = threadIdx.x; e < routing.num_experts; e += blockDim.x) counts[e] = 0;
  __syncthreads();
  const auto each_pair = [&](auto&& fn) {
    for (int first = warp_id() * kWarp; first < pairs; first += blockDim.x) {
      const int pair = first + lane_id();
      const int expert = pair < pairs ? routing.expert[pair] : -1;
      fn(pair, expert, take_place(counts, expert));
    }
  };
  each_pair([](int, int, int) {});
  __syncthreads();
  if (warp_id() == 0) cut_tiles(routing, counts);
  __syncthreads();
  each_pair([&](int pair, int expert, int place) {
    if (expert >= 0) routing.order[place] = pair;
  });
}

// One row: norm, router and choice.
__global__ void __launch_bounds__(kRouteThreads) route_kernel(const RouteArgs args) {
  extern __shared__ float normed[];  // [hidden], then logits [num_experts]
  const std::int32_t row = blockIdx.x;
  const Routing& routing = args.routing;
  const Bf16Weights router{args.weight};
  const int own = min(warp_id(), routing.num_experts - 1);
  float* logits = normed + args.norm.hidden;
  dependents_may_start();
  uint4 ahead[kRouterAhead];
#pragma unroll
  for (int u = 0; u < kRouterAhead; ++u) {
    const int at = (u * kWarp + lane_id()) * kLaneValues;
    ahead[u] = at < router.k ? router.load(own, at) : uint4{};
  }
  dependency_wait();
  if (args.norm.inputs.rows[row].seq < 0) {
    for (int i = threadIdx.x; i < routing.top_k; i += kRouteThreads)
      routing.expert[static_cast<std::size_t>(row) * routing.top_k + i] = -1;
    if (gridDim.x == 1 && threadIdx.x == 0) *routing.num_tiles = 0;
    return;
  }
  float* out = args.norm.out + static_cast<std::size_t>(row) * args.norm.hidden;
  norm_row<true, kRouteWarps>(args.norm, row, [&](int i, const float(&values)[8]) {
    store8(normed + i, values);
    store8(out + i, values);
  });
  __syncthreads();
  for (int expert = warp_id(); expert < routing.num_experts; expert += kRouteWarps) {
    const float logit = router_logit(router, expert, ahead, expert == own, normed);
    if (lane_id() == 0) logits[expert] = logit + args.bias[expert];
  }
  __syncthreads();
  if (warp_id() != 0) return;
  choose(routing, row, logits);
  if (gridDim.x == 1) group_row(routing);
}

__global__ void __launch_bounds__(kGroupThreads)
    group_kernel(const Routing routing, std::int32_t pairs) {
  dependency_wait();
  dependents_may_start();
  group_pairs(routing, pairs);
}

}  // namespace

void launch_route(cudaStream_t stream, std::int32_t rows, const RouteArgs& args) {
  const std::size_t shared =
      static_cast<std::size_t>(args.norm.hidden + args.routing.num_experts) * sizeof(float);
  launch_early(stream, {dim3(rows), shared, kRouteThreads}, route_kernel, args);
  if (rows > 1)
    launch_early(stream, {dim3(1), 0, kGroupThreads}, group_kernel, args.routing,
                 rows * args.routing.top_k);
}

}  // namespace strata::kernels::cuda
