// route: norm, router, the experts of each row and their weights; then rows sorted by expert.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/planes.cuh"
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

// One warp: the top_k experts of a row, at most kWarp, and the softmax over them; lane i has rank
// i. A step of one row has its experts' tiles at once.
__device__ void choose(const Routing& routing, std::int32_t row, const float* logits,
                       bool only_row) {
  Candidate last{INFINITY, -1};
  float best = 0.0F;
  float total = 0.0F;
  std::int32_t expert = 0;
  float weight = 0.0F;
  for (int i = 0; i < routing.top_k; ++i) {
    last = next_best(logits, routing.num_experts, last);
    if (i == 0) best = last.logit;
    const float each = expf(last.logit - best);
    total += each;
    if (lane_id() != i) continue;
    expert = last.expert < routing.num_experts ? last.expert : i;
    weight = each;
  }
  const int rank = lane_id();
  if (rank >= routing.top_k) return;
  const std::size_t index = static_cast<std::size_t>(row) * routing.top_k + rank;
  routing.expert[index] = expert;
  routing.weight[index] = weight / total;
  if (!only_row) return;
  routing.order[rank] = rank;
  routing.tiles[rank] = {expert, rank, 1};
  if (rank != 0) return;
  *routing.num_tiles = routing.top_k;
  atomicAdd(routing.experts_read, static_cast<unsigned long long>(routing.top_k));
}

// A row of padding is routed to no expert.
__device__ void choose_none(const Routing& routing, std::int32_t row, bool only_row) {
  for (int i = threadIdx.x; i < routing.top_k; i += blockDim.x)
    routing.expert[static_cast<std::size_t>(row) * routing.top_k + i] = -1;
  if (only_row && threadIdx.x == 0) *routing.num_tiles = 0;
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
      const int expert = pair < pairs ? __ldcg(routing.expert + pair) : -1;
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

// Few rows: a row's router is cut between blocks, an expert a warp, whose weights are read before
// the launch in front has ended; the block that is last has all logits. The block that is last of
// all rows groups their pairs.
constexpr int kRouterAhead = 12;  // reads of a lane

// Whether the block is the last of `blocks` that call this; it sees what those before it wrote.
__device__ bool is_last_block(std::int32_t* arrived, int blocks) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(arrived, 1) == blocks - 1;
    if (last) *arrived = 0;
  }
  __syncthreads();
  return last;
}

// The logit of `expert`, by a warp that holds the beginning of its weights.
__device__ void multiply_router(const RouteArgs& args, const Bf16Weights& router, int expert,
                                std::int32_t row, const uint4 (&ahead)[kRouterAhead],
                                const float* normed) {
  float sum = 0.0F;
  const auto add = [&](const uint4& weights, int at) {
    float inputs[8];
    load8(normed + at, inputs);
    sum = Bf16Weights::add(weights, inputs, sum);
  };
#pragma unroll
  for (int u = 0; u < kRouterAhead; ++u) {
    const int at = (u * kWarp + lane_id()) * kLaneValues;
    if (at < router.k) add(ahead[u], at);
  }
  for (int at = (kRouterAhead * kWarp + lane_id()) * kLaneValues; at < router.k;
       at += kWarp * kLaneValues)
    add(router.load(expert, at), at);
  sum = warp_sum(sum);
  if (lane_id() == 0)
    args.logits[static_cast<std::size_t>(row) * args.routing.num_experts + expert] =
        sum + args.bias[expert];
}

// A row whose logits are all there and whose x no other block reads any more: its choice, x and
// what the experts take.
__device__ void finish_row(const RouteArgs& args, std::int32_t row, const float* normed) {
  __shared__ float logits[kMostExperts];
  const Routing& routing = args.routing;
  for (int e = threadIdx.x; e < routing.num_experts; e += kBlockThreads)
    logits[e] = __ldcg(args.logits + static_cast<std::size_t>(row) * routing.num_experts + e);
  __syncthreads();
  if (warp_id() == 0) return choose(routing, row, logits, gridDim.y == 1);
  const std::size_t first = static_cast<std::size_t>(row) * args.norm.hidden;
  if (args.planes != nullptr)
    write_planes(args.planes + static_cast<std::size_t>(row) * plane_bytes(args.norm.hidden),
                 args.norm.hidden, 1, kBlockWarps - 1,
                 [&](int at, float(&values)[8]) { load8(normed + at, values); });
  for (int i = (static_cast<int>(threadIdx.x) - kWarp) * 8; i < args.norm.hidden;
       i += (kBlockThreads - kWarp) * 8) {
    float values[8];
    load_with_deltas(args.norm, first + i, values);
    store8(args.norm.x + first + i, values);
    if (args.planes != nullptr) continue;
    load8(normed + i, values);
    if (args.norm.out16 == nullptr) store8(args.norm.out + first + i, values);
    else store8_operands(args.norm.out16 + first + i, values, args.norm.order16);
  }
}

