// Multiply-adds on registers alone: the roofs that `strata bench` holds products against. Part of
// the blocked source: included after integers_*.h by one translation unit per instruction set.
#pragma once

#include "kernels/cpu/primitives.h"

namespace strata::kernels::cpu {
namespace {

// Enough independent sums to hide the latency of a multiply-add, few enough for the registers.
constexpr int kFloatPeakSums = Vec::kTileX * Vec::kTileW;

// A round: kFloatPeakSums times 16 multiply-adds.
inline float peak_floats(int rounds) {
  Vec sums[kFloatPeakSums];
  const Vec factor = Vec::all(0.999F), term = Vec::all(0.001F);
  for (int i = 0; i < kFloatPeakSums; ++i) sums[i] = Vec::all(static_cast<float>(i));
  for (int round = 0; round < rounds; ++round)
#pragma GCC unroll 24
    for (int i = 0; i < kFloatPeakSums; ++i) sums[i] = Vec::fma(sums[i], factor, term);
  Vec total = sums[0];
  for (int i = 1; i < kFloatPeakSums; ++i) total = total + sums[i];
  return total.sum();
}

// A round: 16 weight rows times I::kPeakSums activation rows, 4 elements of K.
template <class I>
inline float peak_integers_of(int rounds, Planes planes) {
  constexpr int kSums = I::kPeakSums;
  alignas(64) std::byte block[64 + 8] = {};
  I sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = I::all(i);
  if constexpr (I::kPlanes) {
    const typename I::Bytes weights = I::load_bytes(block);
    const I four = I::broadcast(block + 64);
    for (int round = 0; round < rounds * static_cast<int>(planes); ++round)
#pragma GCC unroll 12
      for (int i = 0; i < kSums; ++i) sums[i] = I::dot_bytes(sums[i], weights, four);
  } else {
    typename I::Pairs first, second;
    I::load_pairs(block, first, second);
    for (int round = 0; round < rounds; ++round) {
      asm volatile("" : "+m"(first), "+m"(second));  // new weights every round
#pragma GCC unroll 12
      for (int i = 0; i < kSums; ++i) sums[i] = I::dot_pairs(sums[i], first, block + 64);
#pragma GCC unroll 12
      for (int i = 0; i < kSums; ++i) sums[i] = I::dot_pairs(sums[i], second, block + 68);
    }
  }
  I total = sums[0];
  for (int i = 1; i < kSums; ++i) total = total + sums[i];
  return static_cast<float>(total.sum());
}

inline float peak_integers(int rounds, Planes planes) {
  return peak_integers_of<Int>(rounds, planes);
}

}  // namespace
}  // namespace strata::kernels::cpu
