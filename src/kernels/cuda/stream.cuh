// Matrix times up to eight rows of a step on tensor cores, for cards from compute capability 8.0
// on: the products of decoding, bound by reading the weights. Inputs are rounded to bfloat16, sums
// are float32.
//
// A tile is 16 rows of a matrix, as eight pairs (first, second). kSplit warps of a block share a
// tile and cut K between them. Each warp copies its part through a ring of stages in shared memory
// of its own, 128 bytes of every row at a time, several stages ahead: whole lines of memory, no
// registers, no barrier of the block. Which K values an instruction's slots hold is free as long as
// weights and inputs agree, so operands are 16 bytes of a row as they are. The rows of the step are
// the instruction's columns; they lie in shared memory as bfloat16 in the order the weights are
// decoded in. Sums of the warps are added in their order, so a result depends on neither batch nor
// chunking.
//
// Weights that do not depend on the launch before are read before it has ended (start_reading).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/warp.cuh"

namespace strata::kernels::cuda {

inline constexpr int kStreamColumns = 8;  // rows of a step
inline constexpr int kStreamRows = 16;    // of a matrix: a tile
inline constexpr int kStreamPairs = kStreamRows / 2;
// Blocks of a multiprocessor, by the stages of their rings: what its shared memory holds.
__host__ __device__ constexpr int stream_blocks(int stages) { return stages <= 3 ? 3 : 2; }
inline constexpr int kStageRowBytes = 128;
inline constexpr int kStageBytes = kStreamRows * kStageRowBytes;

__device__ inline void copy_piece(std::uint32_t to, const void* from, bool there) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(there ? 16 : 0));
#endif
}
__device__ inline void end_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;");
#endif
}
// Until at most kOpen groups of the thread's copies are not there.
template <int kOpen>
__device__ void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kOpen));
#endif
}

// Rows of a matrix as pieces of 16 bytes: kValues consecutive weights, decoded eight at a time into
// bfloat16 pairs. kPermuted: pairs are (0, 4), (1, 5), (2, 6), (3, 7) of the eight instead of
// neighbours.
struct Bf16Chunks {
  static constexpr int kValues = 8;
  static constexpr bool kPermuted = false;
  const std::uint16_t* data;
  int k;

  __device__ const std::byte* data_bytes() const {
    return reinterpret_cast<const std::byte*>(data);
  }
  __device__ std::uint32_t scale(int /*row*/, int /*piece*/) const { return 0; }
  __device__ static bool is_wide(std::uint32_t /*scale*/) { return false; }
  template <bool kWide>
  __device__ static uint4 decode(const uint4& piece, std::uint32_t /*scale*/, int /*eight*/) {
    return piece;
  }
};

struct Int8Chunks {
  static constexpr int kValues = 16;
  static constexpr bool kPermuted = false;
  const std::int8_t* data;
  const std::uint16_t* scales;
  int k;

  __device__ const std::byte* data_bytes() const {
    return reinterpret_cast<const std::byte*>(data);
  }
  __device__ std::uint32_t scale(int row, int piece) const {
    return __ldg(scales + static_cast<std::size_t>(row) * (k / 32) + piece / 2) * 0x10001U;
  }
  __device__ static bool is_wide(std::uint32_t /*scale*/) { return false; }
  template <bool kWide>
  __device__ static uint4 decode(const uint4& piece, std::uint32_t scale, int eight) {
    const std::uint32_t low = eight == 0 ? piece.x : piece.z;
    const std::uint32_t high = eight == 0 ? piece.y : piece.w;
    return {scaled_bf16(int8_pair(low, 0x4140), scale), scaled_bf16(int8_pair(low, 0x4342), scale),
            scaled_bf16(int8_pair(high, 0x4140), scale),
            scaled_bf16(int8_pair(high, 0x4342), scale)};
  }
};

struct Mxfp4Chunks {
  static constexpr int kValues = 32;
  static constexpr bool kPermuted = true;
  const std::uint8_t* blocks;
  const std::uint8_t* scales;
  int k;

