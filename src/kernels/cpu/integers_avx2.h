// Int: 16 int32 lanes as two AVX2 registers (lanes 0-7 and 8-15), with byte dot products where the
// file is compiled for AVX-VNNI. Included after simd_avx2.h by the _avx2.cc and _avxvnni.cc files
// only. integers_scalar.h says what each operation means.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/primitives.h"

namespace strata::kernels::cpu {
namespace {

struct Int {
#ifdef __AVXVNNI__
  static constexpr bool kPlanes = true;
  static constexpr int kDirectRows = 3;
  static constexpr int kTileX = 6;
#else
  static constexpr bool kPlanes = false;
  static constexpr int kDirectRows = 1;
  static constexpr int kTileX = 5;
#endif
  static constexpr int kTileW = 1;
  static constexpr int kPeakSums = 6;

  __m256i lo, hi;

  static Int all(std::int32_t value) {
    return {_mm256_set1_epi32(value), _mm256_set1_epi32(value)};
  }
  friend Int operator+(Int a, Int b) {
    return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
  }
  Int times_256() const { return {_mm256_slli_epi32(lo, 8), _mm256_slli_epi32(hi, 8)}; }
  Vec to_float() const { return {_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi)}; }
  std::int32_t sum() const {
    const __m256i half = _mm256_add_epi32(lo, hi);
    __m128i q = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    q = _mm_add_epi32(q, _mm_unpackhi_epi64(q, q));
    return _mm_cvtsi128_si32(q) + _mm_extract_epi32(q, 1);
  }
  static Int rounded(Vec x) { return {_mm256_cvtps_epi32(x.lo), _mm256_cvtps_epi32(x.hi)}; }
  static __m256i magnitude(__m256 a) {
    return _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(0x7fffffff));
  }
  static std::uint32_t max_magnitude(Vec a, Vec b) {
    const __m256i half = _mm256_max_epu32(_mm256_max_epu32(magnitude(a.lo), magnitude(a.hi)),
                                          _mm256_max_epu32(magnitude(b.lo), magnitude(b.hi)));
    __m128i q = _mm_max_epu32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    q = _mm_max_epu32(q, _mm_unpackhi_epi64(q, q));
    q = _mm_max_epu32(q, _mm_srli_epi64(q, 32));
    return static_cast<std::uint32_t>(_mm_cvtsi128_si32(q));
  }
  static void store16(std::byte* to, __m128i value) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), value);
  }
  // 16 lanes that fit int16, in order.
  static __m256i words(__m256i first, __m256i second) {
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(first, second), 0xd8);
  }
  static __m128i narrow(__m256i first, __m256i second) {
    const __m256i in_order = words(first, second);
    return _mm_packs_epi16(_mm256_castsi256_si128(in_order), _mm256_extracti128_si256(in_order, 1));
  }
  static void store_activations(Int q, std::byte* part0, std::byte* part1) {
    if constexpr (kPlanes) {
      // The low byte is signed, so the high one rounds.
      const __m256i half = _mm256_set1_epi32(128);
      const __m256i high0 = _mm256_srai_epi32(_mm256_add_epi32(q.lo, half), 8);
      const __m256i high1 = _mm256_srai_epi32(_mm256_add_epi32(q.hi, half), 8);
      store16(part0, narrow(high0, high1));
      store16(part1, narrow(_mm256_sub_epi32(q.lo, _mm256_slli_epi32(high0, 8)),
                            _mm256_sub_epi32(q.hi, _mm256_slli_epi32(high1, 8))));
    } else {
      const __m256i evens_odds =
          _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9,
                           12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
      const __m256i split =
          _mm256_permute4x64_epi64(_mm256_shuffle_epi8(words(q.lo, q.hi), evens_odds), 0xd8);
      store16(part0, _mm256_castsi256_si128(split));
      store16(part1, _mm256_extracti128_si256(split, 1));
    }
  }

  static __m256i load32(const std::byte* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  }
  static __m256i four_bytes(const std::byte* x) {
    std::int32_t value;
    __builtin_memcpy(&value, x, sizeof value);
    return _mm256_set1_epi32(value);
  }
