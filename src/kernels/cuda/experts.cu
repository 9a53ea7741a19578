// experts: gate and up with the clamped SwiGLU, down, and the weighted sum in the order of rank.
// A block takes a tile of up to kTileTokens rows of one expert; a warp reads its weights once for
// all of them. Blocks behind the last tile of a step end at once: how many tiles there are is known
// on the device only.
#include "kernels/cuda/experts.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/products.cuh"

namespace strata::kernels::cuda {
namespace {

// SwiGLU outputs i and i + 1 of T rows: rows 2i and 2i + 2 of the slab are their gates, the rows
// behind each the ups.
template <int T, class Weights>
__device__ void gate_up(const ExpertsArgs& args, const Slab& slab, const ExpertTile& tile, int i) {
  const SlabLayout& layout = args.slab;
  std::uint32_t input[T];
#pragma unroll
  for (int t = 0; t < T; ++t)
    input[t] = static_cast<std::uint32_t>(pair_of(args.routing, tile, t) / args.routing.top_k) *
               layout.hidden;
  const int rows[kTileRows] = {2 * i, 2 * i + 2, 2 * i + 1, 2 * i + 3};
  float value = multiply<T>(
      slab.weights<Weights>(layout.gate_up_blocks, layout.gate_up_scales, layout.hidden), rows,
      args.x, input);
  const LaneOutput<T> lane;
  const int output = i + lane.row % 2;
  value += slab.bias(layout.gate_up_bias, 2 * output + lane.row / 2);
  const float up = from_paired_row(value);
  if (!lane.owned || lane.row >= 2 || lane.token >= tile.count) return;
  const int pair = pair_of(args.routing, tile, lane.token);
  args.inner[static_cast<std::size_t>(pair) * layout.intermediate + output] =
      swiglu(value, up, args.limit, args.alpha);
}

template <int T, class Weights>
__device__ void down(const ExpertsArgs& args, const Slab& slab, const ExpertTile& tile, int i) {
  const SlabLayout& layout = args.slab;
  std::uint32_t input[T];
#pragma unroll
  for (int t = 0; t < T; ++t)
    input[t] = static_cast<std::uint32_t>(pair_of(args.routing, tile, t)) * layout.intermediate;
  const int rows[kTileRows] = {i, i + 1, i + 2, i + 3};
  float value = multiply<T>(
      slab.weights<Weights>(layout.down_blocks, layout.down_scales, layout.intermediate), rows,
      args.inner, input);
  const LaneOutput<T> lane;
  if (!lane.owned || lane.token >= tile.count) return;
  const int pair = pair_of(args.routing, tile, lane.token);
  if (args.add_bias) value += slab.bias(layout.down_bias, i + lane.row);
  args.outer[static_cast<std::size_t>(pair) * layout.hidden + i + lane.row] = value;
}

// MaxT bounds the registers: a step of one row has tiles of one row.
template <int MaxT, class Weights, bool kDown>
__global__ void __launch_bounds__(kBlockThreads, kLeastBlocks)
    expert_kernel(const ExpertsArgs args) {
  if (static_cast<std::int32_t>(blockIdx.x) >= *args.routing.num_tiles) return;
  const ExpertTile tile = args.routing.tiles[blockIdx.x];
  const Slab slab{args.slabs[tile.expert], args.slab};
  const int unit = blockIdx.y * kBlockWarps + warp_id();
  const int i = unit * (kDown ? kTileRows : kTileRows / 2);
  if (i >= (kDown ? args.slab.hidden : args.slab.intermediate)) return;
  const auto run = [&](auto tokens) {
    if constexpr (kDown) down<tokens, Weights>(args, slab, tile, i);
    else gate_up<tokens, Weights>(args, slab, tile, i);
  };
  if constexpr (MaxT == 1) {
    run(std::integral_constant<int, 1>{});
  } else {
    if (tile.count == 1) run(std::integral_constant<int, 1>{});
    else if (tile.count == 2) run(std::integral_constant<int, 2>{});
    else if (tile.count <= 4) run(std::integral_constant<int, 4>{});
    else run(std::integral_constant<int, 8>{});
  }
}

// A thread sums four values; what is read does not depend on whether it is wanted.
__global__ void sum_kernel(const ExpertsArgs args) {
  dependents_may_start();
  const int hidden = args.slab.hidden;
  const int i = static_cast<int>(blockIdx.y * kBlockThreads + threadIdx.x) * 4;
  const std::size_t row = blockIdx.x;
  const std::size_t first = row * args.routing.top_k;
  dependency_wait();
  if (i >= hidden) return;
  float4 sum{};
#pragma unroll 4
  for (int rank = 0; rank < args.routing.top_k; ++rank) {
    const float4 each = *reinterpret_cast<const float4*>(args.outer + (first + rank) * hidden + i);
    const float weight = args.routing.weight[first + rank];
    if (args.routing.expert[first + rank] < 0) continue;
    sum.x = fmaf(weight, each.x, sum.x), sum.y = fmaf(weight, each.y, sum.y);
    sum.z = fmaf(weight, each.z, sum.z), sum.w = fmaf(weight, each.w, sum.w);
  }
  *reinterpret_cast<float4*>(args.out + row * hidden + i) = sum;
}

template <int MaxT, class Weights>
void launch_tiles(cudaStream_t stream, const ExpertsArgs& args, unsigned tiles) {
  const auto units = [](int rows, int of_unit) { return divide_up(rows, of_unit * kBlockWarps); };
  launch(stream, dim3(tiles, units(args.slab.intermediate, kTileRows / 2)),
         expert_kernel<MaxT, Weights, false>, args);
  launch(stream, dim3(tiles, units(args.slab.hidden, kTileRows)),
         expert_kernel<MaxT, Weights, true>, args);
}

template <class Weights>
void launch_weights(cudaStream_t stream, const ExpertsArgs& args) {
  const unsigned tiles = most_tiles(args);
  if (args.rows == 1) launch_tiles<1, Weights>(stream, args, tiles);
  else launch_tiles<kTileTokens, Weights>(stream, args, tiles);
}

}  // namespace

void launch_expert_sum(cudaStream_t stream, const ExpertsArgs& args) {
  const unsigned parts = divide_up(args.slab.hidden, kBlockThreads * 4);
  launch_early(stream, {dim3(args.rows, parts)}, sum_kernel, args);
}

void launch_experts(cudaStream_t stream, const ExpertsArgs& args) {
  if (args.logits != nullptr) return launch_experts_one_row(stream, args);
  if (args.products == Products::kStream)
    return args.planes != nullptr ? launch_experts_planes(stream, args)
                                  : launch_experts_stream(stream, args);
  if (args.products == Products::kGemm)
    is_batch(args.rows, args.slab) ? launch_experts_batch(stream, args)
                                   : launch_experts_gemm(stream, args);
  else if (args.slab.format == ExpertFormat::kMxfp4) launch_weights<Mxfp4Weights>(stream, args);
  else launch_weights<Bf16Weights>(stream, args);
  launch_expert_sum(stream, args);
}

}  // namespace strata::kernels::cuda
