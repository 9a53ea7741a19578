// Products of weight rows with activation rows. Part of the blocked source: included after
// simd_*.h by one translation unit per instruction set.
//
// Up to Vec::kDirectRows activation rows, weights are decoded in registers and each weight row is
// read once, straight from memory. More rows go through a panel of weights decoded into the L1
// cache. Both add in the order primitives.h defines.
#pragma once

#include "kernels/cpu/primitives.h"

namespace strata::kernels::cpu {
namespace {

constexpr int kScaleChunk = 16;  // blocks whose scales are widened together
constexpr int kLine = 64;

struct Bf16Rows {
  using Block = Vec::Bf16Block;
  static constexpr int kBlockBytes = kBlock * 2;
  static constexpr bool kScaled = false;
  static Block load(const std::byte* block, float /*scale*/) { return Block(block); }
};

struct Mxfp4Rows {
  using Block = Vec::Mxfp4Block;
  static constexpr int kBlockBytes = kBlock / 2;
  static constexpr bool kScaled = true;
  static Block load(const std::byte* block, float scale) { return Block(block, scale); }
};

inline void widen_scales(const std::uint8_t* from, int count, float* to) {
  if (count == kScaleChunk) {
    Vec::scales_e8m0(from, to);
    return;
  }
  std::uint8_t padded[kScaleChunk] = {};
  for (int i = 0; i < count; ++i) padded[i] = from[i];
  Vec::scales_e8m0(padded, to);
}

// Blocks [begin, end) of W weight rows times all N activation rows.
template <class Rows, int W, int N>
inline void direct_blocks(const std::byte* weights, std::size_t row_bytes,
                          const float (&scale)[W][kScaleChunk], const float* const (&x)[N],
                          int begin, int end, Vec (&sums)[W][N]) {
  Vec acc[W][N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) acc[w][n] = sums[w][n];
  for (int b = begin; b < end; ++b) {
    // One half of the lanes after the other: sums and one half fill the registers.
    Vec weight[W];
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w) {
        const std::byte* block = weights + static_cast<std::size_t>(w) * row_bytes +
                                 static_cast<std::size_t>(b) * Rows::kBlockBytes;
        if (half == 0) __builtin_prefetch(block + W * row_bytes, 0, 2);
        const auto values = Rows::load(block, Rows::kScaled ? scale[w][b - begin] : 1.0F);
        weight[w] = half == 0 ? values.even() : values.odd();
      }
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const Vec value = Vec::load(x[n] + b * kBlock + half * 16);
#pragma GCC unroll 8
        for (int w = 0; w < W; ++w) acc[w][n] = Vec::fma(weight[w], value, acc[w][n]);
      }
    }
  }
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) sums[w][n] = acc[w][n];
}

// W weight rows from `row` on times all N activation rows.
template <class Rows, int W, int N>
inline void direct_tile(const Product& p, int row) {
  const int blocks = p.k / kBlock;
  const std::size_t row_bytes = static_cast<std::size_t>(blocks) * Rows::kBlockBytes;
  const std::byte* weights = p.weights + static_cast<std::size_t>(row) * row_bytes;
  const float* x[N];
  Vec sums[W][N];
  for (int n = 0; n < N; ++n) {
    x[n] = p.x[n];
    for (int w = 0; w < W; ++w) sums[w][n] = Vec::zero();
  }
  alignas(64) float scale[W][kScaleChunk];
  constexpr int kStep = Rows::kScaled ? kScaleChunk : 1 << 24;
  for (int begin = 0; begin < blocks; begin += kStep) {
    const int end = blocks - begin < kStep ? blocks : begin + kStep;
    if constexpr (Rows::kScaled)
      for (int w = 0; w < W; ++w)
        widen_scales(
            p.scales + static_cast<std::size_t>(row + w) * static_cast<std::size_t>(blocks) + begin,
            end - begin, scale[w]);
    direct_blocks<Rows, W, N>(weights, row_bytes, scale, x, begin, end, sums);
  }
  for (int n = 0; n < N; ++n)
    for (int w = 0; w < W; ++w) p.y[n * p.y_stride + row + w] = sums[w][n].sum();
}