#ifdef __AVXVNNI__
  using Bytes = Int;
  static Bytes load_bytes(const std::byte* from) { return {load32(from), load32(from + 32)}; }
  static Int dot_bytes(Int acc, Bytes weights, Int x) {
    return {_mm256_dpbusd_avx_epi32(acc.lo, weights.lo, x.lo),
            _mm256_dpbusd_avx_epi32(acc.hi, weights.hi, x.lo)};
  }
  static Int broadcast(const std::byte* x) {
    const __m256i four = four_bytes(x);
    return {four, four};
  }
#endif
  using Pairs = Int;
  static __m256i first_of(__m256i bytes) {
    return _mm256_and_si256(bytes, _mm256_set1_epi16(0xff));
  }
  static __m256i second_of(__m256i bytes) { return _mm256_srli_epi16(bytes, 8); }
  static void load_pairs(const std::byte* from, Pairs& first, Pairs& second) {
    const __m256i low = load32(from), high = load32(from + 32);
    first = {first_of(low), first_of(high)};
    second = {second_of(low), second_of(high)};
  }
  // The compiler must not see through the sums: it would add all products up in a tree at the end
  // and spill them until then.
  static Int dot_pairs(Int acc, Pairs weights, const std::byte* x) {
    const __m256i four = four_bytes(x);
    acc.lo = _mm256_add_epi32(acc.lo, _mm256_madd_epi16(weights.lo, four));
    acc.hi = _mm256_add_epi32(acc.hi, _mm256_madd_epi16(weights.hi, four));
    asm("" : "+x"(acc.lo), "+x"(acc.hi));
    return acc;
  }

  // Unsigned bytes of 32 nibbles.
  static __m256i weights_of(__m256i codes) {
    const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        -128, -127, -126, -125, -124, -122, -120, -116, -128, 127, 126, 125, 124, 122, 120, 116));
    return _mm256_shuffle_epi8(table, _mm256_and_si256(codes, _mm256_set1_epi8(15)));
  }
  // Two blocks of a row, or one: the weights of the even and of the odd elements.
  struct Row {
    __m256i even, odd;
  };
  static Row load_row(const std::byte* from, bool both) {
    const __m256i bytes =
        both ? load32(from)
             : _mm256_zextsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return {weights_of(bytes), weights_of(_mm256_srli_epi16(bytes, 4))};
  }
  template <Planes P>
  static __m256i dot_row(const Row& row, const std::byte* x) {
#ifdef __AVXVNNI__
    __m256i acc = _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), row.even, load32(x));
    acc = _mm256_dpbusd_avx_epi32(acc, row.odd, load32(x + 64));
    if constexpr (P == Planes::kOne) return acc;
    acc = _mm256_slli_epi32(acc, 8);
    acc = _mm256_dpbusd_avx_epi32(acc, row.even, load32(x + 128));
    return _mm256_dpbusd_avx_epi32(acc, row.odd, load32(x + 192));
#else
    const __m256i even = _mm256_add_epi32(_mm256_madd_epi16(first_of(row.even), load32(x)),
                                          _mm256_madd_epi16(second_of(row.even), load32(x + 128)));
    const __m256i odd = _mm256_add_epi32(_mm256_madd_epi16(first_of(row.odd), load32(x + 64)),
                                         _mm256_madd_epi16(second_of(row.odd), load32(x + 192)));
    return _mm256_add_epi32(even, odd);