  __device__ const std::byte* data_bytes() const {
    return reinterpret_cast<const std::byte*>(blocks);
  }
  __device__ std::uint32_t scale(int row, int piece) const {
    return __ldg(scales + static_cast<std::size_t>(row) * (k / 32) + piece);
  }
  __device__ static bool is_wide(std::uint32_t scale) { return is_wide_scale(scale); }
  template <bool kWide>
  __device__ static uint4 decode(const uint4& piece, std::uint32_t scale, int eight) {
    const std::uint32_t words[4] = {piece.x, piece.y, piece.z, piece.w};
    const uint4 pairs = scaled_bf16(tiny_e2m1_pairs(words[eight]), tiny_e2m1_factor(scale));
    return kWide ? scaled_bf16(pairs, wide_scale_factor(scale)) : pairs;
  }
};

template <class Chunks>
__device__ Chunks chunks_of(const Matrix& matrix);
template <>
__device__ inline Bf16Chunks chunks_of(const Matrix& matrix) {
  return {static_cast<const std::uint16_t*>(matrix.data), matrix.cols};
}
template <>
__device__ inline Int8Chunks chunks_of(const Matrix& matrix) {
  return {static_cast<const std::int8_t*>(matrix.data), matrix.scales, matrix.cols};
}

// Eight inputs as bfloat16 pairs in the order of the weights.
template <bool kPermuted>
__device__ uint4 input_pairs(const float (&v)[8]) {
  if constexpr (kPermuted)
    return {bf16_pair(v[0], v[4]), bf16_pair(v[1], v[5]), bf16_pair(v[2], v[6]),
            bf16_pair(v[3], v[7])};
  else
    return {bf16_pair(v[0], v[1]), bf16_pair(v[2], v[3]), bf16_pair(v[4], v[5]),
            bf16_pair(v[6], v[7])};
}

// Inputs of a block in shared memory: a row's K values in bfloat16, rows 16 bytes apart from a
// multiple of 128, so that lanes of different rows meet in different banks.
__host__ __device__ constexpr int input_pitch(int k) { return (k * 2 + 127) / 128 * 128 + 16; }
constexpr std::size_t input_bytes(int rows, int k) {
  return static_cast<std::size_t>(rows) * static_cast<std::size_t>(input_pitch(k));
}

// The rows of a tile: pair p is rows first + p * pair and first + p * pair + half; rows from `rows`
// on are not there.
struct StreamTile {
  int first;
  int pair;
  int half;
  int rows;

  // Row r of the operand: the pairs' first rows, then their second ones.
  __device__ int row(int r) const {
    return first + r % kStreamPairs * pair + r / kStreamPairs * half;
  }
};

// One warp's part of a tile's products: stages s, s + kSplit, ... of the rows for s = its place
// among the kSplit warps. A stage is eight pieces of every row; piece p of row r lies at place
// p ^ (r % 2 * 4), so that operands are read without bank conflicts. Rows that are not there are
// zeros.
template <class Chunks, int kSplit, int kStages>
class WarpStream {
 public:
  // `rings` is the block's, kStages * kStageBytes for each warp.
  __device__ WarpStream(const Chunks& weights, std::byte* rings, const StreamTile& tile)
      : weights_(weights),
        ring_(rings + warp_id() * kStages * kStageBytes),
        pieces_(weights.k / Chunks::kValues),
        source_(weights.data_bytes() + tile.row(copied_row(0)) * row_bytes()),
        four_rows_(4 * tile.pair),
        half_(tile.half),
        scale_rows_{min(tile.row(lane_id() / 4), tile.rows - 1),
                    min(tile.row(lane_id() / 4 + kStreamPairs), tile.rows - 1)} {
#pragma unroll
    for (int i = 0; i < kCopies; ++i)
      if (tile.row(copied_row(i)) < tile.rows) rows_there_ |= 1U << i;
  }

  __device__ void start_reading() {
#pragma unroll
    for (int slot = 0; slot < kStages; ++slot) copy(first_piece(slot), slot);
    load_scales(first_piece(0), scales_);
  }

