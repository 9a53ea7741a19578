// Int: 16 int32 lanes on AVX-512, with byte dot products where the file is compiled for VNNI.
// Included after simd_avx512.h by the _avx512*.cc files only. integers_scalar.h says what each
// operation means.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/primitives.h"

namespace strata::kernels::cpu {
namespace {

struct Int {
#ifdef __AVX512VNNI__
  static constexpr bool kPlanes = true;
#else
  static constexpr bool kPlanes = false;
#endif
  static constexpr int kDirectRows = 2;
  static constexpr int kTileX = 8;
  static constexpr int kTileW = 2;
  static constexpr int kPeakSums = 12;

  __m512i v;

  static Int all(std::int32_t value) { return {_mm512_set1_epi32(value)}; }
  friend Int operator+(Int a, Int b) { return {_mm512_add_epi32(a.v, b.v)}; }
  Int times_256() const { return {_mm512_slli_epi32(v, 8)}; }
  Vec to_float() const { return {_mm512_cvtepi32_ps(v)}; }
  std::int32_t sum() const { return _mm512_reduce_add_epi32(v); }
  static Int rounded(Vec x) { return {_mm512_cvtps_epi32(x.v)}; }
  static std::uint32_t max_magnitude(Vec a, Vec b) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    return _mm512_reduce_max_epu32(
        _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(a.v), magnitude),
                         _mm512_and_si512(_mm512_castps_si512(b.v), magnitude)));
  }
  static void store16(std::byte* to, __m128i value) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), value);
  }
  static void store_activations(Int q, std::byte* part0, std::byte* part1) {
    if constexpr (kPlanes) {
      // The low byte is signed, so the high one rounds.
      const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(q.v, _mm512_set1_epi32(128)), 8);
      store16(part0, _mm512_cvtepi32_epi8(high));
      store16(part1, _mm512_cvtepi32_epi8(q.v));
    } else {
      store16(part0, _mm256_cvtepi32_epi16(_mm512_cvtepi64_epi32(q.v)));
      store16(part1, _mm256_cvtepi32_epi16(_mm512_cvtepi64_epi32(_mm512_srli_epi64(q.v, 32))));
    }
  }

  static __m512i four_bytes(const std::byte* x) {
    std::int32_t value;
    __builtin_memcpy(&value, x, sizeof value);
    return _mm512_set1_epi32(value);
  }
#ifdef __AVX512VNNI__
  struct Bytes {
    __m512i v;
  };
  static Bytes load_bytes(const std::byte* from) { return {_mm512_loadu_si512(from)}; }
  static Int dot_bytes(Int acc, Bytes weights, Int x) {
    return {_mm512_dpbusd_epi32(acc.v, weights.v, x.v)};
  }
  static Int broadcast(const std::byte* x) { return {four_bytes(x)}; }
