// Route and MXFP4 experts of a step of one row, at the shapes of gpt-oss. `route` leaves the
// router's logits and the normed row as planes; the kernels behind it choose the experts from the
// logits themselves, each warp for itself, which takes less time than one more exchange through
// memory.
#include "kernels/cuda/draw_cut.h"
#include "kernels/cuda/expert_planes.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/planes.cuh"
#include "kernels/cuda/products.cuh"

namespace strata::kernels::cuda {
namespace {

constexpr int kK = 2880;  // hidden and intermediate
constexpr int kTopK = 4;
constexpr int kMostRowExperts = 128;
constexpr int kPitch = plane_bytes(kK);
constexpr int kBlocks = 3;  // of a multiprocessor
constexpr int kRows = 4;    // of a group, an expert's

// ---- Route: an expert's logit a warp. One more block writes x and the planes.
constexpr int kRouterReads = (kK / kLaneValues + kWarp - 1) / kWarp;  // of a lane

__global__ void __launch_bounds__(kBlockThreads, 2) route_kernel(const RouteArgs args) {
  __shared__ float normed[kK];
  const Routing& routing = args.routing;
  const Bf16Weights router{args.weight};
  const bool writes = blockIdx.x == gridDim.x - 1;
  const int expert = blockIdx.x * kBlockWarps + warp_id();
  const bool has_expert = !writes && expert < routing.num_experts;
  dependents_may_start();
  constexpr int kLineSlabs = 16;
  constexpr int kLineWeights = 32;
  if (writes) {
    if (static_cast<int>(threadIdx.x) * kLineSlabs < routing.num_experts)
      prefetch_line(args.slabs + threadIdx.x * kLineSlabs);
    if (threadIdx.x * kLineWeights < kK)
      prefetch_line(args.norm.weight + threadIdx.x * kLineWeights);
  }
  uint4 ahead[kRouterReads];
#pragma unroll
  for (int u = 0; u < kRouterReads; ++u) {
    const int at = (u * kWarp + lane_id()) * kLaneValues;
    ahead[u] = has_expert && at < kK ? router.load(expert, at) : uint4{};
  }
  dependency_wait();
  const bool padding = args.norm.inputs.rows[0].seq < 0;
  if (writes && threadIdx.x == 0) *routing.num_tiles = padding ? 0 : kTopK;
  if (padding) return;
  norm_row<false, kBlockWarps>(args.norm, 0,
                               [&](int i, const float(&values)[8]) { store8(normed + i, values); });
  __syncthreads();
  if (!writes) {
    if (threadIdx.x == 0) {  // this block has read x
      __threadfence();
      atomicAdd(args.arrived, 1);
    }
    if (!has_expert) return;
    float sum = 0.0F;
#pragma unroll
    for (int u = 0; u < kRouterReads; ++u) {
      const int at = (u * kWarp + lane_id()) * kLaneValues;
      if (at >= kK) continue;
      float inputs[8];
      load8(normed + at, inputs);
      sum = Bf16Weights::add(ahead[u], inputs, sum);
    }
    sum = warp_sum(sum);
    if (lane_id() == 0) args.logits[expert] = sum + args.bias[expert];
    return;
  }
  write_planes(args.planes, kK, 0, kBlockWarps,
               [&](int at, float(&values)[8]) { load8(normed + at, values); });
  // A launch behind this one starts only when all its blocks have: they are or were running.
  if (threadIdx.x == 0) {
    while (*static_cast<volatile std::int32_t*>(args.arrived) != static_cast<int>(gridDim.x) - 1) {
    }
    __threadfence();
    *args.arrived = 0;
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x) * 8; i < kK; i += kBlockThreads * 8) {
    float values[8];
    load_with_deltas(args.norm, static_cast<std::size_t>(i), values);
    store8(args.norm.x + i, values);
  }
}

// ---- The choice. Lane r < kTopK of a warp gets the expert of rank r and its softmax weight.
struct Choice {
  int expert;
  float weight;
};

__device__ std::uint32_t most_of_warp(std::uint32_t value) {
#if __CUDA_ARCH__ >= 800
  return __reduce_max_sync(0xffffffffU, value);
#else
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value = max(value, from_lane_xor(value, distance));
  return value;
#endif
}

// Higher logits first, equal ones by expert. Where fewer than kTopK are numbers, the rest are the
// ranks themselves, with no weight.
__device__ Choice choose(const float* logits, int num_experts) {
  constexpr int kEach = kMostRowExperts / kWarp;  // experts lane + 32 j
  std::uint32_t orders[kEach];
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    const int expert = lane_id() + kWarp * j;
    orders[j] = expert < num_experts ? order_of(logits[expert]) : 0;
  }
  Choice mine{lane_id(), 0.0F};
  float best = 0.0F;
  float total = 0.0F;
#pragma unroll
  for (int rank = 0; rank < kTopK; ++rank) {
    std::uint32_t most = 0;
    int at = 0;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      if (orders[j] <= most) continue;
      most = orders[j];
      at = j;
    }
    const std::uint32_t highest = most_of_warp(most);
    const bool tied = most == highest;
    const int expert = static_cast<int>(
        ~most_of_warp(tied ? ~static_cast<std::uint32_t>(lane_id() + kWarp * at) : 0U));
    const float logit = highest == 0 ? -INFINITY : logit_of(highest);
    if (rank == 0) best = logit;
    const float weight = expf(logit - best);
    total += weight;
    if (lane_id() == rank) mine = {highest == 0 ? rank : expert, weight};
#pragma unroll
    for (int j = 0; j < kEach; ++j)
      if (lane_id() + kWarp * j == expert) orders[j] = 0;
  }
  mine.weight /= total;
  return mine;
}