  // sums += products with the columns at `inputs`; those behind `columns` count as zeros.
  __device__ void multiply(const std::byte* inputs, int columns, float (&sums)[4]) {
    const int column = lane_id() / 4;
    const std::byte* input = column < columns ? inputs + column * input_pitch(weights_.k) : nullptr;
    int slot = 0;
    for (int stage = 0; first_piece(stage) < pieces_; ++stage) {
      wait_for_copies<kStages - 1>();
      __syncwarp();
      std::uint32_t next[2][2];
      load_scales(first_piece(stage + 1), next);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int place = half * 4 + lane_id() % 4;
        const int piece = first_piece(stage) + place;
        const uint4 a0 = piece_at(slot, lane_id() / 4, place);
        const uint4 a1 = piece_at(slot, lane_id() / 4 + kStreamPairs, place);
        const std::byte* b =
            input != nullptr && piece < pieces_ ? input + piece * Chunks::kValues * 2 : nullptr;
        if (__any_sync(0xffffffffU,
                       Chunks::is_wide(scales_[half][0]) || Chunks::is_wide(scales_[half][1])))
          multiply_pieces<true>(a0, a1, scales_[half], b, sums);
        else multiply_pieces<false>(a0, a1, scales_[half], b, sums);
      }
      __syncwarp();
      copy(first_piece(stage + kStages), slot);
      slot = slot + 1 == kStages ? 0 : slot + 1;
#pragma unroll
      for (int i = 0; i < 4; ++i) scales_[i / 2][i % 2] = next[i / 2][i % 2];
    }
    wait_for_copies<0>();  // the zeros behind the end: the ring may be used again
  }

 private:
  // A piece of both rows of a pair with the same K values of the lane's column, null: zeros.
  template <bool kWide>
  __device__ static void multiply_pieces(const uint4& a0, const uint4& a1,
                                         const std::uint32_t (&scales)[2], const std::byte* input,
                                         float (&sums)[4]) {
#pragma unroll
    for (int eight = 0; eight < Chunks::kValues / 8; ++eight) {
      uint4 b{0, 0, 0, 0};
      if (input != nullptr) b = *reinterpret_cast<const uint4*>(input + eight * 16);
      const uint4 first = Chunks::template decode<kWide>(a0, scales[0], eight);
      const uint4 second = Chunks::template decode<kWide>(a1, scales[1], eight);
      mma_bf16(sums, first.x, second.x, first.y, second.y, b.x, b.y);
      mma_bf16(sums, first.z, second.z, first.w, second.w, b.z, b.w);
    }
  }

  static constexpr int kPieces = kStageRowBytes / 16;  // of a row in a stage
  static constexpr int kCopies = kStreamRows * kPieces / kWarp;
  static_assert(kCopies == 4 && kWarp / kPieces == 4,
                "a copy is four rows, two are the first half");

  __device__ std::ptrdiff_t row_bytes() const { return std::ptrdiff_t{pieces_} * 16; }
  __device__ static int copied_row(int i) { return i * (kWarp / kPieces) + lane_id() / kPieces; }
  __device__ static int first_piece(int stage) {
    return (warp_id() % kSplit + stage * kSplit) * kPieces;
  }
  __device__ static int place_of(int row, int piece) {
    return row * kStageRowBytes + (piece ^ (row % 2 * 4)) * 16;
  }

  // Pieces behind the end are zeros.
  __device__ void copy(int first, int slot) {
    const int piece = lane_id() % kPieces;
    const auto to =
        static_cast<std::uint32_t>(__cvta_generic_to_shared(ring_ + slot * kStageBytes));
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const bool there = first + piece < pieces_ && (rows_there_ >> i & 1U) != 0;
      const std::ptrdiff_t offset =
          (i % 2 * four_rows_ + i / 2 * half_) * row_bytes() + (first + piece) * 16;
      copy_piece(to + place_of(copied_row(i), piece),
                 there ? source_ + offset : weights_.data_bytes(), there);
    }
    end_copies();
  }
  __device__ uint4 piece_at(int slot, int row, int piece) const {
    return *reinterpret_cast<const uint4*>(ring_ + slot * kStageBytes + place_of(row, piece));
  }
  __device__ void load_scales(int first, std::uint32_t (&scales)[2][2]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int piece = first + i / 2 * 4 + lane_id() % 4;
      scales[i / 2][i % 2] = piece < pieces_ ? weights_.scale(scale_rows_[i % 2], piece) : 0;
    }
  }

  const Chunks weights_;
  std::byte* const ring_;
  const int pieces_;               // of a row
  const std::byte* const source_;  // the lane's first row
  const int four_rows_;            // from it to its second one, in rows
  const int half_;
  unsigned rows_there_ = 0;  // bits of the lane's copies
  const int scale_rows_[2];
  std::uint32_t scales_[2][2];  // of the next stage: [four pieces][row]
};

// Dynamic shared memory of a block: the rings, then the inputs.
template <int kStages, int kWarps = kBlockWarps>
__host__ __device__ constexpr std::size_t ring_bytes() {
  return std::size_t{kWarps} * kStages * kStageBytes;
}

