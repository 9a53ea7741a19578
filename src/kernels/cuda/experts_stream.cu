// bfloat16 experts of few rows on tensor cores. A block takes tiles of one expert's matrix and up
// to eight rows of the step; a single row's experts are summed where they are made.
#include "kernels/cuda/experts.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/stream.cuh"

namespace strata::kernels::cuda {
namespace {

constexpr int kSplit = 2;
constexpr int kTiles = kBlockWarps / kSplit;

// Tile t of gate_up is eight SwiGLU outputs: pairs of gate and up; of down it is 16 outputs.
template <bool kDown, int kStages>
__global__ void __launch_bounds__(kBlockThreads, stream_blocks(kStages))
    expert_stream_kernel(const ExpertsArgs args) {
  extern __shared__ uint4 shared[];
  __shared__ StreamSums<kBlockWarps> all;
  auto* rings = reinterpret_cast<std::byte*>(shared);
  std::byte* inputs = rings + ring_bytes<kStages>();
  // In this order: what starts early behind this kernel may rely on route having ended.
  dependency_wait();
  dependents_may_start();
  const Routing& routing = args.routing;
  const auto [group, there] = TakenTile(routing, blockIdx.x);
  if (!there) return;
  const SlabLayout& layout = args.slab;
  const Slab slab{args.slabs[group.expert], layout};
  const Bf16Weights weights =
      kDown ? slab.weights<Bf16Weights>(layout.down_blocks, 0, layout.intermediate)
            : slab.weights<Bf16Weights>(layout.gate_up_blocks, 0, layout.hidden);
  const int rows = kDown ? layout.hidden : 2 * layout.intermediate;
  const int first_tile = blockIdx.y * kTiles;
  const auto row_of = [&](int tile, int pair, int half) {
    const int first = (first_tile + tile) * kStreamRows;
    return kDown ? first + half * kStreamPairs + pair : first + 2 * pair + half;
  };
  const int first = row_of(warp_id() / kSplit, 0, 0);
  WarpStream<kSplit, kStages> stream(
      weights, rings,
      kDown ? StreamTile{first, 1, kStreamPairs, rows} : StreamTile{first, 2, 1, rows});
  stream.start_reading();
  stage_inputs(inputs, group.count, weights.k, [&](int c) {
    const int pair = routing.order[group.begin + c];
    return kDown ? args.inner + static_cast<std::size_t>(pair) * layout.intermediate
                 : args.x + static_cast<std::size_t>(pair / routing.top_k) * layout.hidden;
  });
  __syncthreads();
  float sums[4] = {};
  stream.multiply(inputs, group.count, sums);
  put_sums<kBlockWarps>(all, sums);
  __syncthreads();
  each_stream_result<kSplit>(all, group.count, [&](int t, int p, int c, float a, float b) {
    const int first = row_of(t, p, 0);
    const int second = row_of(t, p, 1);
    if (first >= rows) return;
    const auto pair = static_cast<std::size_t>(routing.order[group.begin + c]);
    if constexpr (kDown) {
      float* out = args.outer + pair * layout.hidden;
      out[first] = args.add_bias ? a + slab.bias(layout.down_bias, first) : a;
      out[second] = args.add_bias ? b + slab.bias(layout.down_bias, second) : b;
    } else {
      a += slab.bias(layout.gate_up_bias, first);
      b += slab.bias(layout.gate_up_bias, second);
      args.inner[pair * layout.intermediate + first / 2] = swiglu(a, b, args.limit, args.alpha);
    }
  });
}

// The down projection of a step of one row and the weighted sum over its experts, in the order of
// rank: four warps an expert.
constexpr int kRowWarps = 16;
constexpr int kRowThreads = kRowWarps * kWarp;
constexpr int kRowSplit = 4;
constexpr int kRowStages = 2;
constexpr int kRanksAtOnce = kRowWarps / kRowSplit;

__global__ void __launch_bounds__(kRowThreads, 2) down_row_kernel(const ExpertsArgs args) {
  extern __shared__ uint4 shared[];
  __shared__ StreamSums<kRowWarps> all;
  auto* rings = reinterpret_cast<std::byte*>(shared);
  std::byte* inputs = rings + ring_bytes<kRowStages, kRowWarps>();
  const SlabLayout& layout = args.slab;
  const Routing& routing = args.routing;
  const int first = blockIdx.x * kStreamRows;
  const int pitch = input_pitch(layout.intermediate);
  dependents_may_start();
  float total = 0.0F;  // of threads below kStreamRows
  bool waited = false;
  for (int base = 0; base < routing.top_k; base += kRanksAtOnce) {
    const int rank = base + warp_id() / kRowSplit;
    const bool mine = rank < routing.top_k;
    // Known before gate_up has ended: it waited for route before it let this kernel start.
    const std::int32_t expert = mine ? routing.expert[rank] : -1;
    const Slab slab{expert >= 0 ? args.slabs[expert] : nullptr, layout};
    // A step of padding has no experts.
    const int k = expert >= 0 ? layout.intermediate : 0;
    WarpStream<kRowSplit, kRowStages> stream(slab.weights<Bf16Weights>(layout.down_blocks, 0, k),
                                             rings, {first, 1, kStreamPairs, layout.hidden});
    stream.start_reading();
    if (!waited) dependency_wait();
    waited = true;
    const int ranks = min(kRanksAtOnce, routing.top_k - base);
    stage_inputs<1>(inputs, ranks, layout.intermediate, [&](int c) {
      return args.inner + static_cast<std::size_t>(base + c) * layout.intermediate;
    });
    __syncthreads();
    float sums[4] = {};
    stream.multiply(inputs + warp_id() / kRowSplit * pitch, 1, sums);
    put_sums<kRowWarps>(all, sums);
    __syncthreads();
    if (threadIdx.x < kStreamRows) {
      const int row = first + threadIdx.x;
      for (int c = 0; c < ranks && row < layout.hidden; ++c) {
        const std::int32_t chosen = routing.expert[base + c];
        if (chosen < 0) continue;
        float value = 0.0F;
        for (int w = 0; w < kRowSplit; ++w) value += all[c * kRowSplit + w][threadIdx.x][0];
        const Slab its{args.slabs[chosen], layout};
        if (args.add_bias) value += its.bias(layout.down_bias, row);
        total = fmaf(routing.weight[base + c], value, total);
      }
    }
    __syncthreads();
  }
  const int row = first + threadIdx.x;
  if (threadIdx.x < kStreamRows && row < layout.hidden) args.out[row] = total;
}

// A single row's tiles all find room at once, so their warps may be few and read far ahead; with
// more rows there are more tiles than room, and more warps hide each other's waits.
template <int kStages>
void launch_tiles(cudaStream_t stream, const ExpertsArgs& args, bool down) {
  const SlabLayout& slab = args.slab;
  const int rows = down ? slab.hidden : 2 * slab.intermediate;
  const int columns = args.rows < kStreamColumns ? args.rows : kStreamColumns;
  const Grid grid{
      dim3(most_tiles(args), divide_up(rows, kStreamRows * kTiles)),
      ring_bytes<kStages>() + input_bytes(columns, down ? slab.intermediate : slab.hidden)};
  if (down) launch_early(stream, grid, expert_stream_kernel<true, kStages>, args);
  else launch_early(stream, grid, expert_stream_kernel<false, kStages>, args);
}

}  // namespace

void launch_experts_stream(cudaStream_t stream, const ExpertsArgs& args) {
  if (args.rows > 1) {
    launch_tiles<2>(stream, args, false);
    launch_tiles<2>(stream, args, true);
    return launch_expert_sum(stream, args);
  }
  launch_tiles<3>(stream, args, false);
  const int ranks = args.routing.top_k < kRanksAtOnce ? args.routing.top_k : kRanksAtOnce;
  launch_early(stream,
               {dim3(divide_up(args.slab.hidden, kStreamRows)),
                ring_bytes<kRowStages, kRowWarps>() + input_bytes(ranks, args.slab.intermediate),
                kRowThreads},
               down_row_kernel, args);
}

}  // namespace strata::kernels::cuda
