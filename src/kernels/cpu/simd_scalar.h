// Vec: 16 float lanes in plain C++, the definition of what simd_avx2.h and simd_avx512.h do faster.
// All three give the same bits: every operation is one correctly rounded IEEE operation a lane and
// every reduction one fixed tree. Included by the _scalar.cc files only.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace strata::kernels::cpu {
namespace {

struct Vec {
  // Most x rows a product takes straight from memory, weight rows of such a tile for a count of x
  // rows, the register tile of blocked products, its K block, query heads of an attention tile.
  static constexpr int kDirectRows = 4;
  static constexpr int direct_tile(int /*x_rows*/) { return 2; }
  static constexpr int kTileX = 2;
  static constexpr int kTileW = 2;
  static constexpr int kBlockK = 256;
  static constexpr int kHeadTile = 1;

  float lane[16];

  template <typename Fn>
  static Vec each(Fn fn) {
    Vec out;
    for (int i = 0; i < 16; ++i) out.lane[i] = fn(i);
    return out;
  }
  static Vec zero() { return all(0.0F); }
  static Vec all(float value) {
    return each([&](int) { return value; });
  }
  static Vec load(const float* from) {
    return each([&](int i) { return from[i]; });
  }
  void store(float* to) const {
    for (int i = 0; i < 16; ++i) to[i] = lane[i];
  }

  friend Vec operator+(const Vec& a, const Vec& b) {
    return each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  friend Vec operator-(const Vec& a, const Vec& b) {
    return each([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  friend Vec operator*(const Vec& a, const Vec& b) {
    return each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  friend Vec operator/(const Vec& a, const Vec& b) {
    return each([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  // a * b + c, rounded once. The product is exact in double, so rounding the double sum again is
  // the same unless that sum lies halfway between two floats, or is below the normal ones.
  static Vec fma(const Vec& a, const Vec& b, const Vec& c) {
    constexpr std::uint64_t kSmallestNormal = std::uint64_t{1023 - 126} << 53;  // 2^-126, no sign
    Vec out;
    std::uint64_t unsure = 0;
    for (int i = 0; i < 16; ++i) {
      const double sum = static_cast<double>(a.lane[i]) * static_cast<double>(b.lane[i]) +
                         static_cast<double>(c.lane[i]);
      std::uint64_t raw;
      std::memcpy(&raw, &sum, sizeof raw);
      const std::uint64_t magnitude = raw << 1;
      const bool halfway = (raw & 0x1fffffffU) == 0x10000000U;
      const bool tiny = magnitude - 1 < kSmallestNormal - 1;  // zero is not
      unsure |= static_cast<std::uint64_t>(halfway) | static_cast<std::uint64_t>(tiny);
      out.lane[i] = static_cast<float>(sum);
    }
    if (unsure == 0) return out;
    return each([&](int i) { return ::fmaf(a.lane[i], b.lane[i], c.lane[i]); });
  }
  // As the x86 instructions: b where either is NaN.
  static Vec min(const Vec& a, const Vec& b) {
    return each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static Vec max(const Vec& a, const Vec& b) {
    return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }

  // `value`, but 0 where x < limit; NaN in x keeps `value`.
  static Vec zero_below(const Vec& value, const Vec& x, float limit) {
    return each([&](int i) { return x.lane[i] < limit ? 0.0F : value.lane[i]; });
  }
  // value * 2^n, where n stands in the low bits of `shifted`; no overflow or underflow.
  static Vec scale_by_power(const Vec& value, const Vec& shifted) {
    return each(
        [&](int i) { return from_bits(bits(value.lane[i]) + (bits(shifted.lane[i]) << 23)); });
  }

  // The tree: lanes i and i+8, then i and i+4, then i and i+2, then 0 and 1.
  float sum() const {
    float part[8];
    for (int i = 0; i < 8; ++i) part[i] = lane[i] + lane[i + 8];
    for (int i = 0; i < 4; ++i) part[i] += part[i + 4];
    for (int i = 0; i < 2; ++i) part[i] += part[i + 2];
    return part[0] + part[1];
  }
  static void sum4(const Vec* a, float* to) {
    for (int i = 0; i < 4; ++i) to[i] = a[i].sum();
  }
  float max_lane() const {
    float best = lane[0];
    for (int i = 1; i < 16; ++i) best = lane[i] > best ? lane[i] : best;
    return best;
  }

  // 32 consecutive values into the 16 even and the 16 odd ones.
  static void split_pairs(const Vec& first, const Vec& second, Vec& even, Vec& odd) {
    for (int i = 0; i < 8; ++i) {
      even.lane[i] = first.lane[2 * i];
      odd.lane[i] = first.lane[2 * i + 1];
      even.lane[i + 8] = second.lane[2 * i];
      odd.lane[i + 8] = second.lane[2 * i + 1];
    }
  }

  static Vec load_bf16(const std::byte* from) {
    return each([&](int i) { return bf16_at(from, i); });
  }

  // 32 weights of a row, decoded as the 16 even and the 16 odd ones.
  struct Bf16Block {
    const std::byte* from;
    explicit Bf16Block(const std::byte* block) : from(block) {}
    Vec even() const {
      return each([&](int i) { return bf16_at(from, 2 * i); });
    }
    Vec odd() const {
      return each([&](int i) { return bf16_at(from, 2 * i + 1); });
    }
  };

  static std::uint32_t bits(float value) {
    std::uint32_t out;
    std::memcpy(&out, &value, sizeof out);
    return out;
  }
  static float from_bits(std::uint32_t value) {
    float out;
    std::memcpy(&out, &value, sizeof out);
    return out;
  }
  static float bf16_at(const std::byte* from, int i) {
    std::uint16_t raw;
    std::memcpy(&raw, from + 2 * i, sizeof raw);
    return from_bits(std::uint32_t{raw} << 16);
  }
};

}  // namespace
}  // namespace strata::kernels::cpu