template <class Rows, int N = 1>
inline void direct_product(const Product& p) {
  if (p.num_x == N) {
    constexpr int kTile = Vec::direct_tile(N);
    int row = 0;
    for (; row + kTile <= p.count; row += kTile) direct_tile<Rows, kTile, N>(p, row);
    for (; row < p.count; ++row) direct_tile<Rows, 1, N>(p, row);
  } else if constexpr (N < Vec::kDirectRows) {
    direct_product<Rows, N + 1>(p);
  }
}

// Where a blocked product is: weight rows [row, row + rows) of a group, x rows [x, x + num_x),
// blocks [block, end_block) of K.
struct Position {
  int row, rows;
  int x, num_x;
  int block, end_block;
};

struct PanelScratch {
  Vec* sums;     // [group rows / 4][kBlockX][4]: partial sums of 4 weight rows and one x row
  float* panel;  // [kPanelRows][kBlockK] decoded weights
};

inline PanelScratch panel_scratch(const Product& p) {
  static_assert(Vec::kBlockK <= 512 && sizeof(Vec) == 64);
  return {reinterpret_cast<Vec*>(p.scratch),
          reinterpret_cast<float*>(p.scratch + std::size_t{kGroupRows} * kBlockX * 64)};
}

// Decodes weight rows [row, row + rows) of the K block into the panel, zero rows up to a multiple
// of 4, and asks for the bytes the next call will want.
template <class Rows>
inline void decode_panel(const Product& p, const Position& at, int row, int rows, float* panel) {
  const int blocks = p.k / kBlock;
  const std::size_t row_bytes = static_cast<std::size_t>(blocks) * Rows::kBlockBytes;
  const bool last = at.end_block == blocks;
  for (int w = 0; w < rows; ++w, panel += Vec::kBlockK) {
    const auto index = static_cast<std::size_t>(row + w);
    const std::byte* weights = p.weights + index * row_bytes;
    const std::byte* next =
        last ? weights + kPanelRows * row_bytes
             : weights + static_cast<std::size_t>(at.end_block) * Rows::kBlockBytes;
    for (int i = 0; i < Vec::kBlockK / kBlock * Rows::kBlockBytes; i += kLine)
      __builtin_prefetch(next + i, 0, 2);
    float* to = panel;
    for (int chunk = at.block; chunk < at.end_block; chunk += kScaleChunk) {
      const int end = at.end_block - chunk < kScaleChunk ? at.end_block : chunk + kScaleChunk;
      alignas(64) float scale[kScaleChunk];
      if constexpr (Rows::kScaled)
        widen_scales(p.scales + index * static_cast<std::size_t>(blocks) + chunk, end - chunk,
                     scale);
      for (int b = chunk; b < end; ++b, to += kBlock) {
        const auto values = Rows::load(weights + static_cast<std::size_t>(b) * Rows::kBlockBytes,
                                       Rows::kScaled ? scale[b - chunk] : 1.0F);
        values.even().store(to);
        values.odd().store(to + 16);
      }
    }
  }
  for (int w = rows; w % 4 != 0; ++w, panel += Vec::kBlockK)
    for (int i = 0; i < Vec::kBlockK; i += 16) Vec::zero().store(panel + i);
}

