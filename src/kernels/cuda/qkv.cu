// Queries, keys and values of normed rows: projection, bias, rotary embedding, KV write.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/kv.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/products.cuh"
#include "kernels/cuda/tensor.cuh"

namespace strata::kernels::cuda {
namespace {

// Two rotary pairs of one head: rows i, i + 1 and the halves that rotate with them.
struct HeadTile {
  int source;  // 0: query, 1: key, 2: value
  int head;    // among the heads of its source
  int pair;    // i, within the head
};

__device__ HeadTile head_tile(const QkvArgs& args, int tile) {
  const int tiles_a_head = args.kv.head_dim / kTileRows;
  int head = tile / tiles_a_head;
  const int pair = tile % tiles_a_head * 2;
  if (head < args.q_heads) return {0, head, pair};
  head -= args.q_heads;
  if (head < args.kv.heads) return {1, head, pair};
  return {2, head - args.kv.heads, pair};
}

// `first` and `second` are the two values of a pair; which one is rotated here?
__device__ float rotate(float value, float other, bool is_second, float angle,
                        float concentration) {
  const float cosine = cosf(angle) * concentration;
  const float sine = sinf(angle) * concentration;
  return is_second ? value * cosine + other * sine : value * cosine - other * sine;
}

template <class Kv>
__device__ void store_kv(const QkvArgs& args, const StepRow& row, const HeadTile& tile, int dim,
                         float value) {
  std::byte* block = kv_block(args.kv, args.inputs, row, row.position, tile.head);
  if (tile.source == 2) block += args.kv.block_bytes;
  const int token = row.position % args.kv.page_tokens;
  store_rounded(reinterpret_cast<Kv*>(block) + token * args.kv.head_dim + dim, value);
}

// Puts one projected value in its place: dimension i or, if it is the second of its pair, i + half.
// `other` is the pair's other one. Both hold their biases.
template <class Kv>
__device__ void store_value(const QkvArgs& args, const HeadTile& tile, int at, int i,
                            bool is_second, float value, float other) {
  const StepRow row = args.inputs.rows[at];
  if (row.seq < 0) return;
  const int dim = i + (is_second ? args.kv.head_dim / 2 : 0);
  if (tile.source != 2) {
    const float angle = static_cast<float>(row.position) * args.inv_freq[i];
    value = rotate(value, other, is_second, angle, args.concentration);
  }
  if (tile.source == 0)
    args.q[(static_cast<std::size_t>(at) * args.q_heads + tile.head) * args.kv.head_dim + dim] =
        value;
  else store_kv<Kv>(args, row, tile, dim, value);
}

template <int T, class Kv>
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
  float value = multiply<T>(Bf16Weights{matrix}, rows, args.x, input);

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

void launch_qkv(cudaStream_t stream, const QkvArgs& args) {
  if (args.x16 != nullptr) {
    if (args.kv.bf16) launch_tensor<std::uint16_t>(stream, args);
    else launch_tensor<float>(stream, args);
    return;
  }
  const int tiles = (args.q_heads + 2 * args.kv.heads) * (args.kv.head_dim / kTileRows);
  with_tile_tokens(args.rows, [&](auto tokens) {
    const dim3 grid(divide_up(args.rows, tokens), divide_up(tiles, kBlockWarps));
    if (args.kv.bf16) launch(stream, grid, qkv_kernel<tokens, std::uint16_t>, args);
    else launch(stream, grid, qkv_kernel<tokens, float>, args);
  });
}

}  // namespace strata::kernels::cuda
