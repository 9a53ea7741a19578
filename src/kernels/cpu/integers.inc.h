// Quantisation and integer products. Part of the blocked source: included after integers_*.h by one
// translation unit per instruction set.
//
// Panel products multiply tiles of 16 weight rows laid out as bytes (see i8_index): lanes are
// weight rows, activations are broadcast. int8 weights are stored that way and read in place; MXFP4
// rows are decoded into such a panel in the L1 cache. For no more activation rows than a register
// tile has, MXFP4 is decoded a block at a time instead; for one or two, in registers, and the sums
// of 16 rows are transposed into lanes.
#pragma once

#include <type_traits>

#include "kernels/cpu/primitives.h"

namespace strata::kernels::cpu {
namespace {

constexpr int kPanelBlocks = 16;  // of K, of a panel in the L1 cache
constexpr int kSumsX = 128;       // x rows whose sums are kept at a time
constexpr int kPanelTiles = 2;

// What a product needs of IntegerProduct::scratch.
struct IntegerScratch {
  std::byte panel[kPanelTiles][kPanelBlocks][kTileBlockBytes];
  float scales[kPanelTiles][kPanelBlocks][kTileRows];
  float sums[kSumsX][kPanelTiles][kTileRows];
};
static_assert(sizeof(IntegerScratch) <= kProductScratch);

inline void quantise(const QuantiseRow& row) {
  constexpr std::uint32_t kTiniest = 0x0d800000;  // 2^-100
  constexpr std::uint32_t kInfinite = 0x7f800000;
  const float most = row.planes == Planes::kTwo ? 32639.0F : 127.0F;
  for (int i = 0; i < row.count / kBlock; ++i) {
    const int block = row.first_block + i;
    ActivationQuad& quad = row.out[block / 4];
    const int b = block % 4;
    const Vec even = Vec::load(row.x + i * kBlock), odd = Vec::load(row.x + i * kBlock + 16);
    const std::uint32_t bits = Int::max_magnitude(even, odd);
    float largest = 0.0F;
    __builtin_memcpy(&largest, &bits, sizeof largest);
    // A block of nothing is zero; one with a NaN or an infinity makes every product NaN by its
    // scale.
    float inverse = most / largest;
    quad.scale[b] = largest / most;
    if (bits < kTiniest) inverse = quad.scale[b] = 0.0F;
    const bool finite = bits < kInfinite;
    if (!finite) quad.scale[b] = __builtin_nanf("");
    const Int q_even = finite ? Int::rounded(even * Vec::all(inverse)) : Int::all(0);
    const Int q_odd = finite ? Int::rounded(odd * Vec::all(inverse)) : Int::all(0);
    quad.bias[b] = -128 * (q_even + q_odd).sum();
    // One plane: its bytes are the "low" ones, which lie first.
    std::byte* parts = quad.values[0] + b * 16;
    if (Int::kPlanes && row.planes == Planes::kOne) {
      Int::store_activations(q_even, quad.values[2] + b * 16, parts);
      Int::store_activations(q_odd, quad.values[3] + b * 16, parts + 64);
    } else {
      Int::store_activations(q_even, parts, quad.values[2] + b * 16);
      Int::store_activations(q_odd, parts + 64, quad.values[3] + b * 16);
    }
  }
}

// Of 16 rows: `half` of E8M0 in the panel, bf16 of int8 tiles.
inline Vec load_scales(const float* from) { return Vec::load(from); }
inline Vec load_scales(const std::byte* from) { return Vec::load_bf16(from); }

// dots[n][w] = one block of W tiles, `tile_bytes` apart, times one of N rows' activations. I is
// Int; a template, because each kind of Int has only one of the two ways.
template <Planes P, int W, int N, class I>
inline void block_dots(const std::byte* weights, std::ptrdiff_t tile_bytes,
                       const std::byte* const (&x)[N], std::ptrdiff_t at, I (&dots)[N][W]) {
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) dots[n][w] = I::all(0);
  if constexpr (I::kPlanes) {
#pragma GCC unroll 2
    for (int plane = 0; plane < static_cast<int>(P); ++plane) {
      if (plane > 0)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n)
#pragma GCC unroll 8
          for (int w = 0; w < W; ++w) dots[n][w] = dots[n][w].times_256();
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        typename I::Bytes bytes[W];
#pragma GCC unroll 8
        for (int w = 0; w < W; ++w) bytes[w] = I::load_bytes(weights + w * tile_bytes + i * 64);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) {
          const I four = I::broadcast(x[n] + at + (plane * 2 + i / 4) * 64 + i % 4 * 4);
#pragma GCC unroll 8
          for (int w = 0; w < W; ++w) dots[n][w] = I::dot_bytes(dots[n][w], bytes[w], four);
        }
      }
    }
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      typename I::Pairs first[W], second[W];
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w)
        I::load_pairs(weights + w * tile_bytes + i * 64, first[w], second[w]);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const std::byte* four = x[n] + at + i / 4 * 64 + i % 4 * 4;
