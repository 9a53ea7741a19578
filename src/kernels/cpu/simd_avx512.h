// Vec: 16 float lanes on AVX-512. Included by the _avx512.cc files only; the anonymous namespace
// keeps every function made from it inside that translation unit. simd_scalar.h says what each
// operation means.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace strata::kernels::cpu {
namespace {

struct Vec {
  // Tile shapes that fit 32 registers; see products.inc.h.
  static constexpr int kDirectRows = 8;
  static constexpr int direct_tile(int x_rows) { return x_rows <= 6 ? 4 : 3; }
  static constexpr int kTileX = 6;
  static constexpr int kTileW = 4;
  static constexpr int kBlockK = 384;
  static constexpr int kHeadTile = 4;

  __m512 v;

  static Vec zero() { return {_mm512_setzero_ps()}; }
  static Vec all(float value) { return {_mm512_set1_ps(value)}; }
  static Vec load(const float* from) { return {_mm512_loadu_ps(from)}; }
  void store(float* to) const { _mm512_storeu_ps(to, v); }

  friend Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
  static Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }

  static Vec zero_below(Vec value, Vec x, float limit) {
    return {
        _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, _mm512_set1_ps(limit), _CMP_NLT_UQ), value.v)};
  }
  static Vec scale_by_power(Vec value, Vec shifted) {
    const __m512i power = _mm512_slli_epi32(_mm512_castps_si512(shifted.v), 23);
    return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(value.v), power))};
  }

  static __m128 quarter(Vec a) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
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
  float max_lane() const { return _mm512_reduce_max_ps(v); }

  static void split_pairs(Vec first, Vec second, Vec& even, Vec& odd) {
    const __m512i lanes =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    even.v = _mm512_permutex2var_ps(first.v, lanes, second.v);
    odd.v =
        _mm512_permutex2var_ps(first.v, _mm512_add_epi32(lanes, _mm512_set1_epi32(1)), second.v);
  }

  static Vec load_bf16(const std::byte* from) {
    const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16))};
  }

  struct Bf16Block {
    __m512i raw;
    explicit Bf16Block(const std::byte* from) : raw(_mm512_loadu_si512(from)) {}
    Vec even() const { return {_mm512_castsi512_ps(_mm512_slli_epi32(raw, 16))}; }
    Vec odd() const {
      const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
      return {_mm512_castsi512_ps(_mm512_and_si512(raw, high))};
    }
  };
};

}  // namespace
}  // namespace strata::kernels::cpu
