// Queries, keys and values of normed rows: projection, bias, rotary embedding, KV write.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/kv.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/products.cuh"

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

template <int T, class Kv>
__global__ void __launch_bounds__(kBlockThreads) qkv_kernel(const QkvArgs args) {
  const int heads = args.q_heads + 2 * args.kv.heads;
  const int index = blockIdx.y * kBlockWarps + warp_id();
  if (index >= heads * (args.kv.head_dim / kTileRows)) return;
  const HeadTile tile = head_tile(args, index);
  const int half = args.kv.head_dim / 2;
  const Matrix& matrix = args.weight[tile.source];
  const int first = tile.head * args.kv.head_dim + tile.pair;
  const int rows[kTileRows] = {first, first + 1, first + half, first + half + 1};
  const int token = blockIdx.x * T;
  const float* x[T];
  for (int t = 0; t < T; ++t)
    x[t] = args.x + static_cast<std::size_t>(min(token + t, args.rows - 1)) * matrix.cols;
  float value = multiply<T>(Bf16Weights{matrix.data, matrix.cols}, rows, x);

  const LaneOutput<T> lane;
  const bool is_second = lane.row >= 2;
  const int i = tile.pair + lane.row % 2;
  const int dim = i + (is_second ? half : 0);
  value += args.bias[tile.source][tile.head * args.kv.head_dim + dim];
  const float other = from_paired_row(value);
  const int at = token + lane.token;
  if (!lane.owned || at >= args.rows) return;
  const StepRow row = args.inputs.rows[at];
  if (row.seq < 0) return;
  if (tile.source != 2) {
    const float angle = static_cast<float>(row.position) * args.inv_freq[i];
    value = rotate(value, other, is_second, angle, args.concentration);
  }
  if (tile.source == 0)
    args.q[(static_cast<std::size_t>(at) * args.q_heads + tile.head) * args.kv.head_dim + dim] =
        value;
  else store_kv<Kv>(args, row, tile, dim, value);
}

}  // namespace

void launch_qkv(cudaStream_t stream, const QkvArgs& args) {
  const int tiles = (args.q_heads + 2 * args.kv.heads) * (args.kv.head_dim / kTileRows);
  with_tile_tokens(args.rows, [&](auto tokens) {
    const dim3 grid(divide_up(args.rows, tokens), divide_up(tiles, kBlockWarps));
    if (args.kv.bf16) launch(stream, grid, qkv_kernel<tokens, std::uint16_t>, args);
    else launch(stream, grid, qkv_kernel<tokens, float>, args);
  });
}

}  // namespace strata::kernels::cuda