// Adds `k` more elements to the sums of X activation rows and kTileW weight rows. Sums of one x
// row lie 4 apart.
template <int X>
inline void panel_tile(const float* panel, const float* const* x_rows, std::ptrdiff_t offset, int k,
                       Vec* sums) {
  Vec acc[X][Vec::kTileW];
  const float* x[X];
#pragma GCC unroll 8
  for (int i = 0; i < X; ++i) {
    x[i] = x_rows[i] + offset;
#pragma GCC unroll 8
    for (int w = 0; w < Vec::kTileW; ++w) acc[i][w] = sums[i * 4 + w];
  }
  for (int at = 0; at < k; at += 16) {
    Vec weight[Vec::kTileW];
#pragma GCC unroll 8
    for (int w = 0; w < Vec::kTileW; ++w) weight[w] = Vec::load(panel + w * Vec::kBlockK + at);
#pragma GCC unroll 8
    for (int i = 0; i < X; ++i) {
      const Vec value = Vec::load(x[i] + at);
#pragma GCC unroll 8
      for (int w = 0; w < Vec::kTileW; ++w) acc[i][w] = Vec::fma(weight[w], value, acc[i][w]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < X; ++i)
#pragma GCC unroll 8
    for (int w = 0; w < Vec::kTileW; ++w) sums[i * 4 + w] = acc[i][w];
}

template <int X = Vec::kTileX>
inline void panel_tile_of(int num_x, const float* panel, const float* const* x,
                          std::ptrdiff_t offset, int k, Vec* sums) {
  if (num_x >= X) panel_tile<X>(panel, x, offset, k, sums);
  else if constexpr (X > 1) panel_tile_of<X - 1>(num_x, panel, x, offset, k, sums);
}

// One K block of a group of weight rows and a block of x rows.
template <class Rows>
inline void multiply_block(const Product& p, const Position& at, const PanelScratch& scratch) {
  const int k = (at.end_block - at.block) * kBlock;
  const std::ptrdiff_t offset = std::ptrdiff_t{at.block} * kBlock;
  for (int panel_row = 0; panel_row < at.rows; panel_row += kPanelRows) {
    const int rows = at.rows - panel_row < kPanelRows ? at.rows - panel_row : kPanelRows;
    decode_panel<Rows>(p, at, at.row + panel_row, rows, scratch.panel);
    for (int i = 0; i < at.num_x; i += Vec::kTileX) {
      for (int w = 0; w < rows; w += Vec::kTileW) {
        Vec* sums = scratch.sums + ((panel_row + w) / 4 * kBlockX + i) * 4 + w % 4;
        panel_tile_of(at.num_x - i, scratch.panel + w * Vec::kBlockK, p.x + at.x + i, offset, k,
                      sums);
      }
    }
  }
}

inline void reduce_group(const Product& p, const Position& at, const Vec* sums) {
  for (int row = 0; row < at.rows; row += 4, sums += kBlockX * 4) {
    for (int i = 0; i < at.num_x; ++i) {
      float* y = p.y + (at.x + i) * p.y_stride + at.row + row;
      float four[4];
      Vec::sum4(sums + i * 4, four);
      for (int w = 0; w < 4 && row + w < at.rows; ++w) y[w] = four[w];
    }
  }
}

template <class Rows>
inline void panel_product(const Product& p) {
  const PanelScratch scratch = panel_scratch(p);
  const int blocks = p.k / kBlock;
  constexpr int kStep = Vec::kBlockK / kBlock;
  for (int row = 0; row < p.count; row += kGroupRows) {
    const int rows = p.count - row < kGroupRows ? p.count - row : kGroupRows;
    for (int x = 0; x < p.num_x; x += kBlockX) {
      const int num_x = p.num_x - x < kBlockX ? p.num_x - x : kBlockX;
      for (int group = 0; group < (rows + 3) / 4; ++group)
        for (int i = 0; i < num_x * 4; ++i) scratch.sums[group * kBlockX * 4 + i] = Vec::zero();
      Position at{row, rows, x, num_x, 0, 0};
      for (; at.block < blocks; at.block += kStep) {
        at.end_block = blocks - at.block < kStep ? blocks : at.block + kStep;
        multiply_block<Rows>(p, at, scratch);
      }
      reduce_group(p, at, scratch.sums);
    }
  }
}

template <class Rows>
inline void product(const Product& p) {
  if (p.num_x <= Vec::kDirectRows) direct_product<Rows>(p);
  else panel_product<Rows>(p);
}

}  // namespace
}  // namespace strata::kernels::cpu
