// Vec: 16 float lanes as two AVX2 registers (lanes 0-7 and 8-15), with FMA. Included by the
// _avx2.cc files only; the anonymous namespace keeps every function made from it inside that
// translation unit. simd_scalar.h says what each operation means.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace strata::kernels::cpu {
namespace {

struct Vec {
  // Tile shapes that fit 16 registers; see products.inc.h.
  static constexpr int kDirectRows = 3;
  static constexpr int direct_tile(int x_rows) { return x_rows == 1 ? 4 : x_rows == 2 ? 2 : 1; }
  static constexpr int kTileX = 3;
  static constexpr int kTileW = 2;
  static constexpr int kBlockK = 256;
  static constexpr int kHeadTile = 1;

  __m256 lo, hi;

  static Vec zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Vec all(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
  static Vec load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
  void store(float* to) const {
    _mm256_storeu_ps(to, lo);
    _mm256_storeu_ps(to + 8, hi);
  }

  friend Vec operator+(Vec a, Vec b) {
    return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
  }
  friend Vec operator-(Vec a, Vec b) {
    return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
  }
  friend Vec operator*(Vec a, Vec b) {
    return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
  }
  friend Vec operator/(Vec a, Vec b) {
    return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
  }
  static Vec fma(Vec a, Vec b, Vec c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  static Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
  static Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }

  static Vec zero_below(Vec value, Vec x, float limit) {
    const __m256 bound = _mm256_set1_ps(limit);
    return {_mm256_and_ps(_mm256_cmp_ps(x.lo, bound, _CMP_NLT_UQ), value.lo),
            _mm256_and_ps(_mm256_cmp_ps(x.hi, bound, _CMP_NLT_UQ), value.hi)};
  }
  static Vec scale_by_power(Vec value, Vec shifted) {
    return {add_exponent(value.lo, shifted.lo), add_exponent(value.hi, shifted.hi)};
  }
  static __m256 add_exponent(__m256 value, __m256 shifted) {
    const __m256i power = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(value), power));
  }

  static __m128 quarter(Vec a) {
    const __m256 half = _mm256_add_ps(a.lo, a.hi);
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  }
  float sum() const {
    const __m128 q = quarter(*this);
    const __m128 pairs = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)));
  }
  static void sum4(const Vec* a, float* to) {
    const __m128 a0 = quarter(a[0]), a1 = quarter(a[1]), a2 = quarter(a[2]), a3 = quarter(a[3]);
    const __m128 p01 = _mm_add_ps(_mm_unpacklo_ps(a0, a1), _mm_unpackhi_ps(a0, a1));
    const __m128 p23 = _mm_add_ps(_mm_unpacklo_ps(a2, a3), _mm_unpackhi_ps(a2, a3));
    _mm_storeu_ps(to, _mm_add_ps(_mm_movelh_ps(p01, p23), _mm_movehl_ps(p23, p01)));
  }
  float max_lane() const {
    const __m256 half = _mm256_max_ps(lo, hi);
    const __m128 q = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    const __m128 pairs = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(pairs, _mm_movehdup_ps(pairs)));
  }

  static void split_pairs(Vec first, Vec second, Vec& even, Vec& odd) {
    split_half(first, even.lo, odd.lo);
    split_half(second, even.hi, odd.hi);
  }
  // 16 values in order into their even and odd ones: shuffle within 128 bits, then reorder 64-bit
  // quarters.
  static void split_half(Vec a, __m256& even, __m256& odd) {
    const __m256d e = _mm256_castps_pd(_mm256_shuffle_ps(a.lo, a.hi, 0x88));
    const __m256d o = _mm256_castps_pd(_mm256_shuffle_ps(a.lo, a.hi, 0xdd));
    even = _mm256_castpd_ps(_mm256_permute4x64_pd(e, 0xd8));
    odd = _mm256_castpd_ps(_mm256_permute4x64_pd(o, 0xd8));
  }

  static Vec load_bf16(const std::byte* from) {
    const auto* raw = reinterpret_cast<const __m128i*>(from);
    return {widen_bf16(_mm_loadu_si128(raw)), widen_bf16(_mm_loadu_si128(raw + 1))};
  }
  static __m256 widen_bf16(__m128i raw) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
  }

  struct Bf16Block {
    __m256i first, second;
    explicit Bf16Block(const std::byte* from)
        : first(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))),
          second(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from) + 1)) {}
    Vec even() const {
      return {_mm256_castsi256_ps(_mm256_slli_epi32(first, 16)),
              _mm256_castsi256_ps(_mm256_slli_epi32(second, 16))};
    }
    Vec odd() const {
      const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
      return {_mm256_castsi256_ps(_mm256_and_si256(first, high)),
              _mm256_castsi256_ps(_mm256_and_si256(second, high))};
    }
  };
};

}  // namespace
}  // namespace strata::kernels::cpu
