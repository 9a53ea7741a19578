// Queries, keys and values of normed rows: projection, bias, rotary embedding, KV write.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/products.cuh"
#include "kernels/cuda/qkv.cuh"

namespace strata::kernels::cuda {
namespace {

template <int T, class Weights, class Kv>
__global__ void __launch_bounds__(kBlockThreads, kLeastBlocks) qkv_kernel(const QkvArgs args) {
  const int heads = args.q_heads + 2 * args.kv.heads;
  const int index = blockIdx.y * kBlockWarps + warp_id();
  if (index >= heads * (args.kv.head_dim / kTileRows)) return;
  const HeadTile tile = head_tile(args, index);
  const int half = args.kv.head_dim / 2;
  const Matrix& matrix = args.weight[tile.source];
  const int first = tile.head * args.kv.head_dim + tile.pair;
  const int rows[kTileRows] = {first, first + 1, first + half, first + half + 1};
  const int token = blockIdx.x * T;
  std::uint32_t input[T];
#pragma unroll
  for (int t = 0; t < T; ++t)
    input[t] = static_cast<std::uint32_t>(min(token + t, args.rows - 1)) * matrix.cols;
  float value = multiply<T>(Weights{matrix}, rows, args.x, input);

  const LaneOutput<T> lane;
  const bool is_second = lane.row >= 2;
  const int i = tile.pair + lane.row % 2;
  const int dim = i + (is_second ? half : 0);
  value += args.bias[tile.source][tile.head * args.kv.head_dim + dim];
  const float other = from_paired_row(value);
  const int at = token + lane.token;
  if (!lane.owned || at >= args.rows) return;
  store_value<Kv>(args, tile, at, i, is_second, value, other);
}

__global__ void rotations_kernel(const QkvArgs args) {
  const StepRow row = args.inputs.rows[blockIdx.x];
  const int half = args.kv.head_dim / 2;
  if (row.seq < 0) return;
  for (int i = threadIdx.x; i < half; i += blockDim.x) {
    const Rotation turn(static_cast<float>(row.position) * args.inv_freq[i], args.concentration);
    args.rotations[static_cast<std::size_t>(blockIdx.x) * half + i] = {turn.cosine, turn.sine};
  }
}

}  // namespace

void launch_rotations(cudaStream_t stream, const QkvArgs& args) {
  launch_threads(stream, dim3(args.rows), kWarp, 0, rotations_kernel, args);
}

void launch_qkv(cudaStream_t stream, const QkvArgs& args) {
  if (args.products == Products::kGemm) return launch_qkv_gemm(stream, args);
  if (args.products == Products::kStream)
    return args.weight[0].scales != nullptr ? launch_qkv_planes(stream, args)
                                            : launch_qkv_stream(stream, args);
  const int tiles = (args.q_heads + 2 * args.kv.heads) * (args.kv.head_dim / kTileRows);
  with_tile_tokens(args.rows, [&](auto tokens) {
    const dim3 grid(divide_up(args.rows, tokens), divide_up(tiles, kBlockWarps));
    const auto launch_weights = [&]<class Weights>(Weights*) {
      if (args.kv.bf16) launch(stream, grid, qkv_kernel<tokens, Weights, std::uint16_t>, args);
      else launch(stream, grid, qkv_kernel<tokens, Weights, float>, args);
    };
    if (args.weight[0].scales != nullptr) launch_weights(static_cast<Int8Weights*>(nullptr));
    else launch_weights(static_cast<Bf16Weights*>(nullptr));
  });
}

}  // namespace strata::kernels::cuda
