// experts: gate and up with the clamped SwiGLU, down, and the weighted sum in the order of rank.
// A block takes a tile of up to kTileTokens rows of one expert; a warp reads its weights once for
// all of them. Blocks behind the last tile of a step end at once: how many tiles there are is known
// on the device only.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/products.cuh"
#include "kernels/cuda/tensor.cuh"

namespace strata::kernels::cuda {
namespace {

struct Slab {
  const std::byte* data;
  const SlabLayout& layout;

  template <class Weights>
  __device__ Weights weights(std::size_t blocks, std::size_t scales, int k) const;
  __device__ float bias(std::size_t offset, int row) const {
    return from_bf16(__ldg(reinterpret_cast<const std::uint16_t*>(data + offset) + row));
  }
};
template <>
__device__ Mxfp4Weights Slab::weights<Mxfp4Weights>(std::size_t blocks, std::size_t scales,
                                                    int k) const {
  return {reinterpret_cast<const std::uint8_t*>(data + blocks),
          reinterpret_cast<const std::uint8_t*>(data + scales), k};
}
template <>
__device__ Bf16Weights Slab::weights<Bf16Weights>(std::size_t blocks, std::size_t /*scales*/,
                                                  int k) const {
  return {reinterpret_cast<const std::uint16_t*>(data + blocks), k};
}

__device__ float swiglu(float gate, float up, float limit, float alpha) {
  gate = gate > limit ? limit : gate;
  up = up > limit ? limit : (up < -limit ? -limit : up);
  return gate / (1.0F + expf(-alpha * gate)) * (up + 1.0F);
}

// Pair `index` of a tile; the last one stands for those it lacks.
__device__ int pair_of(const Routing& routing, const ExpertTile& tile, int index) {
  return routing.order[tile.begin + min(index, tile.count - 1)];
}

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

__global__ void sum_kernel(const ExpertsArgs args) {
  const int hidden = args.slab.hidden;
  const std::size_t row = blockIdx.x;
  const std::size_t first = row * args.routing.top_k;
  for (int i = threadIdx.x; i < hidden; i += kBlockThreads) {
    float sum = 0.0F;
    for (int rank = 0; rank < args.routing.top_k; ++rank)
      if (args.routing.expert[first + rank] >= 0)
        sum = fmaf(args.routing.weight[first + rank], args.outer[(first + rank) * hidden + i], sum);
    args.out[row * hidden + i] = sum;
  }
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
void launch_tensor(cudaStream_t stream, const ExpertsArgs& args, unsigned tiles) {
  launch_round(stream, args.x, args.x16, std::int64_t{args.rows} * args.slab.hidden);
  const auto units = [](int rows, int of_unit) { return divide_up(rows, of_unit * kBlockWarps); };
  launch(stream, dim3(tiles, units(args.slab.intermediate, kTensorPairs)),
         expert_tensor_kernel<Weights, false>, args);
  launch(stream, dim3(tiles, units(args.slab.hidden, kTensorRows)),
         expert_tensor_kernel<Weights, true>, args);
}

template <class Weights>
void launch_weights(cudaStream_t stream, const ExpertsArgs& args) {
  const std::int32_t pairs = args.rows * args.routing.top_k;
  const std::int32_t experts = pairs < args.routing.num_experts ? pairs : args.routing.num_experts;
  const unsigned tiles = pairs / args.routing.tile_tokens + experts;
  if (args.x16 != nullptr) launch_tensor<Weights>(stream, args, tiles);
  else if (args.rows == 1) launch_tiles<1, Weights>(stream, args, pairs);
  else launch_tiles<kTileTokens, Weights>(stream, args, tiles);
}

}  // namespace

void launch_experts(cudaStream_t stream, const ExpertsArgs& args) {
  if (args.slab.format == ExpertFormat::kMxfp4) launch_weights<Mxfp4Weights>(stream, args);
  else launch_weights<Bf16Weights>(stream, args);
  launch(stream, dim3(args.rows), sum_kernel, args);
}

}  // namespace strata::kernels::cuda
