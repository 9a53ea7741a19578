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
  __device__ explicit Rotation(const float2& both) : cosine(both.x), sine(both.y) {}
  __device__ float first(float value, float other) const { return value * cosine - other * sine; }
  __device__ float second(float value, float other) const { return value * cosine + other * sine; }
};

// A row's keys or values of one head.
template <class Kv>
__device__ Kv* kv_values(const QkvArgs& args, const StepRow& row, const HeadTile& tile) {
  std::byte* block = kv_block(args.kv, args.inputs, row, row.position, tile.head);
  if (tile.source == 2) block += args.kv.block_bytes;
  return reinterpret_cast<Kv*>(block) + row.position % args.kv.page_tokens * args.kv.head_dim;
}

// Where a pair's values of one row go, found before they are there: position, rotation and page
// take a chain of reads.
template <class Kv>
class PairPlace {
 public:
  __device__ PairPlace(const QkvArgs& args, const HeadTile& tile, int at, int i)
      : there_(args.inputs.rows[at].seq >= 0), turns_(tile.source != 2), rotation_(0.0F, 1.0F) {
    if (!there_) return;
    const StepRow row = args.inputs.rows[at];
    if (turns_)
      rotation_ = Rotation(static_cast<float>(row.position) * args.inv_freq[i], args.concentration);
    if (tile.source == 0)
      q_ =
          args.q + (static_cast<std::size_t>(at) * args.q_heads + tile.head) * args.kv.head_dim + i;
    else kv_ = kv_values<Kv>(args, row, tile) + i;
  }
  // The first one of the pair or the second, `half` behind it; both hold their biases.
  __device__ void store(bool is_second, int half, float value, float other) const {
    if (!there_) return;
    if (turns_) value = is_second ? rotation_.second(value, other) : rotation_.first(value, other);
    const int behind = is_second ? half : 0;
    if (q_ != nullptr) q_[behind] = value;
    else store_rounded(kv_ + behind, value);
  }

 private:
  bool there_;
  bool turns_;
  Rotation rotation_;
  float* q_ = nullptr;
  Kv* kv_ = nullptr;
};

// Puts one projected value in its place: dimension i or, if it is the second of its pair, i + half.
// `other` is the pair's other one.
template <class Kv>
__device__ void store_value(const QkvArgs& args, const HeadTile& tile, int at, int i,
                            bool is_second, float value, float other) {
  PairPlace<Kv>(args, tile, at, i).store(is_second, args.kv.head_dim / 2, value, other);
}

}  // namespace strata::kernels::cuda