// The sums of a block's warps, [warp][row of the tile][column].
template <int kWarps>
using StreamSums = float[kWarps][kStreamRows][kStreamColumns];

template <int kWarps>
__device__ void put_sums(StreamSums<kWarps>& all, const float (&sums)[4]) {
  float(*mine)[kStreamColumns] = all[warp_id()];
  const int row = lane_id() / 4;
  const int column = lane_id() % 4 * 2;
  mine[row][column] = sums[0];
  mine[row][column + 1] = sums[1];
  mine[row + 8][column] = sums[2];
  mine[row + 8][column + 1] = sums[3];
}

// Calls `store(tile, pair, column, first, second)` for each result of a block, by threads of their
// own: tile counts the block's kBlockWarps / kSplit tiles.
template <int kSplit, class Store>
__device__ void each_stream_result(const StreamSums<kBlockWarps>& all, int columns, Store&& store) {
  constexpr int kTiles = kBlockWarps / kSplit;
  for (int i = threadIdx.x; i < kTiles * kStreamPairs * kStreamColumns; i += kBlockThreads) {
    const int column = i % kStreamColumns;
    const int pair = i / kStreamColumns % kStreamPairs;
    const int tile = i / (kStreamColumns * kStreamPairs);
    if (column >= columns) continue;
    float first = 0.0F;
    float second = 0.0F;
#pragma unroll
    for (int s = 0; s < kSplit; ++s) {
      first += all[tile * kSplit + s][pair][column];
      second += all[tile * kSplit + s][pair + kStreamPairs][column];
    }
    store(tile, pair, column, first, second);
  }
}

// Fills the inputs of a block: column c is the K values at row(c), as bfloat16. A thread has
// kAtOnce reads in flight.
template <bool kPermuted, int kAtOnce = 4, class Row>
__device__ void stage_inputs(std::byte* inputs, int columns, int k, Row&& row) {
  const int eights = k / 8;  // of a column
  const int stride = static_cast<int>(blockDim.x);
  for (int base = static_cast<int>(threadIdx.x); base < columns * eights;
       base += kAtOnce * stride) {
    float values[kAtOnce][8];
    std::byte* to[kAtOnce];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int i = base + u * stride;
      to[u] = nullptr;
      if (i >= columns * eights) continue;
      const int column = i / eights;
      const int at = i % eights * 8;
      to[u] = inputs + column * input_pitch(k) + at * 2;
      load8(row(column) + at, values[u]);
    }
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u)
      if (to[u] != nullptr) *reinterpret_cast<uint4*>(to[u]) = input_pairs<kPermuted>(values[u]);
  }
}

// The same of rows that are normed on the way, by a block of kBlockThreads: column c is (x +
// deltas)
// * weight of row index(c); its factor 1 / sqrt(mean square + eps), which the results are to be
// multiplied by, goes to factors[c].
template <class Index>
__device__ void stage_normed_inputs(std::byte* inputs, float* factors, int columns,
                                    const NormArgs& norm, Index&& index) {
  __shared__ float scratch[kBlockWarps];
  constexpr int kStride = kBlockThreads * 8;
  constexpr int kAtOnce = 2;
  for (int c = 0; c < columns; ++c) {
    const std::size_t first = static_cast<std::size_t>(max(index(c), 0)) * norm.hidden;
    std::byte* to = inputs + c * input_pitch(norm.hidden);
    float squares = 0.0F;
    for (int base = threadIdx.x * 8; base < norm.hidden; base += kAtOnce * kStride) {
      float values[kAtOnce][8];
      float weight[kAtOnce][8];
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        if (base + u * kStride >= norm.hidden) continue;
        load_with_deltas(norm, first + base + u * kStride, values[u]);
        load8(norm.weight + base + u * kStride, weight[u]);
      }
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        if (base + u * kStride >= norm.hidden) continue;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          squares = fmaf(values[u][j], values[u][j], squares);
          values[u][j] *= weight[u][j];
        }
        *reinterpret_cast<uint4*>(to + (base + u * kStride) * 2) = input_pairs<false>(values[u]);
      }
    }
    const float mean = block_sum<kBlockWarps>(squares, scratch) / static_cast<float>(norm.hidden);
    if (threadIdx.x == 0) factors[c] = 1.0F / sqrtf(mean + norm.eps);
    __syncthreads();
  }
}

}  // namespace strata::kernels::cuda
