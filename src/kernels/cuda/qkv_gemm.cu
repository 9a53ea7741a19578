// Queries, keys and values on tensor cores.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/qkv.cuh"
#include "kernels/cuda/tensor.cuh"

namespace strata::kernels::cuda {
namespace {

// A warp makes kTensorPairs rotary pairs of one head for 8 N rows.
template <int N, class Kv>
__global__ void __launch_bounds__(kBlockThreads, kLeastBlocks)
    qkv_tensor_kernel(const QkvArgs args) {
  const int heads = args.q_heads + 2 * args.kv.heads;
  const int half = args.kv.head_dim / 2;
  const int index = blockIdx.y * kBlockWarps + warp_id();
  if (index >= heads * (half / kTensorPairs)) return;
  HeadTile tile = head_tile(args, index / (half / kTensorPairs) * (args.kv.head_dim / kTileRows));
  tile.pair = index % (half / kTensorPairs) * kTensorPairs;
  const Matrix& matrix = args.weight[tile.source];
  const int first = tile.head * args.kv.head_dim;
  int rows[2][2];
  for (int m = 0; m < 2; ++m)
    for (int h = 0; h < 2; ++h) rows[m][h] = first + tile.pair + 8 * m + tensor_pair() + h * half;
  const int token = blockIdx.x * 8 * N;
  std::uint32_t input[N];
#pragma unroll
  for (int n = 0; n < N; ++n)
    input[n] =
        static_cast<std::uint32_t>(min(token + 8 * n + lane_id() / 4, args.rows - 1)) * matrix.cols;
  float sums[2][N][4] = {};
  multiply_tensor<N>(Bf16Weights{matrix}, rows, args.x16, input, sums);
  const float* bias = args.bias[tile.source] + first;
  each_result<N>(sums, [&](int pair, int t, float a, float b) {
    if (token + t >= args.rows) return;
    const int i = tile.pair + pair;
    a += bias[i];
    b += bias[i + half];
    store_value<Kv>(args, tile, token + t, i, false, a, b);
    store_value<Kv>(args, tile, token + t, i, true, b, a);
  });
}

template <class Kv>
void launch_tensor(cudaStream_t stream, const QkvArgs& args) {
  const std::int32_t cols = args.weight[0].cols;
  launch_round(stream, args.x, args.x16, std::int64_t{args.rows} * cols);
  const int tiles = (args.q_heads + 2 * args.kv.heads) * (args.kv.head_dim / kTensorRows);
  with_tensor_tokens(args.rows, [&](auto n) {
    const dim3 grid(divide_up(args.rows, 8 * n), divide_up(tiles, kBlockWarps));
    launch(stream, grid, qkv_tensor_kernel<n, Kv>, args);
  });
}

}  // namespace

void launch_qkv_gemm(cudaStream_t stream, const QkvArgs& args) {
  if (args.kv.bf16) launch_tensor<std::uint16_t>(stream, args);
  else launch_tensor<float>(stream, args);
}

}  // namespace strata::kernels::cuda