#pragma GCC unroll 8
        for (int w = 0; w < W; ++w) {
          dots[n][w] = I::dot_pairs(dots[n][w], first[w], four);
          dots[n][w] = I::dot_pairs(dots[n][w], second[w], four + 128);
        }
      }
    }
  }
}

// Tiles as bytes: where the first one's blocks and scales are and how far the next one's.
template <class Scale>
struct Panel {
  const std::byte* weights;
  std::ptrdiff_t tile_bytes;
  const Scale* scales;
  std::ptrdiff_t tile_scales;
  std::ptrdiff_t block_scales;
};

// Memory that the next panel will be decoded from, asked for a few lines with every block of this
// one: all at once would keep the loads at hand waiting.
struct Ahead {
  static constexpr int kRowLines = kPanelBlocks * 16 / 64;
  const std::byte* rows = nullptr;
  std::ptrdiff_t row_bytes = 0;
  int next = 0, end = 0, step = 0;  // lines

  void ask() {
    for (int i = 0; i < step && next < end; ++i, ++next)
      __builtin_prefetch(rows + next / kRowLines * row_bytes + next % kRowLines * 64, 0, 2);
  }
};

// Adds blocks [begin, end) of K to the sums of W tiles and N x rows. `panel` starts at `begin`.
// Sums are in memory once a block, so that the registers are free for N * W dots.
template <Planes P, int W, int N, class Scale>
inline void panel_tile(const Panel<Scale>& panel, const ActivationQuad* const* rows, int begin,
                       int end, Ahead& ahead, float (*sums)[kPanelTiles][kTileRows]) {
  constexpr bool kFromMemory = std::is_same_v<Scale, std::byte>;  // int8, in place
  constexpr std::ptrdiff_t kAheadBytes = 4096;
  const std::byte* x[N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) x[n] = reinterpret_cast<const std::byte*>(rows[n]);
  const std::byte* weights = panel.weights;
  const Scale* scales = panel.scales;
  for (int b = begin; b < end; ++b) {
    const std::ptrdiff_t quad = std::ptrdiff_t{b / 4} * static_cast<int>(sizeof(ActivationQuad));
    ahead.ask();
    if (kFromMemory && N <= 4)
#pragma GCC unroll 8
      for (int i = 0; i < W * 8; ++i)
        __builtin_prefetch(weights + i / 8 * panel.tile_bytes + kAheadBytes + i % 8 * 64, 0, 3);
    Int dots[N][W];
    block_dots<P, W, N>(weights, panel.tile_bytes, x, quad + b % 4 * 16, dots);
    Vec scale[W];
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) scale[w] = load_scales(scales + w * panel.tile_scales);
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      const auto& own = *reinterpret_cast<const ActivationQuad*>(x[n] + quad);
      const Int bias = Int::all(own.bias[b % 4]);
      const Vec factor = Vec::all(own.scale[b % 4]);
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w)
        Vec::fma((dots[n][w] + bias).to_float(), scale[w] * factor, Vec::load(sums[n][w]))
            .store(sums[n][w]);
    }
    weights += kTileBlockBytes;
    scales += panel.block_scales;
  }
}

