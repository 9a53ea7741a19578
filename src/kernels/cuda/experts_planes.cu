// MXFP4 experts of few rows by integer products. A block takes outputs of one expert and up to
// eight rows of the step. Inputs come as planes, which stay in the first-level cache.
#include "kernels/cuda/expert_planes.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"

namespace strata::kernels::cuda {
namespace {

constexpr int kGroup = 2;   // rows: gate and up of an output
constexpr int kAhead = 2;   // steps read ahead
constexpr int kGroups = 4;  // of a warp
constexpr int kWarpRows = kGroups * kGroup;
constexpr int kOutputs = kBlockWarps * kGroups;  // of a block of gate_up: a block of inputs of down
static_assert(kOutputs == kPlaneBlock);
constexpr int kBlocks = 2;     // of a multiprocessor
constexpr int kGptOss = 2880;  // hidden and intermediate

// Starts reading a warp's rows of weights from `first` on, and gives `fn` a function that
// multiplies them: multiply(planes, places, done) calls done(row of the warp, column, value). kK:
// the rows' length, 0: any; then rows from `rows` on may be missing.
template <int kK, int kColumns, class Fn>
__device__ void with_warp_rows(const Mxfp4Pieces& weights, int first, int rows, Fn&& fn) {
  const auto give = [](auto& done, int group, float value, auto in_group) {
    constexpr int kRows = decltype(in_group)::value;
    constexpr int kSums = kRows * kColumns;
    if (owns_sum<kSums>())
      done(group * kRows + sum_of_lane<kSums>() / kColumns, sum_of_lane<kSums>() % kColumns, value);
  };
  if constexpr (kK > 0 && kColumns <= 2) {
    constexpr int kRows = kColumns == 1 ? 4 : kGroup;
    FixedStream<Mxfp4Pieces, kRows, 1, 1, kK> stream(weights, first, kWarpRows / kRows);
    stream.start_reading();
    fn([&](const std::byte* planes, const int(&places)[kColumns], auto&& done) {
      stream.template multiply<kColumns>(
          planes, places, kWarpRows / kRows, [&](int group, float value) {
            give(done, group, value, std::integral_constant<int, kRows>{});
          });
    });
  } else {
    RowStream<Mxfp4Pieces, kGroup, kAhead> stream(weights, {first, kGroup, 1, kGroups, rows});
    stream.start_reading();
    fn([&](const std::byte* planes, const int(&places)[kColumns], auto&& done) {
      stream.template multiply<kColumns>(planes, places, [&](int group, float value) {
        give(done, group, value, std::integral_constant<int, kGroup>{});
      });
    });
  }
}

template <int kK>
__global__ void __launch_bounds__(kBlockThreads, kBlocks) gate_up_kernel(const ExpertsArgs args) {
  __shared__ float results[kOutputs * kGroup][kTileTokens];
  // In this order: what starts early behind this kernel may rely on route having ended.
  dependency_wait();
  dependents_may_start();
  const Routing& routing = args.routing;
  const auto [tile, there] = TakenTile(routing, blockIdx.y);
  if (!there) return;
  const SlabLayout& layout = args.slab;
  const Slab slab{args.slabs[tile.expert], layout};
  const int first = blockIdx.x * kOutputs * kGroup;
  // Of the lane's output: gate in the lower half, up in the upper one.
  const std::uint32_t biases =
      __ldg(reinterpret_cast<const std::uint32_t*>(slab.data + layout.gate_up_bias) +
            blockIdx.x * kOutputs + lane_id());
  with_columns(tile.count, [&](auto at_once) {
    constexpr int kColumns = decltype(at_once)::value;
    with_warp_rows<kK, kColumns>(
        gate_up_pieces(slab), first + warp_id() * kWarpRows, layout.intermediate * 2,
        [&](auto&& multiply) {
          int places[kColumns];
#pragma unroll
          for (int c = 0; c < kColumns; ++c)
            places[c] = pair_of(routing, tile, c) / routing.top_k * plane_bytes(layout.hidden);
          multiply(args.planes, places, [&](int row, int column, float value) {
            results[warp_id() * kWarpRows + row][column] = value;
          });
        });
  });
  __syncthreads();
  const int column = warp_id();
  if (column >= tile.count) return;
  const float gate = results[kGroup * lane_id()][column] + low_bf16(biases);
  const float up = results[kGroup * lane_id() + 1][column] + high_bf16(biases);
  store_block(
      args.inner_planes + routing.order[tile.begin + column] * plane_bytes(layout.intermediate),
      layout.intermediate, blockIdx.x, swiglu(gate, up, args.limit, args.alpha));
}

template <int kK>
__global__ void __launch_bounds__(kBlockThreads, kBlocks) down_kernel(const ExpertsArgs args) {
  const Routing& routing = args.routing;
  dependents_may_start();
  // Known before gate_up has ended: it waited for route before it let this kernel start.
  const auto [tile, there] = TakenTile(routing, blockIdx.y);
  if (!there) return dependency_wait();
  const SlabLayout& layout = args.slab;
  const Slab slab{args.slabs[tile.expert], layout};
  const int first = (blockIdx.x * kBlockWarps + warp_id()) * kWarpRows;
  if (first >= layout.hidden) return dependency_wait();
  with_columns(tile.count, [&](auto at_once) {
    constexpr int kColumns = decltype(at_once)::value;
    with_warp_rows<kK, kColumns>(down_pieces(slab), first, layout.hidden, [&](auto&& multiply) {
      dependency_wait();
      int places[kColumns];
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
        places[c] = pair_of(routing, tile, c) * plane_bytes(layout.intermediate);
      multiply(args.inner_planes, places, [&](int each, int column, float value) {
        const int row = first + each;
        if (row >= layout.hidden || column >= tile.count) return;
        if (args.add_bias) value += slab.bias(layout.down_bias, row);
        const auto pair = static_cast<std::size_t>(routing.order[tile.begin + column]);
        args.outer[pair * layout.hidden + row] = value;
      });
    });
  });
}

template <int kK>
void launch_rows(cudaStream_t stream, const ExpertsArgs& args) {
  const SlabLayout& slab = args.slab;
  launch_early(stream, {dim3(divide_up(slab.intermediate, kOutputs), most_tiles(args))},
               gate_up_kernel<kK>, args);
  launch_early(stream, {dim3(divide_up(slab.hidden, kBlockWarps * kWarpRows), most_tiles(args))},
               down_kernel<kK>, args);
}

}  // namespace

void launch_experts_planes(cudaStream_t stream, const ExpertsArgs& args) {
  if (args.slab.hidden == kGptOss && args.slab.intermediate == kGptOss)
    launch_rows<kGptOss>(stream, args);
  else launch_rows<0>(stream, args);
  launch_expert_sum(stream, args);
}

}  // namespace strata::kernels::cuda