#endif
  struct Pairs {
    __m512i v;
  };
  static void load_pairs(const std::byte* from, Pairs& first, Pairs& second) {
    const __m512i bytes = _mm512_loadu_si512(from);
    first.v = _mm512_and_si512(bytes, _mm512_set1_epi16(0xff));
    second.v = _mm512_srli_epi16(bytes, 8);
  }
  // The compiler must not see through the sums: it would add all products up in a tree at the end
  // and spill them until then.
  static Int dot_pairs(Int acc, Pairs weights, const std::byte* x) {
    acc.v = _mm512_add_epi32(acc.v, _mm512_madd_epi16(weights.v, four_bytes(x)));
    asm("" : "+v"(acc.v));
    return acc;
  }

  // Unsigned bytes of 64 nibbles.
  static __m512i weights_of(__m512i codes) {
    const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(
        -128, -127, -126, -125, -124, -122, -120, -116, -128, 127, 126, 125, 124, 122, 120, 116));
    return _mm512_shuffle_epi8(table, _mm512_and_si512(codes, _mm512_set1_epi8(15)));
  }
  // One row of a quad: the weights of its even and of its odd elements.
  struct Row {
    __m512i even, odd;
  };
  static Row load_row(const std::byte* from, __mmask64 valid) {
    const __m512i bytes = _mm512_maskz_loadu_epi8(valid, from);
    return {weights_of(bytes), weights_of(_mm512_srli_epi16(bytes, 4))};
  }
  template <Planes P>
  static __m512i dot_row(const Row& row, const ActivationQuad& x) {
    const __m512i part0 = _mm512_loadu_si512(x.values[0]), part1 = _mm512_loadu_si512(x.values[1]);
#ifdef __AVX512VNNI__
    __m512i acc = _mm512_dpbusd_epi32(_mm512_setzero_si512(), row.even, part0);
    acc = _mm512_dpbusd_epi32(acc, row.odd, part1);
    if constexpr (P == Planes::kOne) return acc;
    acc = _mm512_slli_epi32(acc, 8);
    acc = _mm512_dpbusd_epi32(acc, row.even, _mm512_loadu_si512(x.values[2]));
    return _mm512_dpbusd_epi32(acc, row.odd, _mm512_loadu_si512(x.values[3]));
#else
    const __m512i part2 = _mm512_loadu_si512(x.values[2]), part3 = _mm512_loadu_si512(x.values[3]);
    const __m512i low = _mm512_set1_epi16(0xff);
    const __m512i even = _mm512_add_epi32(_mm512_madd_epi16(_mm512_and_si512(row.even, low), part0),
                                          _mm512_madd_epi16(_mm512_srli_epi16(row.even, 8), part2));
    const __m512i odd = _mm512_add_epi32(_mm512_madd_epi16(_mm512_and_si512(row.odd, low), part1),
                                         _mm512_madd_epi16(_mm512_srli_epi16(row.odd, 8), part3));
    return _mm512_add_epi32(even, odd);
#endif
  }
  // Sums of 4 lanes of 4 rows: within each 128 bits, the rows.
  static __m512i sum_rows(const __m512i (&rows)[4]) {
    const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(rows[0], rows[1]),
                                       _mm512_unpackhi_epi32(rows[0], rows[1]));
    const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(rows[2], rows[3]),
                                       _mm512_unpackhi_epi32(rows[2], rows[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
  }
  // [group of rows][block] of 128 bits into [block][group of rows].
  static void transpose(const __m512i (&groups)[4], Int (&blocks)[4]) {
    const __m512i low01 = _mm512_shuffle_i32x4(groups[0], groups[1], 0x44);
    const __m512i high01 = _mm512_shuffle_i32x4(groups[0], groups[1], 0xee);
    const __m512i low23 = _mm512_shuffle_i32x4(groups[2], groups[3], 0x44);
    const __m512i high23 = _mm512_shuffle_i32x4(groups[2], groups[3], 0xee);
    blocks[0].v = _mm512_shuffle_i32x4(low01, low23, 0x88);
    blocks[1].v = _mm512_shuffle_i32x4(low01, low23, 0xdd);
    blocks[2].v = _mm512_shuffle_i32x4(high01, high23, 0x88);
    blocks[3].v = _mm512_shuffle_i32x4(high01, high23, 0xdd);
  }
  template <Planes P, int N>
  static void mxfp4_dots(const std::byte* rows, std::ptrdiff_t stride, int blocks,
                         const ActivationQuad* const (&x)[N], Int (&dots)[N][4]) {
    const __mmask64 valid = ~__mmask64{0} >> (64 - 16 * blocks);
    __m512i groups[N][4];
#pragma GCC unroll 4
    for (int group = 0; group < 4; ++group) {
      Row four[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const std::byte* row = rows + (group * 4 + i) * stride;
        __builtin_prefetch(row + kTileRows * stride, 0, 2);
        four[i] = load_row(row, valid);
      }
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        const __m512i sums[4] = {dot_row<P>(four[0], *x[n]), dot_row<P>(four[1], *x[n]),
                                 dot_row<P>(four[2], *x[n]), dot_row<P>(four[3], *x[n])};
        groups[n][group] = sum_rows(sums);
      }
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) transpose(groups[n], dots[n]);
  }

  static __m128i load16(const std::byte* from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  }
  // 16 bytes of rows 4 * lane + first.
  static __m512i load_every_fourth(const std::byte* first, std::ptrdiff_t stride) {
    __m512i rows = _mm512_castsi128_si512(load16(first));
    rows = _mm512_inserti32x4(rows, load16(first + 4 * stride), 1);
    rows = _mm512_inserti32x4(rows, load16(first + 8 * stride), 2);
    return _mm512_inserti32x4(rows, load16(first + 12 * stride), 3);
  }
  static void mxfp4_tile(const std::byte* rows, std::ptrdiff_t stride, int blocks, std::byte* to) {
    for (int b = 0; b < blocks; ++b, rows += 16, to += kTileBlockBytes) {
      const __m512i r0 = load_every_fourth(rows, stride);
      const __m512i r1 = load_every_fourth(rows + stride, stride);
      const __m512i r2 = load_every_fourth(rows + 2 * stride, stride);
      const __m512i r3 = load_every_fourth(rows + 3 * stride, stride);
      const __m512i low01 = _mm512_unpacklo_epi32(r0, r1), low23 = _mm512_unpacklo_epi32(r2, r3);
      const __m512i high01 = _mm512_unpackhi_epi32(r0, r1), high23 = _mm512_unpackhi_epi32(r2, r3);
      const __m512i columns[4] = {
          _mm512_unpacklo_epi64(low01, low23), _mm512_unpackhi_epi64(low01, low23),
          _mm512_unpacklo_epi64(high01, high23), _mm512_unpackhi_epi64(high01, high23)};
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        _mm512_storeu_si512(to + i * 64, weights_of(columns[i]));
        _mm512_storeu_si512(to + (4 + i) * 64, weights_of(_mm512_srli_epi16(columns[i], 4)));
      }
    }
  }
  static void half_scales(const std::uint8_t* from, std::ptrdiff_t stride, int blocks,
                          Vec (&to)[4]) {
    const __m512i rows = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i four;
    if (blocks == 4) {
      const __m512i offsets =
          _mm512_mullo_epi32(rows, _mm512_set1_epi32(static_cast<std::int32_t>(stride)));
      four = _mm512_i32gather_epi32(offsets, from, 1);
    } else {
      alignas(64) std::uint8_t bytes[64] = {};
      for (int row = 0; row < kTileRows; ++row)
        for (int b = 0; b < blocks; ++b) bytes[row * 4 + b] = from[row * stride + b];
      four = _mm512_load_si512(bytes);
    }
    const __m512i exponents[4] = {_mm512_slli_epi32(four, 23), _mm512_slli_epi32(four, 15),
                                  _mm512_slli_epi32(four, 7), _mm512_srli_epi32(four, 1)};
#pragma GCC unroll 4
    for (int b = 0; b < 4; ++b) {
      const __m512i bits = _mm512_and_si512(exponents[b], _mm512_set1_epi32(0x7f800000));
      to[b] = Vec{_mm512_castsi512_ps(_mm512_max_epu32(bits, _mm512_set1_epi32(0x00400000)))} *
              Vec::all(0.5F);
    }
  }
};

}  // namespace
}  // namespace strata::kernels::cpu