template <Planes P, int W, class Scale, int N = 1>
inline void panel_tile_of(int num_x, const Panel<Scale>& panel, const ActivationQuad* const* rows,
                          int begin, int end, Ahead& ahead, float (*sums)[kPanelTiles][kTileRows]) {
  if (num_x == N) panel_tile<P, W, N>(panel, rows, begin, end, ahead, sums);
  else if constexpr (N < Int::kTileX)
    panel_tile_of<P, W, Scale, N + 1>(num_x, panel, rows, begin, end, ahead, sums);
}

// Blocks [begin, end) of `tiles` tiles, and x rows [first, first + num_x).
struct PanelPart {
  int tiles;
  int first, num_x;
  int begin, end;
};

// In register tiles of nearly equal height.
template <Planes P, class Scale>
inline void multiply_panel(const IntegerProduct& p, const Panel<Scale>& panel, const PanelPart& at,
                           Ahead ahead, IntegerScratch& scratch) {
  const auto [tiles, first, num_x, begin, end] = at;
  const int parts = (num_x + Int::kTileX - 1) / Int::kTileX;
  ahead.step = (ahead.end + parts * (end - begin) - 1) / (parts * (end - begin));
  for (int part = 0; part < parts; ++part) {
    const int x = num_x * part / parts, count = num_x * (part + 1) / parts - x;
    const ActivationQuad* const* rows = p.x + first + x;
    if (Int::kTileW == 2 && tiles == 2) {
      panel_tile_of<P, Int::kTileW, Scale>(count, panel, rows, begin, end, ahead, scratch.sums + x);
      continue;
    }
    for (int tile = 0; tile < tiles; ++tile) {
      const Panel<Scale> one{panel.weights + tile * panel.tile_bytes, 0,
                             panel.scales + tile * panel.tile_scales, 0, panel.block_scales};
      auto* sums = reinterpret_cast<float(*)[kPanelTiles][kTileRows]>(scratch.sums[x][tile]);
      panel_tile_of<P, 1, Scale>(count, one, rows, begin, end, ahead, sums);
    }
  }
}

// Starts and ends the sums of weight rows [row, row + 32) and x rows [first, first + num_x).
inline void clear_sums(int num_x, IntegerScratch& scratch) {
  for (int n = 0; n < num_x; ++n)
    for (auto& tile : scratch.sums[n]) Vec::zero().store(tile);
}

inline void write_sums(const IntegerProduct& p, int row, int first, int num_x,
                       const IntegerScratch& scratch) {
  const int count =
      p.count - row < kPanelTiles * kTileRows ? p.count - row : kPanelTiles * kTileRows;
  for (int n = 0; n < num_x; ++n) {
    float* y = p.y + (first + n) * p.y_stride + row;
    const float* sums = scratch.sums[n][0];
    int i = 0;
    for (; i + kTileRows <= count; i += kTileRows) Vec::load(sums + i).store(y + i);
    for (; i < count; ++i) y[i] = sums[i];
  }
}

template <Planes P>
inline void product_i8_of(const IntegerProduct& p) {
  auto& scratch = *reinterpret_cast<IntegerScratch*>(p.scratch);
  const int blocks = p.k / kBlock;
  const int all_tiles = (p.count + kTileRows - 1) / kTileRows;
  Panel<std::byte> panel{};
  panel.tile_bytes = std::ptrdiff_t{blocks} * kTileBlockBytes;
  panel.tile_scales = std::ptrdiff_t{blocks} * kTileRows * 2;
  panel.block_scales = kTileRows * 2;
  for (int tile = 0; tile < all_tiles; tile += kPanelTiles) {
    const int tiles = all_tiles - tile < kPanelTiles ? all_tiles - tile : kPanelTiles;
    for (int first = 0; first < p.num_x; first += kSumsX) {
      const int num_x = p.num_x - first < kSumsX ? p.num_x - first : kSumsX;
      // Few register tiles read the weights once from memory and then from the L2 cache.
      const int step = num_x <= 2 * Int::kTileX ? blocks : kPanelBlocks;
      clear_sums(num_x, scratch);
      for (int begin = 0; begin < blocks; begin += step) {
        const int end = blocks - begin < step ? blocks : begin + step;
        panel.weights =
            p.weights + tile * panel.tile_bytes + std::ptrdiff_t{begin} * kTileBlockBytes;
        panel.scales = p.scales + tile * panel.tile_scales + begin * panel.block_scales;
        multiply_panel<P>(p, panel, {tiles, first, num_x, begin, end}, {}, scratch);
      }
      write_sums(p, tile * kTileRows, first, num_x, scratch);
    }
  }
}

