// Softmax attention of one row's query heads over the pages of their KV head. Part of the blocked
// source: included after simd_*.h and pointwise.inc.h by one translation unit per instruction set.
//
// Keys are taken in splits that end at multiples of kSplitKeys, counted from key 0, so a query's
// result depends on its position alone. A split has its own maximum and sums; splits are merged in
// order.
#pragma once

#include "kernels/cpu/primitives.h"

namespace strata::kernels::cpu {
namespace {

inline Vec load_kv(const float* from, int i) { return Vec::load(from + i); }
struct Bf16Bits {
  std::uint16_t bits;
};
inline Vec load_kv(const Bf16Bits* from, int i) {
  return Vec::load_bf16(reinterpret_cast<const std::byte*>(from + i));
}

// Keys [first, first + count) of a split: where each one is.
template <class Kv>
struct Split {
  const Kv* keys[kSplitKeys + 4];  // the last key again behind the end
  int count = 0;
};

template <class Kv>
inline void locate_keys(const AttendRow& row, int first, int end, Split<Kv>& split) {
  split.count = end - first;
  int page = first / row.page_tokens, token = first % row.page_tokens;
  for (int i = 0; i < split.count; ++i) {
    const std::byte* block = row.pages[page - row.first_page];
    split.keys[i] = reinterpret_cast<const Kv*>(block) + token * row.head_dim;
    if (++token == row.page_tokens) {
      token = 0;
      ++page;
    }
  }
  for (int i = split.count; i < split.count + 4; ++i) split.keys[i] = split.keys[split.count - 1];
}

// scores[h][i] = q[h] . key[i], four keys at a time.
template <class Kv, int D>
inline void score_split(const AttendRow& row, const Split<Kv>& split, float* scores) {
  for (int i = 0; i < split.count; i += 4) {
    Vec key[4][D];
#pragma GCC unroll 8
    for (int j = 0; j < 4; ++j)
#pragma GCC unroll 8
      for (int d = 0; d < D; ++d) key[j][d] = load_kv(split.keys[i + j], d * 16);
    for (int h = 0; h < row.heads; ++h) {
      const float* q = row.q + h * D * 16;
      Vec dot[4];
#pragma GCC unroll 8
      for (int j = 0; j < 4; ++j) dot[j] = Vec::load(q) * key[j][0];
#pragma GCC unroll 8
      for (int d = 1; d < D; ++d)
#pragma GCC unroll 8
        for (int j = 0; j < 4; ++j) dot[j] = Vec::fma(Vec::load(q + d * 16), key[j][d], dot[j]);
      Vec::sum4(dot, scores + h * kSplitKeys + i);
    }
  }
}

// Scores into exp(score * scale - max); returns max and the sum.
inline void soften(float* scores, int count, float scale, float& max, float& sum) {
  const int end = (count + 15) / 16 * 16;
  for (int i = count; i < end; ++i) scores[i] = -__builtin_inff();
  Vec best = Vec::all(-__builtin_inff());
  for (int i = 0; i < end; i += 16) {
    const Vec scaled = Vec::load(scores + i) * Vec::all(scale);
    scaled.store(scores + i);
    best = Vec::max(best, scaled);
  }
  max = best.max_lane();
  Vec total = Vec::zero();
  for (int i = 0; i < end; i += 16) {
    const Vec value = exp(Vec::load(scores + i) - Vec::all(max));
    value.store(scores + i);
    total = total + value;
  }
  sum = total.sum();
}

// out[h] = sum of weights[h][i] * value[i], for H heads.
template <class Kv, int D, int H>
inline void mix_values(const AttendRow& row, const Split<Kv>& split, const float* weights,
                       float* out) {
  Vec acc[H][D];
#pragma GCC unroll 8
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 8
    for (int d = 0; d < D; ++d) acc[h][d] = Vec::zero();
  for (int i = 0; i < split.count; ++i) {
    const auto* value = reinterpret_cast<const Kv*>(
        reinterpret_cast<const std::byte*>(split.keys[i]) + row.value_offset);
#pragma GCC unroll 8
    for (int d = 0; d < D; ++d) {
      const Vec v = load_kv(value, d * 16);
#pragma GCC unroll 8
      for (int h = 0; h < H; ++h)
        acc[h][d] = Vec::fma(Vec::all(weights[h * kSplitKeys + i]), v, acc[h][d]);
    }
  }
#pragma GCC unroll 8
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 8
    for (int d = 0; d < D; ++d) acc[h][d].store(out + (h * D + d) * 16);
}

// What a head has gathered so far: sum = total of exp(score - max), mix = its weighted values.
struct HeadState {
  float max, sum;
};

inline void merge(HeadState& state, float* mix, float max, float sum, const float* split_mix,
                  int head_dim) {
  const float top = state.max > max ? state.max : max;
  const float keep = exp(state.max - top), take = exp(max - top);
  state = {top, state.sum * keep + sum * take};
  for (int d = 0; d < head_dim; d += 16)
    (Vec::load(mix + d) * Vec::all(keep) + Vec::load(split_mix + d) * Vec::all(take))
        .store(mix + d);
}

// Adds the sink to the softmax's denominator and writes the head in paired order.
inline void finish_head(const AttendRow& row, int head, const HeadState& state, const float* mix) {
  const float sink = row.sinks[head];
  const float top = state.max > sink ? state.max : sink;
  const float keep = exp(state.max - top);
  const Vec factor = Vec::all(keep / (state.sum * keep + exp(sink - top)));
  float* out = row.out + head * row.head_dim;
  for (int d = 0; d < row.head_dim; d += kBlock) {
    Vec even, odd;
    Vec::split_pairs(Vec::load(mix + d) * factor, Vec::load(mix + d + 16) * factor, even, odd);
    even.store(out + d);
    odd.store(out + d + 16);
  }
}

template <class Kv, int D>
inline void attend_dim(const AttendRow& row) {
  HeadState states[kMaxGroupHeads];
  float* scores = row.scratch;                        // [heads][kSplitKeys]
  float* mix = scores + row.heads * kSplitKeys;       // [heads][head_dim]
  float* split_mix = mix + row.heads * row.head_dim;  // [heads][head_dim]
  for (int h = 0; h < row.heads; ++h) states[h] = {-__builtin_inff(), 0.0F};
  for (int i = 0; i < row.heads * row.head_dim; ++i) mix[i] = 0.0F;
  Split<Kv> split;
  for (int first = row.first_key; first < row.end_key;) {
    const int limit = (first / kSplitKeys + 1) * kSplitKeys;
    const int end = limit < row.end_key ? limit : row.end_key;
    locate_keys(row, first, end, split);
    score_split<Kv, D>(row, split, scores);
    float max[kMaxGroupHeads], sum[kMaxGroupHeads];
    for (int h = 0; h < row.heads; ++h)
      soften(scores + h * kSplitKeys, split.count, row.scale, max[h], sum[h]);
    int h = 0;
    for (; h + Vec::kHeadTile <= row.heads; h += Vec::kHeadTile)
      mix_values<Kv, D, Vec::kHeadTile>(row, split, scores + h * kSplitKeys,
                                        split_mix + h * row.head_dim);
    for (; h < row.heads; ++h)
      mix_values<Kv, D, 1>(row, split, scores + h * kSplitKeys, split_mix + h * row.head_dim);
    for (h = 0; h < row.heads; ++h)
      merge(states[h], mix + h * row.head_dim, max[h], sum[h], split_mix + h * row.head_dim,
            row.head_dim);
    first = end;
  }
  for (int h = 0; h < row.heads; ++h) finish_head(row, h, states[h], mix + h * row.head_dim);
}

template <class Kv>
inline void attend(const AttendRow& row) {
  if (row.head_dim == 64) attend_dim<Kv, 4>(row);
  else if (row.head_dim == 128) attend_dim<Kv, 8>(row);
  else attend_dim<Kv, 2>(row);
}

}  // namespace
}  // namespace strata::kernels::cpu
