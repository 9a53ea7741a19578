// Norm, exponential and SwiGLU. Part of the blocked source: included after simd_*.h by one
// translation unit per instruction set.
#pragma once

#include "kernels/cpu/primitives.h"

namespace strata::kernels::cpu {
namespace {

// e^x for x <= 88 to about one unit in the last place; 0 below -86 and for -infinity.
// x = n ln 2 + r with |r| <= ln 2 / 2; n is rounded by adding 1.5 * 2^23, which leaves it in the
// low bits of `shifted`; e^r by its series up to r^7.
inline Vec exp(Vec x) {
  constexpr float kRound = 12582912.0F;
  constexpr float kLn2High = 0.693359375F, kLn2Low = -2.12194440e-4F;  // sum: ln 2
  const Vec shifted = Vec::fma(x, Vec::all(1.44269504F), Vec::all(kRound));
  const Vec n = shifted - Vec::all(kRound);
  const Vec r = Vec::fma(n, Vec::all(-kLn2Low), Vec::fma(n, Vec::all(-kLn2High), x));
  Vec sum = Vec::all(1.0F / 5040.0F);
  constexpr float kSeries[] = {1.0F / 720.0F, 1.0F / 120.0F, 1.0F / 24.0F, 1.0F / 6.0F,
                               0.5F,          1.0F,          1.0F};
#pragma GCC unroll 8
  for (const float term : kSeries) sum = Vec::fma(sum, r, Vec::all(term));
  return Vec::zero_below(Vec::scale_by_power(sum, shifted), x, -86.0F);
}

inline float exp(float x) {
  float lanes[16];
  exp(Vec::all(x)).store(lanes);
  return lanes[0];
}

inline Vec with_deltas(const NormRow& row, int i) {
  Vec value = Vec::load(row.x + i);
  if (row.delta_a != nullptr) value = value + Vec::load(row.delta_a + i);
  if (row.delta_b != nullptr) value = value + Vec::load(row.delta_b + i);
  return value;
}

inline void norm(const NormRow& row) {
  Vec squares = Vec::zero();
  for (int i = 0; i < row.n; i += 16) {
    const Vec value = with_deltas(row, i);
    squares = Vec::fma(value, value, squares);
    value.store(row.out + i);  // not yet in paired order: the second pass works block by block
  }
  const float mean = squares.sum() / static_cast<float>(row.n);
  const Vec inverse = Vec::all(1.0F / __builtin_sqrtf(mean + row.eps));
  for (int i = 0; i < row.n; i += kBlock) {
    const Vec first = Vec::load(row.out + i), second = Vec::load(row.out + i + 16);
    if (row.x_out != nullptr) {
      first.store(row.x_out + i);
      second.store(row.x_out + i + 16);
    }
    Vec even, odd;
    Vec::split_pairs(first * inverse * Vec::load(row.weight + i),
                     second * inverse * Vec::load(row.weight + i + 16), even, odd);
    even.store(row.out + i);
    odd.store(row.out + i + 16);
  }
}

inline Vec swiglu16(const SwigluRow& row, int i) {
  const float* values = row.gate_up + 2 * i;
  const std::byte* bias = row.bias + 4 * i;  // two bf16 an output
  Vec gate, up;
  Vec::split_pairs(Vec::load(values) + Vec::load_bf16(bias),
                   Vec::load(values + 16) + Vec::load_bf16(bias + 32), gate, up);
  const Vec limit = Vec::all(row.limit), one = Vec::all(1.0F);
  gate = Vec::min(gate, limit);
  up = Vec::max(Vec::min(up, limit), Vec::all(-row.limit));
  const Vec exponent = Vec::min(gate * Vec::all(-row.alpha), Vec::all(88.0F));
  return gate / (one + exp(exponent)) * (up + one);
}

inline void swiglu(const SwigluRow& row) {
  for (int i = 0; i < row.count; i += kBlock) {
    Vec even, odd;
    Vec::split_pairs(swiglu16(row, i), swiglu16(row, i + 16), even, odd);
    even.store(row.out + i);
    odd.store(row.out + i + 16);
  }
}

}  // namespace
}  // namespace strata::kernels::cpu
