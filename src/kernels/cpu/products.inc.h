// Products of bf16 weight rows with float32 activation rows. Part of the blocked source: included
// after simd_*.h by one translation unit per instruction set.
//
// Up to Vec::kDirectRows activation rows, weights are decoded in registers and each weight row is
// read once, straight from memory. More rows go through a panel of weights decoded into the L1
// cache. Both add in the order primitives.h defines.
#pragma once

#include "kernels/cpu/primitives.h"

namespace strata::kernels::cpu {
namespace {

constexpr int kLine = 64;
constexpr int kBf16BlockBytes = kBlock * 2;

// W weight rows from `row` on times all N activation rows.
template <int W, int N>
inline void direct_tile(const Product& p, int row) {
  const int blocks = p.k / kBlock;
  const std::size_t row_bytes = static_cast<std::size_t>(blocks) * kBf16BlockBytes;
  const std::byte* weights = p.weights + static_cast<std::size_t>(row) * row_bytes;
  const float* x[N];
  Vec acc[W][N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
    x[n] = p.x[n];
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) acc[w][n] = Vec::zero();
  }
  for (int b = 0; b < blocks; ++b) {
    // One half of the lanes after the other: sums and one half fill the registers.
    Vec weight[W];
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w) {
        const std::byte* block = weights + static_cast<std::size_t>(w) * row_bytes +
                                 static_cast<std::size_t>(b) * kBf16BlockBytes;
        if (half == 0) __builtin_prefetch(block + W * row_bytes, 0, 2);
        const Vec::Bf16Block values(block);
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
    for (int w = 0; w < W; ++w) p.y[n * p.y_stride + row + w] = acc[w][n].sum();
}

template <int N = 1>
inline void direct_product(const Product& p) {
  if (p.num_x == N) {
    constexpr int kTile = Vec::direct_tile(N);
    int row = 0;
    for (; row + kTile <= p.count; row += kTile) direct_tile<kTile, N>(p, row);
    for (; row < p.count; ++row) direct_tile<1, N>(p, row);
  } else if constexpr (N < Vec::kDirectRows) {
    direct_product<N + 1>(p);
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
inline void decode_panel(const Product& p, const Position& at, int row, int rows, float* panel) {
  const int blocks = p.k / kBlock;
  const std::size_t row_bytes = static_cast<std::size_t>(blocks) * kBf16BlockBytes;
  const bool last = at.end_block == blocks;
  for (int w = 0; w < rows; ++w, panel += Vec::kBlockK) {
    const std::byte* weights = p.weights + static_cast<std::size_t>(row + w) * row_bytes;
    const std::byte* next =
        last ? weights + kPanelRows * row_bytes
             : weights + static_cast<std::size_t>(at.end_block) * kBf16BlockBytes;
    for (int i = 0; i < Vec::kBlockK / kBlock * kBf16BlockBytes; i += kLine)
      __builtin_prefetch(next + i, 0, 2);
    float* to = panel;
    for (int b = at.block; b < at.end_block; ++b, to += kBlock) {
      const Vec::Bf16Block values(weights + static_cast<std::size_t>(b) * kBf16BlockBytes);
      values.even().store(to);
      values.odd().store(to + 16);
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
inline void multiply_block(const Product& p, const Position& at, const PanelScratch& scratch) {
  const int k = (at.end_block - at.block) * kBlock;
  const std::ptrdiff_t offset = std::ptrdiff_t{at.block} * kBlock;
  for (int panel_row = 0; panel_row < at.rows; panel_row += kPanelRows) {
    const int rows = at.rows - panel_row < kPanelRows ? at.rows - panel_row : kPanelRows;
    decode_panel(p, at, at.row + panel_row, rows, scratch.panel);
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
        multiply_block(p, at, scratch);
      }
      reduce_group(p, at, scratch.sums);
    }
  }
}

inline void product_bf16(const Product& p) {
  if (p.num_x <= Vec::kDirectRows) direct_product<>(p);
  else panel_product(p);
}

}  // namespace
}  // namespace strata::kernels::cpu