inline void product_i8(const IntegerProduct& p) {
  if (p.planes == Planes::kOne) product_i8_of<Planes::kOne>(p);
  else product_i8_of<Planes::kTwo>(p);
}

// 16 MXFP4 rows from `row` on times all N x rows, decoded in registers.
template <Planes P, int N>
inline void direct_mxfp4(const IntegerProduct& p, int row) {
  const int blocks = p.k / kBlock;
  const std::byte* weights = p.weights + std::ptrdiff_t{row} * blocks * 16;
  const auto* scales =
      reinterpret_cast<const std::uint8_t*>(p.scales) + std::ptrdiff_t{row} * blocks;
  Vec y[N];
  const ActivationQuad* x[N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
    y[n] = Vec::zero();
    x[n] = p.x[n];
  }
  for (int begin = 0; begin < blocks; begin += 4) {
    const int count = blocks - begin < 4 ? blocks - begin : 4;
    // The next tile's scales, a line with every quad; its weights are asked for row by row.
    __builtin_prefetch(scales + (kTileRows * blocks + begin * 16), 0, 2);
    Int dots[N][4];
    Vec scale[4];
    Int::mxfp4_dots<P, N>(weights + begin * 16, std::ptrdiff_t{blocks} * 16, count, x, dots);
    Int::half_scales(scales + begin, blocks, count, scale);
    for (int b = 0; b < count; ++b)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
        y[n] = Vec::fma((dots[n][b] + Int::all(x[n]->bias[b])).to_float(),
                        scale[b] * Vec::all(x[n]->scale[b]), y[n]);
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) ++x[n];
  }
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) y[n].store(p.y + n * p.y_stride + row);
}

template <Planes P, int N = 1>
inline void direct_mxfp4_of(const IntegerProduct& p) {
  if (p.num_x == N) {
    for (int row = 0; row < p.count; row += kTileRows) direct_mxfp4<P, N>(p, row);
  } else if constexpr (N < Int::kDirectRows) {
    direct_mxfp4_of<P, N + 1>(p);
  }
}

// 16 MXFP4 rows from `row` on times all N x rows, each block decoded into bytes just before its
// products: reading, decoding and multiplying overlap.
template <Planes P, int N>
inline void blockwise_mxfp4(const IntegerProduct& p, int row) {
  const int blocks = p.k / kBlock;
  const std::ptrdiff_t stride = std::ptrdiff_t{blocks} * 16;
  const std::byte* weights = p.weights + row * stride;
  const auto* scales =
      reinterpret_cast<const std::uint8_t*>(p.scales) + std::ptrdiff_t{row} * blocks;
  alignas(64) std::byte bytes[kTileBlockBytes];
  Vec y[N];
  const std::byte* x[N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
    y[n] = Vec::zero();
    x[n] = reinterpret_cast<const std::byte*>(p.x[n]);
  }
  std::ptrdiff_t quad = 0;
  for (int begin = 0; begin < blocks; begin += 4, quad += sizeof(ActivationQuad)) {
    const int count = blocks - begin < 4 ? blocks - begin : 4;
    __builtin_prefetch(scales + (kTileRows * blocks + begin * 16), 0, 2);
    Vec scale[4];
    Int::half_scales(scales + begin, blocks, count, scale);
    for (int b = 0; b < count; ++b) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        __builtin_prefetch(weights + (kTileRows + b * 4 + i) * stride + begin * 16, 0, 2);
      Int::mxfp4_tile(weights + (begin + b) * 16, stride, 1, bytes);
      Int dots[N][1];
      block_dots<P, 1, N>(bytes, 0, x, quad + b * 16, dots);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const auto& own = *reinterpret_cast<const ActivationQuad*>(x[n] + quad);
        y[n] = Vec::fma((dots[n][0] + Int::all(own.bias[b])).to_float(),
                        scale[b] * Vec::all(own.scale[b]), y[n]);
      }
    }
  }
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) y[n].store(p.y + n * p.y_stride + row);
}