__global__ void __launch_bounds__(kBlockThreads, 2) route_row_kernel(const RouteArgs args) {
  extern __shared__ float normed[];  // [hidden]
  const auto row = static_cast<std::int32_t>(blockIdx.y);
  const auto rows = static_cast<std::int32_t>(gridDim.y);
  const Routing& routing = args.routing;
  const Bf16Weights router{args.weight};
  const int expert = blockIdx.x * kBlockWarps + warp_id();
  const bool has_expert = expert < routing.num_experts;
  dependents_may_start();
  constexpr int kLineSlabs = 16;
  if (static_cast<int>(threadIdx.x) * kLineSlabs < routing.num_experts)
    prefetch_line(args.slabs + threadIdx.x * kLineSlabs);
  uint4 ahead[kRouterAhead];
#pragma unroll
  for (int u = 0; u < kRouterAhead; ++u) {
    const int at = (u * kWarp + lane_id()) * kLaneValues;
    ahead[u] = has_expert && at < router.k ? router.load(expert, at) : uint4{};
  }
  dependency_wait();
  const bool padding = args.norm.inputs.rows[row].seq < 0;
  if (padding) {
    if (blockIdx.x != 0) return;
    choose_none(routing, row, rows == 1);
  } else {
    norm_row<false, kBlockWarps>(
        args.norm, row, [&](int i, const float(&values)[8]) { store8(normed + i, values); });
    __syncthreads();
    if (has_expert) multiply_router(args, router, expert, row, ahead, normed);
    if (!is_last_block(&args.arrived[row], gridDim.x)) return;
    finish_row(args, row, normed);
  }
  if (rows > 1 && is_last_block(&args.arrived[kRouteRows], rows))
    group_pairs(routing, rows * routing.top_k);
}

// Many rows: R of them share a read of the router, four experts a warp at a time.
template <int R>
__global__ void __launch_bounds__(kBlockThreads)
    route_rows_kernel(const RouteArgs args, std::int32_t rows) {
  __shared__ float logits[R][kMostExperts];
  const Routing& routing = args.routing;
  const std::int32_t first_row = static_cast<std::int32_t>(blockIdx.x) * R;
  dependents_may_start();
  dependency_wait();
  std::uint32_t input[R];
  for (int r = 0; r < R; ++r) {
    const std::int32_t row = min(first_row + r, rows - 1);
    input[r] = static_cast<std::uint32_t>(row) * args.norm.hidden;
    if (first_row + r >= rows || args.norm.inputs.rows[row].seq < 0) continue;
    norm_row<true, kBlockWarps>(args.norm, row, [&](int i, const float(&values)[8]) {
      store8(args.norm.out + input[r] + i, values);
      if (args.norm.out16 != nullptr)
        store8_operands(args.norm.out16 + input[r] + i, values, args.norm.order16);
    });
    __syncthreads();
  }
  for (int first = warp_id() * kTileRows; first < routing.num_experts;
       first += kBlockWarps * kTileRows) {
    int experts[kTileRows];
    for (int i = 0; i < kTileRows; ++i) experts[i] = min(first + i, routing.num_experts - 1);
    const float value = multiply<R>(Bf16Weights{args.weight}, experts, args.norm.out, input);
    const LaneOutput<R> lane;
    const int expert = first + lane.row;
    if (lane.owned && expert < routing.num_experts)
      logits[lane.token][expert] = value + args.bias[expert];
  }
  __syncthreads();
  for (int r = warp_id(); r < R; r += kBlockWarps) {
    const std::int32_t row = first_row + r;
    if (row >= rows) break;
    if (args.norm.inputs.rows[row].seq >= 0) choose(routing, row, logits[r], false);
    else if (lane_id() < routing.top_k)
      routing.expert[static_cast<std::size_t>(row) * routing.top_k + lane_id()] = -1;
  }
}

__global__ void __launch_bounds__(kGroupThreads)
    group_kernel(const Routing routing, std::int32_t pairs) {
  dependency_wait();
  dependents_may_start();
  group_pairs(routing, pairs);
}

}  // namespace

void launch_route(cudaStream_t stream, std::int32_t rows, const RouteArgs& args) {
  constexpr int kFewRows = 128;  // fewer blocks than these leave a card empty
  const Routing& routing = args.routing;
  if (args.one_row) return launch_route_one_row(stream, args);
  if (rows <= kRouteRows) {
    const dim3 blocks(divide_up(routing.num_experts, kBlockWarps), rows);
    return launch_early(stream,
                        {blocks, static_cast<std::size_t>(args.norm.hidden) * sizeof(float)},
                        route_row_kernel, args);
  }
  if (rows <= kFewRows) launch_early(stream, {dim3(rows)}, route_rows_kernel<1>, args, rows);
  else launch_early(stream, {dim3(divide_up(rows, 8))}, route_rows_kernel<8>, args, rows);
  launch_early(stream, {dim3(1), 0, kGroupThreads}, group_kernel, routing, rows * routing.top_k);
}

}  // namespace strata::kernels::cuda