template <class T>
__device__ T from_lane(T value, int lane) {
  return __shfl_sync(0xffffffffU, value, lane);
}

__device__ void copy_planes(uint4* to, const std::byte* from, int bytes) {
  const auto* words = reinterpret_cast<const uint4*>(from);
#pragma unroll 7
  for (int i = threadIdx.x; i < bytes / 16; i += kBlockThreads) to[i] = words[i];
}

// ---- Gate and up. Block (part, rank): 32 outputs, which are a block of inputs of down.
constexpr int kOutputs = kPlaneBlock;
constexpr int kGateUpRows = 2 * kOutputs / kBlockWarps;  // of a warp

__global__ void __launch_bounds__(kBlockThreads, kBlocks) gate_up_kernel(const ExpertsArgs args) {
  __shared__ uint4 inputs[kPitch / 16];
  __shared__ float results[2 * kOutputs];
  __shared__ const std::byte* slabs[kMostRowExperts];
  const Routing& routing = args.routing;
  const int rank = static_cast<int>(blockIdx.y);
  if (static_cast<int>(threadIdx.x) < routing.num_experts)
    slabs[threadIdx.x] = args.slabs[threadIdx.x];
  __syncthreads();
  // In this order: what starts early behind this kernel may rely on route having ended.
  dependency_wait();
  dependents_may_start();
  const bool padding = *routing.num_tiles == 0;
  const int expert = from_lane(choose(args.logits, routing.num_experts).expert, rank);
  if (padding) return;
  const SlabLayout& layout = args.slab;
  const Slab slab{slabs[expert], layout};
  FixedStream<Mxfp4Pieces, kRows, 1, 1, kK> stream(
      gate_up_pieces(slab), (blockIdx.x * kBlockWarps + warp_id()) * kGateUpRows,
      kGateUpRows / kRows);
  stream.start_reading();
  // Of the lane's output: gate in the lower half, up in the upper one.
  const std::uint32_t biases =
      __ldg(reinterpret_cast<const std::uint32_t*>(slab.data + layout.gate_up_bias) +
            blockIdx.x * kOutputs + lane_id());
  copy_planes(inputs, args.planes, kPitch);
  __syncthreads();
  const int places[1] = {0};
  stream.template multiply<1>(
      reinterpret_cast<const std::byte*>(inputs), places, kGateUpRows / kRows,
      [&](int group, float value) {
        if (owns_sum<kRows>())
          results[warp_id() * kGateUpRows + group * kRows + sum_of_lane<kRows>()] = value;
      });
  __syncthreads();
  if (threadIdx.x == 0 && blockIdx.x == 0) atomicAdd(routing.experts_read, 1ULL);
  if (warp_id() != 0) return;
  const float gate = results[2 * lane_id()] + low_bf16(biases);
  const float up = results[2 * lane_id() + 1] + high_bf16(biases);
  store_block(args.inner_planes + rank * kPitch, kK, blockIdx.x,
              swiglu(gate, up, args.limit, args.alpha));
}