template <Planes P, int N = 1>
inline void blockwise_mxfp4_of(const IntegerProduct& p) {
  if (p.num_x == N) {
    for (int row = 0; row < p.count; row += kTileRows) blockwise_mxfp4<P, N>(p, row);
  } else if constexpr (N < Int::kTileX) {
    blockwise_mxfp4_of<P, N + 1>(p);
  }
}

// Decodes blocks [begin, end) of 16 rows into a tile of the panel.
inline void decode_tile(const IntegerProduct& p, int row, int begin, int end,
                        std::byte (*bytes)[kTileBlockBytes], float (*scales)[kTileRows]) {
  const int blocks = p.k / kBlock;
  const std::ptrdiff_t first = std::ptrdiff_t{row} * blocks + begin;
  const auto* exponents = reinterpret_cast<const std::uint8_t*>(p.scales) + first;
  Int::mxfp4_tile(p.weights + first * 16, std::ptrdiff_t{blocks} * 16, end - begin, bytes[0]);
  for (int b = begin; b < end; b += 4) {
    const int count = end - b < 4 ? end - b : 4;
    Vec scale[4];
    Int::half_scales(exponents + (b - begin), blocks, count, scale);
    for (int i = 0; i < count; ++i) scale[i].store(scales[b - begin + i]);
  }
}

inline Ahead ahead_of(const IntegerProduct& p, int row, int block) {
  Ahead ahead;
  ahead.row_bytes = std::ptrdiff_t{p.k} / 2;
  ahead.rows = p.weights + row * ahead.row_bytes + block * 16;
  ahead.end = kPanelTiles * kTileRows * Ahead::kRowLines;
  return ahead;
}

template <Planes P>
inline void panel_mxfp4(const IntegerProduct& p) {
  auto& scratch = *reinterpret_cast<IntegerScratch*>(p.scratch);
  const int blocks = p.k / kBlock;
  const Panel<float> panel{scratch.panel[0][0], sizeof scratch.panel[0], scratch.scales[0][0],
                           kPanelBlocks * kTileRows, kTileRows};
  for (int row = 0; row < p.count; row += kPanelTiles * kTileRows) {
    const int left = (p.count - row) / kTileRows;
    const int tiles = left < kPanelTiles ? left : kPanelTiles;
    for (int first = 0; first < p.num_x; first += kSumsX) {
      const int num_x = p.num_x - first < kSumsX ? p.num_x - first : kSumsX;
      clear_sums(num_x, scratch);
      for (int begin = 0; begin < blocks; begin += kPanelBlocks) {
        const int end = blocks - begin < kPanelBlocks ? blocks : begin + kPanelBlocks;
        for (int tile = 0; tile < tiles; ++tile)
          decode_tile(p, row + tile * kTileRows, begin, end, scratch.panel[tile],
                      scratch.scales[tile]);
        const Ahead ahead =
            end == blocks ? ahead_of(p, row + kPanelTiles * kTileRows, 0) : ahead_of(p, row, end);
        multiply_panel<P>(p, panel, {tiles, first, num_x, begin, end}, ahead, scratch);
      }
      write_sums(p, row, first, num_x, scratch);
    }
  }
}

template <Planes P>
inline void product_mxfp4_of(const IntegerProduct& p) {
  if (p.num_x <= Int::kDirectRows) direct_mxfp4_of<P>(p);
  else if (p.num_x <= Int::kTileX) blockwise_mxfp4_of<P>(p);
  else panel_mxfp4<P>(p);
}

inline void product_mxfp4(const IntegerProduct& p) {
  if (p.planes == Planes::kOne) product_mxfp4_of<Planes::kOne>(p);
  else product_mxfp4_of<Planes::kTwo>(p);
}

}  // namespace
}  // namespace strata::kernels::cpu
