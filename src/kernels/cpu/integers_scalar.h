// Int: 16 int32 lanes in plain C++, the definition of what integers_avx2.h and integers_avx512.h do
// faster: quantised activations, dot products of unsigned weight bytes with them, and MXFP4 rows.
// Exact, so every way of adding up gives the same bits. Included after simd_scalar.h by the
// _scalar.cc files only.
#pragma once

#include "kernels/cpu/primitives.h"

namespace strata::kernels::cpu {
namespace {

struct Int {
  // How activations lie in ActivationQuad::values. Planes: [plane][parity], the high byte of q,
  // then the low one, as signed bytes. Pairs: [first or second][parity], the even, then the odd
  // entries of the parity, as int16. Either way 4 elements of a block take 4 bytes of two parts.
  static constexpr bool kPlanes = false;
  static constexpr int kDirectRows = 2;  // most x rows MXFP4 lanes are parts of a row for
  static constexpr int kTileX = 2;       // register tile: x rows ...
  static constexpr int kTileW = 1;       // ... and tiles of 16 weight rows
  static constexpr int kPeakSums = 2;    // independent sums that hide the latency

  std::int32_t lane[16];

  template <typename Fn>
  static Int each(Fn fn) {
    Int out;
    for (int i = 0; i < 16; ++i) out.lane[i] = fn(i);
    return out;
  }
  static Int all(std::int32_t value) {
    return each([&](int) { return value; });
  }
  friend Int operator+(const Int& a, const Int& b) {
    return each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  Int times_256() const {
    return each([&](int i) { return lane[i] * 256; });
  }
  Vec to_float() const {
    return Vec::each([&](int i) { return static_cast<float>(lane[i]); });
  }
  std::int32_t sum() const {
    std::int32_t total = 0;
    for (const std::int32_t value : lane) total += value;
    return total;
  }
  // To nearest, ties to even.
  static Int rounded(const Vec& x) {
    return each([&](int i) { return static_cast<std::int32_t>(__builtin_nearbyintf(x.lane[i])); });
  }
  // Bits of the largest magnitude; infinities and then NaNs count as the largest.
  static std::uint32_t max_magnitude(const Vec& a, const Vec& b) {
    std::uint32_t most = 0;
    for (int i = 0; i < 16; ++i) {
      const std::uint32_t in_a = Vec::bits(a.lane[i]) & 0x7fffffffU;
      const std::uint32_t in_b = Vec::bits(b.lane[i]) & 0x7fffffffU;
      most = in_a > most ? in_a : most;
      most = in_b > most ? in_b : most;
    }
    return most;
  }
  // The 16 q of a block's parity into its 16 bytes of both parts.
  static void store_activations(const Int& q, std::byte* part0, std::byte* part1) {
    for (int i = 0; i < 8; ++i) {
      const std::int16_t first = static_cast<std::int16_t>(q.lane[2 * i]);
      const std::int16_t second = static_cast<std::int16_t>(q.lane[2 * i + 1]);
      std::memcpy(part0 + 2 * i, &first, 2);
      std::memcpy(part1 + 2 * i, &second, 2);
    }
  }

  // 16 weight rows, 4 unsigned bytes each, as pairs of 16 bits: bytes 0 and 2, or 1 and 3.
  struct Pairs {
    std::int32_t value[16][2];
  };
  static void load_pairs(const std::byte* from, Pairs& first, Pairs& second) {
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 2; ++j) {
        first.value[i][j] = static_cast<std::int32_t>(from[i * 4 + 2 * j]);
        second.value[i][j] = static_cast<std::int32_t>(from[i * 4 + 2 * j + 1]);
      }
  }
  // acc + weights times the two int16 at `x`.
  static Int dot_pairs(const Int& acc, const Pairs& weights, const std::byte* x) {
    std::int16_t pair[2];
    std::memcpy(pair, x, sizeof pair);
    return each([&](int i) {
      return acc.lane[i] + weights.value[i][0] * pair[0] + weights.value[i][1] * pair[1];
    });
  }

  static unsigned code_at(const std::byte* row, int element) {
    const auto byte = static_cast<unsigned>(row[element / 2]);
    return element % 2 == 0 ? byte & 15U : byte >> 4;
  }
  // Twice the value, plus 128.
  static std::int32_t weight_of(unsigned code) {
    constexpr std::int32_t kTwice[8] = {0, 1, 2, 3, 4, 6, 8, 12};
    return (code & 8U) != 0 ? 128 - kTwice[code & 7U] : 128 + kTwice[code & 7U];
  }
  // dots[n][b] = `blocks` blocks of 16 rows, `stride` bytes apart, times the quad x[n].
  template <Planes P, int N>
  static void mxfp4_dots(const std::byte* rows, std::ptrdiff_t stride, int blocks,
                         const ActivationQuad* const (&x)[N], Int (&dots)[N][4]) {
    for (int n = 0; n < N; ++n)
      for (int b = 0; b < blocks; ++b)
        dots[n][b] = each([&](int row) {
          std::int32_t sum = 0;
          for (int i = 0; i < kBlock; ++i) {
            const int part = i / 2 % 2 * 2 + i % 2;
            std::int16_t q;
            std::memcpy(&q, &x[n]->values[part][b * 16 + i / 4 * 2], sizeof q);
            sum += weight_of(code_at(rows + row * stride + b * 16, i)) * q;
          }
          return sum;
        });
  }
  // The same rows as bytes of a tile: [blocks][kTileBlockBytes].
  static void mxfp4_tile(const std::byte* rows, std::ptrdiff_t stride, int blocks, std::byte* to) {
    for (int b = 0; b < blocks; ++b)
      for (int row = 0; row < kTileRows; ++row)
        for (int i = 0; i < kBlock; ++i)
          to[b * kTileBlockBytes + i8_index(row, i)] =
              static_cast<std::byte>(weight_of(code_at(rows + row * stride + b * 16, i)));
  }
  // E8M0 scales of `blocks` blocks of 16 rows as floats 2^(e - 128), half the scale, because
  // weights are doubled; e = 0 is subnormal.
  static void half_scales(const std::uint8_t* from, std::ptrdiff_t stride, int blocks,
                          Vec (&to)[4]) {
    for (int b = 0; b < blocks; ++b)
      to[b] = Vec::each([&](int row) {
        const std::uint32_t exponent = from[row * stride + b];
        return 0.5F * Vec::from_bits(exponent == 0 ? 0x00400000U : exponent << 23);
      });
  }
};

}  // namespace
}  // namespace strata::kernels::cpu