#endif
  }
  // Sums of 4 lanes of 4 rows: within each 128 bits, the rows.
  static __m256i sum_rows(const __m256i (&rows)[4]) {
    const __m256i a = _mm256_add_epi32(_mm256_unpacklo_epi32(rows[0], rows[1]),
                                       _mm256_unpackhi_epi32(rows[0], rows[1]));
    const __m256i b = _mm256_add_epi32(_mm256_unpacklo_epi32(rows[2], rows[3]),
                                       _mm256_unpackhi_epi32(rows[2], rows[3]));
    return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
  }
  template <Planes P, int N>
  static void mxfp4_dots(const std::byte* rows, std::ptrdiff_t stride, int blocks,
                         const ActivationQuad* const (&x)[N], Int (&dots)[N][4]) {
    for (int block = 0; block < blocks; block += 2) {
      const std::ptrdiff_t at = std::ptrdiff_t{block} * 16;
      __m256i groups[N][4];
#pragma GCC unroll 4
      for (int group = 0; group < 4; ++group) {
        Row four[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          const std::byte* row = rows + (group * 4 + i) * stride + at;
          if (block == 0) __builtin_prefetch(row + kTileRows * stride, 0, 2);
          four[i] = load_row(row, block + 1 < blocks);
        }
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
          const std::byte* own = x[n]->values[0] + at;
          const __m256i sums[4] = {dot_row<P>(four[0], own), dot_row<P>(four[1], own),
                                   dot_row<P>(four[2], own), dot_row<P>(four[3], own)};
          groups[n][group] = sum_rows(sums);
        }
      }
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const auto& g = groups[n];
        dots[n][block] = {_mm256_permute2x128_si256(g[0], g[1], 0x20),
                          _mm256_permute2x128_si256(g[2], g[3], 0x20)};
        dots[n][block + 1] = {_mm256_permute2x128_si256(g[0], g[1], 0x31),
                              _mm256_permute2x128_si256(g[2], g[3], 0x31)};
      }
    }
  }

  static __m128i load16(const std::byte* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
  // 16 bytes of a row and of the fourth row behind it.
  static __m256i load_two(const std::byte* row, std::ptrdiff_t stride) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load16(row)), load16(row + 4 * stride),
                                   1);
  }
  static void mxfp4_tile(const std::byte* rows, std::ptrdiff_t stride, int blocks, std::byte* to) {
    for (int half = 0; half < 2 * blocks; ++half) {
      const std::byte* from = rows + half % 2 * 8 * stride + half / 2 * 16;
      std::byte* out = to + half / 2 * kTileBlockBytes + half % 2 * 32;
      const __m256i r0 = load_two(from, stride), r1 = load_two(from + stride, stride);
      const __m256i r2 = load_two(from + 2 * stride, stride);
      const __m256i r3 = load_two(from + 3 * stride, stride);
      const __m256i low01 = _mm256_unpacklo_epi32(r0, r1), low23 = _mm256_unpacklo_epi32(r2, r3);
      const __m256i high01 = _mm256_unpackhi_epi32(r0, r1), high23 = _mm256_unpackhi_epi32(r2, r3);
      const __m256i columns[4] = {
          _mm256_unpacklo_epi64(low01, low23), _mm256_unpackhi_epi64(low01, low23),
          _mm256_unpacklo_epi64(high01, high23), _mm256_unpackhi_epi64(high01, high23)};
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const __m256i even = weights_of(columns[i]);
        const __m256i odd = weights_of(_mm256_srli_epi16(columns[i], 4));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i * 64), even);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + (4 + i) * 64), odd);
      }
    }
  }
  static __m256 half_scale(__m256i exponent) {
    const __m256i bits = _mm256_and_si256(exponent, _mm256_set1_epi32(0x7f800000));
    return _mm256_mul_ps(_mm256_castsi256_ps(_mm256_max_epu32(bits, _mm256_set1_epi32(0x00400000))),
                         _mm256_set1_ps(0.5F));
  }
  static void half_scales(const std::uint8_t* from, std::ptrdiff_t stride, int blocks,
                          Vec (&to)[4]) {
    __m256i low, high;
    if (blocks == 4) {
      const __m256i rows = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
      const __m256i offsets =
          _mm256_mullo_epi32(rows, _mm256_set1_epi32(static_cast<std::int32_t>(stride)));
      low = _mm256_i32gather_epi32(reinterpret_cast<const int*>(from), offsets, 1);
      high = _mm256_i32gather_epi32(reinterpret_cast<const int*>(from + 8 * stride), offsets, 1);
    } else {
      alignas(32) std::uint8_t bytes[4 * kTileRows] = {};
      for (int row = 0; row < kTileRows; ++row)
        for (int b = 0; b < blocks; ++b) bytes[row * 4 + b] = from[row * stride + b];
      const auto* raw = reinterpret_cast<const __m256i*>(bytes);
      low = _mm256_load_si256(raw);
      high = _mm256_load_si256(raw + 1);
    }
    to[0] = {half_scale(_mm256_slli_epi32(low, 23)), half_scale(_mm256_slli_epi32(high, 23))};
    to[1] = {half_scale(_mm256_slli_epi32(low, 15)), half_scale(_mm256_slli_epi32(high, 15))};
    to[2] = {half_scale(_mm256_slli_epi32(low, 7)), half_scale(_mm256_slli_epi32(high, 7))};
    to[3] = {half_scale(_mm256_srli_epi32(low, 1)), half_scale(_mm256_srli_epi32(high, 1))};
  }
};

}  // namespace
}  // namespace strata::kernels::cpu
