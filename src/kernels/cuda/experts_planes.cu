// MXFP4 experts of few rows by integer products. A block takes outputs of one expert and up to
// eight rows of the step; a single row's experts are summed where they are made. Inputs come as
// planes, which stay in the first-level cache or, where they are many, go to shared memory.
#include "kernels/cuda/experts.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/planes.cuh"

namespace strata::kernels::cuda {
namespace {

constexpr int kRows = 2;                         // of a group: gate and up of an output
constexpr int kAhead = 2;                        // steps read ahead
constexpr int kGroups = 4;                       // of a warp
constexpr int kOutputs = kBlockWarps * kGroups;  // of a block of gate_up: a block of inputs of down
static_assert(kOutputs == kPlaneBlock);
constexpr int kOneRowBlocks = 3;  // of a multiprocessor
constexpr int kRowsBlocks = 2;

__device__ Mxfp4Pieces gate_up_pieces(const Slab& slab) {
  return {slab.data + slab.layout.gate_up_blocks, slab.data + slab.layout.gate_up_scales,
          slab.layout.hidden};
}
__device__ Mxfp4Pieces down_pieces(const Slab& slab) {
  return {slab.data + slab.layout.down_blocks, slab.data + slab.layout.down_scales,
          slab.layout.intermediate};
}

// One warp: 32 outputs, a lane's each, as block `block` of a row of k planes.
__device__ void store_block(std::byte* planes, int k, int block, float output) {
  const float values[1] = {output};
  int integers[1];
  const PlaneScale scale = to_planes<1, kWarp>(values, integers);
  const int at = block * kPlaneBlock + lane_id();
  auto* byte = reinterpret_cast<std::int8_t*>(planes + plane_chunk(at / 16) + at % 16);
  byte[0] = static_cast<std::int8_t>(high_plane(integers[0]));
  byte[padded_k(k)] = static_cast<std::int8_t>(low_plane(integers[0]));
  if (lane_id() == 0) reinterpret_cast<PlaneScale*>(planes + 2 * padded_k(k))[block] = scale;
}

template <int kMostColumns>
__global__ void __launch_bounds__(kBlockThreads, kMostColumns == 1 ? kOneRowBlocks : kRowsBlocks)
    gate_up_kernel(const ExpertsArgs args) {
  __shared__ float results[kOutputs * kRows][kMostColumns];
  // In this order: what starts early behind this kernel may rely on route having ended.
  dependency_wait();
  dependents_may_start();
  const Routing& routing = args.routing;
  const auto [tile, there] = TakenTile(routing, blockIdx.y);
  if (!there) return;
  const SlabLayout& layout = args.slab;
  const Slab slab{args.slabs[tile.expert], layout};
  const int first = blockIdx.x * kOutputs * kRows;
  RowStream<Mxfp4Pieces, kRows, kAhead> stream(
      gate_up_pieces(slab),
      {first + warp_id() * kGroups * kRows, kRows, 1, kGroups, layout.intermediate * 2});
  stream.start_reading();
  // Of the lane's output: gate in the lower half, up in the upper one.
  const std::uint32_t biases =
      __ldg(reinterpret_cast<const std::uint32_t*>(slab.data + layout.gate_up_bias) +
            blockIdx.x * kOutputs + lane_id());
  with_columns<kMostColumns>(tile.count, [&](auto at_once) {
    constexpr int kColumns = decltype(at_once)::value;
    int places[kColumns];
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
      places[c] = pair_of(routing, tile, c) / routing.top_k * plane_bytes(layout.hidden);
    stream.template multiply<kColumns>(args.planes, places, [&](int group, float value) {
      constexpr int kSums = kRows * kColumns;
      if (owns_sum<kSums>())
        results[(warp_id() * kGroups + group) * kRows + sum_of_lane<kSums>() / kColumns]
               [sum_of_lane<kSums>() % kColumns] = value;
    });
  });
  __syncthreads();
  const int column = warp_id();
  if (column >= tile.count) return;
  const float gate = results[kRows * lane_id()][column] + low_bf16(biases);
  const float up = results[kRows * lane_id() + 1][column] + high_bf16(biases);
  store_block(
      args.inner_planes + routing.order[tile.begin + column] * plane_bytes(layout.intermediate),
      layout.intermediate, blockIdx.x, swiglu(gate, up, args.limit, args.alpha));
}

__global__ void __launch_bounds__(kBlockThreads, kRowsBlocks) down_kernel(const ExpertsArgs args) {
  const Routing& routing = args.routing;
  dependents_may_start();
  // Known before gate_up has ended: it waited for route before it let this kernel start.
  const auto [tile, mine] = TakenTile(routing, blockIdx.y);
  const SlabLayout& layout = args.slab;
  const Slab slab{mine ? args.slabs[tile.expert] : nullptr, layout};
  const int first = (blockIdx.x * kBlockWarps + warp_id()) * kGroups * kRows;
  RowStream<Mxfp4Pieces, kRows, kAhead> stream(
      down_pieces(slab), {first, kRows, 1, mine ? kGroups : 0, layout.hidden});
  stream.start_reading();
  dependency_wait();
  if (!mine) return;
  with_columns<kTileTokens>(tile.count, [&](auto at_once) {
    constexpr int kColumns = decltype(at_once)::value;
    int places[kColumns];
#pragma unroll
    for (int c = 0; c < kColumns; ++c)
      places[c] = pair_of(routing, tile, c) * plane_bytes(layout.intermediate);
    stream.template multiply<kColumns>(args.inner_planes, places, [&](int group, float value) {
      constexpr int kSums = kRows * kColumns;
      const int row = first + group * kRows + sum_of_lane<kSums>() / kColumns;
      const int column = sum_of_lane<kSums>() % kColumns;
      if (!owns_sum<kSums>() || row >= layout.hidden || column >= tile.count) return;
      if (args.add_bias) value += slab.bias(layout.down_bias, row);
      const auto pair = static_cast<std::size_t>(routing.order[tile.begin + column]);
      args.outer[pair * layout.hidden + row] = value;
    });
  });
}

// The down projection of a step of one row and the weighted sum over its experts, in the order of
// rank: two warps an expert.
constexpr int kRanksAtOnce = 4;
constexpr int kRankWarps = kBlockWarps / kRanksAtOnce;
constexpr int kRankGroups = 2;
constexpr int kDownRows = kRankWarps * kRankGroups * kRows;  // of a block

__global__ void __launch_bounds__(kBlockThreads, kOneRowBlocks)
    down_row_kernel(const ExpertsArgs args) {
  extern __shared__ uint4 inputs[];  // planes
  __shared__ float results[kRanksAtOnce][kDownRows];
  const SlabLayout& layout = args.slab;
  const Routing& routing = args.routing;
  const int first = blockIdx.x * kDownRows;
  const int part = warp_id() % kRankWarps * kRankGroups * kRows;
  const int place = warp_id() / kRankWarps;  // among the ranks at once
  const int row = min(first + static_cast<int>(threadIdx.x) % kDownRows, layout.hidden - 1);
  dependents_may_start();
  float total = 0.0F;
  for (int base = 0; base < routing.top_k; base += kRanksAtOnce) {
    const int rank = base + place;
    const int ranks = min(kRanksAtOnce, routing.top_k - base);
    // Known before gate_up has ended; a step of padding has no experts.
    const std::int32_t expert = rank < routing.top_k ? routing.expert[rank] : -1;
    const Slab slab{expert >= 0 ? args.slabs[expert] : nullptr, layout};
    RowStream<Mxfp4Pieces, kRows, kAhead> stream(
        down_pieces(slab), {first + part, kRows, 1, expert >= 0 ? kRankGroups : 0, layout.hidden});
    stream.start_reading();
    float weights[kRanksAtOnce] = {};
    float biases[kRanksAtOnce] = {};
    if (warp_id() == 0) {
#pragma unroll
      for (int c = 0; c < kRanksAtOnce; ++c) {
        const std::int32_t chosen = c < ranks ? routing.expert[base + c] : -1;
        if (chosen < 0) continue;
        weights[c] = routing.weight[base + c];
        if (args.add_bias) biases[c] = Slab{args.slabs[chosen], layout}.bias(layout.down_bias, row);
      }
    }
    if (base == 0) dependency_wait();
    const int pitch = plane_bytes(layout.intermediate);
    const auto* from = reinterpret_cast<const uint4*>(args.inner_planes + base * pitch);
#pragma unroll 7
    for (int i = threadIdx.x; i < ranks * pitch / 16; i += kBlockThreads) inputs[i] = from[i];
    __syncthreads();
    const int places[1] = {place * pitch};
    stream.multiply<1>(reinterpret_cast<const std::byte*>(inputs), places,
                       [&](int group, float value) {
                         if (owns_sum<kRows>())
                           results[place][part + group * kRows + sum_of_lane<kRows>()] = value;
                       });
    __syncthreads();
    if (threadIdx.x < kDownRows) {
#pragma unroll
      for (int c = 0; c < kRanksAtOnce; ++c)
        if (c < ranks && routing.expert[base + c] >= 0)
          total = fmaf(weights[c], results[c][threadIdx.x] + biases[c], total);
    }
    __syncthreads();
  }
  if (threadIdx.x < kDownRows && first + static_cast<int>(threadIdx.x) < layout.hidden)
    args.out[row] = total;
}

}  // namespace

void launch_experts_planes(cudaStream_t stream, const ExpertsArgs& args) {
  const SlabLayout& slab = args.slab;
  const Grid gate_up{dim3(divide_up(slab.intermediate, kOutputs), most_tiles(args))};
  if (args.rows == 1) {
    const std::size_t inputs =
        std::size_t{kRanksAtOnce} * static_cast<std::size_t>(plane_bytes(slab.intermediate));
    launch_early(stream, gate_up, gate_up_kernel<1>, args);
    return launch_early(stream, {dim3(divide_up(slab.hidden, kDownRows)), inputs}, down_row_kernel,
                        args);
  }
  launch_early(stream, gate_up, gate_up_kernel<kTileTokens>, args);
  launch_early(stream,
               {dim3(divide_up(slab.hidden, kBlockWarps * kGroups * kRows), most_tiles(args))},
               down_kernel, args);
  launch_expert_sum(stream, args);
}

}  // namespace strata::kernels::cuda
