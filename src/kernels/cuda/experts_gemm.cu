// Experts on tensor cores.
#include "kernels/cuda/experts.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor.cuh"

namespace strata::kernels::cuda {
namespace {

// SwiGLU outputs of 8 N rows of a tile, a pair of rows each, in bfloat16 for the next product.
template <int N, class Weights>
__device__ void gate_up_tensor(const ExpertsArgs& args, const Slab& slab, const ExpertTile& tile,
                               int first) {
  const SlabLayout& layout = args.slab;
  int rows[2][2];
  for (int m = 0; m < 2; ++m)
    for (int h = 0; h < 2; ++h) rows[m][h] = 2 * (first + 8 * m + tensor_pair()) + h;
  std::uint32_t input[N];
#pragma unroll
  for (int n = 0; n < N; ++n)
    input[n] = static_cast<std::uint32_t>(pair_of(args.routing, tile, 8 * n + lane_id() / 4) /
                                          args.routing.top_k) *
               layout.hidden;
  float sums[2][N][4] = {};
  multiply_tensor<N>(
      slab.weights<Weights>(layout.gate_up_blocks, layout.gate_up_scales, layout.hidden), rows,
      args.x16, input, sums);
  each_result<N>(sums, [&](int pair, int t, float gate, float up) {
    if (t >= tile.count) return;
    const int output = first + pair;
    gate += slab.bias(layout.gate_up_bias, 2 * output);
    up += slab.bias(layout.gate_up_bias, 2 * output + 1);
    args.inner16[static_cast<std::size_t>(pair_of(args.routing, tile, t)) * layout.intermediate +
                 output] = to_bf16(swiglu(gate, up, args.limit, args.alpha));
  });
}

template <int N, class Weights>
__device__ void down_tensor(const ExpertsArgs& args, const Slab& slab, const ExpertTile& tile,
                            int first) {
  const SlabLayout& layout = args.slab;
  const auto row_of = [&](int pair, int h) { return first + pair / 8 * 16 + h * 8 + pair % 8; };
  int rows[2][2];
  for (int m = 0; m < 2; ++m)
    for (int h = 0; h < 2; ++h) rows[m][h] = row_of(8 * m + tensor_pair(), h);
  std::uint32_t input[N];
#pragma unroll
  for (int n = 0; n < N; ++n)
    input[n] = static_cast<std::uint32_t>(pair_of(args.routing, tile, 8 * n + lane_id() / 4)) *
               layout.intermediate;
  float sums[2][N][4] = {};
  multiply_tensor<N>(
      slab.weights<Weights>(layout.down_blocks, layout.down_scales, layout.intermediate), rows,
      args.inner16, input, sums);
  each_result<N>(sums, [&](int pair, int t, float a, float b) {
    if (t >= tile.count) return;
    float* out =
        args.outer + static_cast<std::size_t>(pair_of(args.routing, tile, t)) * layout.hidden;
    const int i = row_of(pair, 0);
    const int j = row_of(pair, 1);
    out[i] = args.add_bias ? a + slab.bias(layout.down_bias, i) : a;
    out[j] = args.add_bias ? b + slab.bias(layout.down_bias, j) : b;
  });
}

template <class Weights, bool kDown>
__global__ void __launch_bounds__(kBlockThreads, kLeastBlocks)
    expert_tensor_kernel(const ExpertsArgs args) {
  if (static_cast<std::int32_t>(blockIdx.x) >= *args.routing.num_tiles) return;
  const ExpertTile tile = args.routing.tiles[blockIdx.x];
  const Slab slab{args.slabs[tile.expert], args.slab};
  const int unit = blockIdx.y * kBlockWarps + warp_id();
  const int first = unit * (kDown ? kTensorRows : kTensorPairs);
  if (first >= (kDown ? args.slab.hidden : args.slab.intermediate)) return;
  const auto run = [&](auto n) {
    if constexpr (kDown) down_tensor<n, Weights>(args, slab, tile, first);
    else gate_up_tensor<n, Weights>(args, slab, tile, first);
  };
  if (tile.count <= 8) run(std::integral_constant<int, 1>{});
  else if (tile.count <= 16) run(std::integral_constant<int, 2>{});
  else if (tile.count <= 32) run(std::integral_constant<int, 4>{});
  else run(std::integral_constant<int, 8>{});
}

template <class Weights>
void launch_tensor(cudaStream_t stream, const ExpertsArgs& args, unsigned tiles) {
  launch_round(stream, args.x, args.x16, std::int64_t{args.rows} * args.slab.hidden);
  const auto units = [](int rows, int of_unit) { return divide_up(rows, of_unit * kBlockWarps); };
  launch(stream, dim3(tiles, units(args.slab.intermediate, kTensorPairs)),
         expert_tensor_kernel<Weights, false>, args);
  launch(stream, dim3(tiles, units(args.slab.hidden, kTensorRows)),
         expert_tensor_kernel<Weights, true>, args);
}

}  // namespace

void launch_experts_gemm(cudaStream_t stream, const ExpertsArgs& args) {
  if (args.slab.format == ExpertFormat::kMxfp4)
    launch_tensor<Mxfp4Weights>(stream, args, most_tiles(args));
  else launch_tensor<Bf16Weights>(stream, args, most_tiles(args));
}

}  // namespace strata::kernels::cuda
