// Primitives: the CPU backend's inner loops, one table of functions per instruction set, all made
// from the same blocked source (*.inc.h) over the vectors of simd_*.h and integers_*.h. Pure
// functions on the caller's memory; any thread.
//
// One order of every sum, for every row count, tile and instruction set, so that all of them give
// the same bits. Activations that feed products are kept in "paired order": each block of 32 values
// as its 16 even ones, then its 16 odd ones, which is how bf16 pairs and MXFP4 nibbles come apart
// without a shuffle.
//
// bf16 weights: an output is the fixed tree over 16 lanes, and lane l adds, block of 32 after block
// of 32, elements 2l and 2l+1, by fused multiply-adds.
// MXFP4 and int8 weights: activations are quantised per block of 32; the dot product of a block is
// exact in integers, whatever its order, and an output adds float(dot) * (weight scale * activation
// scale) block after block by fused multiply-adds.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/isa.h"

namespace strata::kernels::cpu {

inline constexpr int kBlock = 32;  // every K is a multiple

constexpr int paired_index(int i) { return i / kBlock * kBlock + i % 2 * 16 + i % kBlock / 2; }

// y[r][o] = dot(weights[o], x[r]) for o < count, r < num_x.
struct Product {
  const std::byte* weights = nullptr;  // bf16 [count, k]
  int k = 0;
  int count = 0;
  const float* const* x = nullptr;  // [num_x] rows of [k] in paired order
  int num_x = 0;
  float* y = nullptr;  // [num_x] rows of [count], y_stride floats apart
  std::ptrdiff_t y_stride = 0;
  std::byte* scratch = nullptr;  // kProductScratch bytes, 64-byte aligned
};

// Blocked products: groups of weight rows whose 16-lane partial sums stay in the L2 cache for a
// block of x rows, and a panel of decoded weights that stays in the L1 cache.
inline constexpr int kGroupRows = 64;
inline constexpr int kPanelRows = 16;
inline constexpr int kBlockX = 120;
inline constexpr std::size_t kProductScratch =
    std::size_t{kGroupRows} * kBlockX * 64 + std::size_t{kPanelRows} * 512 * 4;

// Quantised activations of four blocks: x = scale * q, where |q| <= 32639, or 127 on the fast path.
// The bytes of `values` are the instruction set's own: q as signed bytes of 256 * high + low, or as
// 16-bit pairs. `bias` is -128 * the sum of a block's q: weights are multiplied as unsigned bytes
// that are 128 too large. A row is [quads_of(k)] of these; blocks behind its end are zero.
struct ActivationQuad {
  std::byte values[4][64];
  float scale[4];
  std::int32_t bias[4];
};
inline constexpr int kQuad = 4 * kBlock;
constexpr int quads_of(int k) { return (k + kQuad - 1) / kQuad; }

// The bytes of q: one is the fast option, two the default.
enum class Planes : std::uint8_t { kOne = 1, kTwo = 2 };

// Blocks [first_block, first_block + count / 32) of a row.
struct QuantiseRow {
  const float* x = nullptr;  // [count] in paired order
  int count = 0;             // a multiple of 32
  int first_block = 0;
  ActivationQuad* out = nullptr;  // the row's quads
  Planes planes = Planes::kTwo;
};

// Rows of int8 weights that lie together. The bytes of block b of tile t, weight + 128 each, are
// [t][b][parity][4][16 rows][4]: elements parity + 2 * (4 * i + 0..3) of the block. Scales are bf16
// [t][b][16 rows]. Rows behind the matrix's end have scale 0.
inline constexpr int kTileRows = 16;
inline constexpr int kTileBlockBytes = kTileRows * kBlock;
constexpr int i8_index(int row, int element) {  // within a tile's block
  const int pair = element / 2;
  return (element % 2 * 4 + pair / 4) * 64 + row * 4 + pair % 4;
}

// The same product with quantised activations.
struct IntegerProduct {
  const std::byte* weights = nullptr;  // MXFP4 [count, k/32, 16], or tiles of int8
  const std::byte* scales = nullptr;   // E8M0 [count, k/32], or bf16 of the tiles
  int k = 0;
  int count = 0;                             // MXFP4: a multiple of 16
  const ActivationQuad* const* x = nullptr;  // [num_x] rows of quads_of(k)
  int num_x = 0;
  Planes planes = Planes::kTwo;
  float* y = nullptr;
  std::ptrdiff_t y_stride = 0;
  std::byte* scratch = nullptr;
};

// out = paired order of norm(x + a + b) * weight; x + a + b is stored to x_out if given.
struct NormRow {
  const float* x = nullptr;        // [n]
  const float* delta_a = nullptr;  // [n] or nullptr
  const float* delta_b = nullptr;  // [n] or nullptr
  float* x_out = nullptr;          // [n] or nullptr; may be x
  const float* weight = nullptr;   // [n]
  float eps = 0.0F;
  int n = 0;             // a multiple of 32
  float* out = nullptr;  // [n]
};

// out[i] = clamped SwiGLU of gate_up[2i] and gate_up[2i+1], for `count` outputs (a multiple of 32).
struct SwigluRow {
  const float* gate_up = nullptr;   // [2 * count]
  const std::byte* bias = nullptr;  // bf16 [2 * count]
  int count = 0;
  float limit = 0.0F;
  float alpha = 0.0F;
  float* out = nullptr;  // [count], paired order
};

inline constexpr int kSplitKeys = 256;  // attention: keys of a split, counted from key 0
inline constexpr int kMaxHeadDim = 128;
inline constexpr int kMaxGroupHeads = 64;  // query heads that share a KV head

// The query heads of one row that share a KV head, over keys [first_key, end_key).
struct AttendRow {
  const float* q = nullptr;  // [heads, head_dim], rotated
  int heads = 0;
  int head_dim = 0;                         // 32, 64 or 128
  const std::byte* const* pages = nullptr;  // keys [page_tokens, head_dim] of logical pages
  int first_page = 0;                       // logical page of pages[0]
  int page_tokens = 0;
  std::ptrdiff_t value_offset = 0;  // bytes from a key to its value
  int first_key = 0;
  int end_key = 0;
  const float* sinks = nullptr;  // [heads]
  float scale = 0.0F;
  float* out = nullptr;      // [heads, head_dim], paired order
  float* scratch = nullptr;  // attend_scratch(heads) floats
};

// Scores of a split, and the sums of the splits so far and of this one.
constexpr std::size_t attend_scratch(int heads) {
  return static_cast<std::size_t>(heads) * (kSplitKeys + 2 * kMaxHeadDim);
}

struct Primitives {
  void (*product_bf16)(const Product&);
  void (*product_mxfp4)(const IntegerProduct&);
  void (*product_i8)(const IntegerProduct&);
  void (*quantise)(const QuantiseRow&);
  void (*norm)(const NormRow&);
  void (*swiglu)(const SwigluRow&);
  void (*attend_f32)(const AttendRow&);   // KV in float32
  void (*attend_bf16)(const AttendRow&);  // KV in bfloat16
  // Multiply-adds on registers alone, so many a round; for measuring.
  float (*peak_floats)(int rounds);
  float (*peak_integers)(int rounds, Planes planes);
  double floats_per_round, integers_per_round;
};

const Primitives& primitives_of(CpuIsa isa);
const Primitives& scalar_primitives();
const Primitives& avx2_primitives();
const Primitives& avxvnni_primitives();
const Primitives& avx512_primitives();
const Primitives& avx512vnni_primitives();

}  // namespace strata::kernels::cpu