// ---- Down and the weighted sum over the experts, in the order of rank: two warps an expert.
constexpr int kRankWarps = kBlockWarps / kTopK;
constexpr int kDownRows = kRankWarps * kRows;  // of a block

__global__ void __launch_bounds__(kBlockThreads, kBlocks) down_kernel(const ExpertsArgs args) {
  __shared__ uint4 inputs[kTopK * kPitch / 16];
  __shared__ float results[kTopK][kDownRows];
  __shared__ float biases[kTopK][kDownRows];
  __shared__ float weights[kTopK];
  const SlabLayout& layout = args.slab;
  const int first = blockIdx.x * kDownRows;
  const int part = warp_id() % kRankWarps * kRows;
  const int rank = warp_id() / kRankWarps;
  dependents_may_start();
  // Known before gate_up has ended: it waited for route before it let this kernel start.
  const bool padding = *args.routing.num_tiles == 0;
  const Choice choice = choose(args.logits, args.routing.num_experts);
  const Slab slab{args.slabs[from_lane(choice.expert, rank)], layout};
  const int groups = padding ? 0 : 1;
  FixedStream<Mxfp4Pieces, kRows, 1, 1, kK> stream(down_pieces(slab), first + part, groups);
  stream.start_reading();
  if (part == 0 && lane_id() < kDownRows)
    biases[rank][lane_id()] = args.add_bias ? slab.bias(layout.down_bias, first + lane_id()) : 0.0F;
  if (warp_id() == 0 && lane_id() < kTopK) weights[lane_id()] = choice.weight;
  dependency_wait();
  copy_planes(inputs, args.inner_planes, kTopK * kPitch);
  __syncthreads();
  const int places[1] = {rank * kPitch};
  stream.template multiply<1>(reinterpret_cast<const std::byte*>(inputs), places, groups,
                              [&](int, float value) {
                                if (owns_sum<kRows>())
                                  results[rank][part + sum_of_lane<kRows>()] = value;
                              });
  __syncthreads();
  if (static_cast<int>(threadIdx.x) >= kDownRows || padding) return;
  float total = 0.0F;
#pragma unroll
  for (int r = 0; r < kTopK; ++r)
    total = fmaf(weights[r], results[r][threadIdx.x] + biases[r][threadIdx.x], total);
  args.out[first + static_cast<int>(threadIdx.x)] = total;
}

}  // namespace

bool is_one_row(std::int32_t rows, const SlabLayout& slab, std::int32_t num_experts,
                std::int32_t top_k) {
  return rows == 1 && slab.format == ExpertFormat::kMxfp4 && slab.hidden == kK &&
         slab.intermediate == kK && num_experts <= kMostRowExperts && top_k == kTopK;
}

void launch_route_one_row(cudaStream_t stream, const RouteArgs& args) {
  launch_early(stream, {dim3(divide_up(args.routing.num_experts, kBlockWarps) + 1)}, route_kernel,
               args);
}

void launch_experts_one_row(cudaStream_t stream, const ExpertsArgs& args) {
  launch_early(stream, {dim3(kK / kOutputs, kTopK)}, gate_up_kernel, args);
  launch_early(stream, {dim3(kK / kDownRows)}, down_kernel, args);
}

}  // namespace strata::kernels::cuda
