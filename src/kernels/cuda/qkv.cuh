// Where projected queries, keys and values go: rotary embedding, q, the KV pool.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/kv.cuh"
#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/products.cuh"

namespace strata::kernels::cuda {

// Two rotary pairs of one head: rows i, i + 1 and the halves that rotate with them.
struct HeadTile {
  int source;  // 0: query, 1: key, 2: value
  int head;    // among the heads of its source
  int pair;    // i, within the head
};

__device__ inline HeadTile head_tile(const QkvArgs& args, int tile) {
  const int tiles_a_head = args.kv.head_dim / kTileRows;
  int head = tile / tiles_a_head;
  const int pair = tile % tiles_a_head * 2;
  if (head < args.q_heads) return {0, head, pair};
  head -= args.q_heads;
  if (head < args.kv.heads) return {1, head, pair};
  return {2, head - args.kv.heads, pair};
}

// Turns the two values of a pair by an angle.
struct Rotation {
  float cosine, sine;
  __device__ Rotation(float angle, float concentration)
      : cosine(cosf(angle) * concentration), sine(sinf(angle) * concentration) {}
  __device__ float first(float value, float other) const { return value * cosine - other * sine; }
  __device__ float second(float value, float other) const { return value * cosine + other * sine; }
};

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
    const Rotation rotation(angle, args.concentration);
    value = is_second ? rotation.second(value, other) : rotation.first(value, other);
  }
  if (tile.source == 0)
    args.q[(static_cast<std::size_t>(at) * args.q_heads + tile.head) * args.kv.head_dim + dim] =
        value;
  else store_kv<Kv>(args, row, tile, dim, value);
}

}  // namespace strata::kernels::cuda
