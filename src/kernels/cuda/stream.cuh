// A bfloat16 matrix times up to eight rows of a step on tensor cores, for cards from compute
// capability 8.0 on: the products of decoding, bound by reading the weights. Inputs are rounded to
// bfloat16, sums are float32.
//
// A tile is 16 rows of a matrix, as eight pairs (first, second). kSplit warps of a block share a
// tile and cut K between them. Each warp copies its part through a ring of stages in shared memory
// of its own, 128 bytes of every row at a time, several stages ahead: whole lines of memory, no
// registers, no barrier of the block. Which K values an instruction's slots hold is free as long as
// weights and inputs agree, so operands are 16 bytes of a row as they are. The rows of the step are
// the instruction's columns; they lie in shared memory as bfloat16. Sums of the warps are added in
// their order, so a result depends on neither batch nor chunking.
//
// Weights that do not depend on the launch before are read before it has ended (start_reading).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/products.cuh"
#include "kernels/cuda/warp.cuh"

namespace strata::kernels::cuda {

inline constexpr int kStreamColumns = 8;  // rows of a step
inline constexpr int kStreamRows = 16;    // of a matrix: a tile
inline constexpr int kStreamPairs = kStreamRows / 2;
// Blocks of a multiprocessor, by the stages of their rings: what its shared memory holds.
__host__ __device__ constexpr int stream_blocks(int stages) {
  return stages <= 2 ? 4 : (stages == 3 ? 3 : 2);
}
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

// Eight inputs as pairs of operands.
__device__ inline uint4 input_pairs(const float (&v)[8]) {
  return {operand_pair(v[0], v[1]), operand_pair(v[2], v[3]), operand_pair(v[4], v[5]),
          operand_pair(v[6], v[7])};
}

// Inputs of a block in shared memory: a row's K values in bfloat16, then zeros up to the end of the
// last stage. Rows are 16 bytes apart from a multiple of 128, so that lanes of different rows meet
// in different banks.
inline constexpr int kStageValues = kStageRowBytes / 16 * kLaneValues;
__host__ __device__ constexpr int padded_values(int k) {
  return (k + kStageValues - 1) / kStageValues * kStageValues;
}
__host__ __device__ constexpr int input_pitch(int k) { return padded_values(k) * 2 + 16; }
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
// p ^ (r % 2 * 4), so that operands are read without bank conflicts. Rows that are not there repeat
// the last one.
template <int kSplit, int kStages>
class WarpStream {
 public:
  // `rings` is the block's, kStages * kStageBytes for each warp.
  __device__ WarpStream(const Bf16Weights& weights, std::byte* rings, const StreamTile& tile)
      : pieces_left_(weights.k / kLaneValues - kPieces * (warp_id() % kSplit)),
        pitch_(input_pitch(weights.k)),
        ring_(rings + warp_id() * kStages * kStageBytes) {
    const std::ptrdiff_t row_bytes = std::ptrdiff_t{weights.k / kLaneValues} * 16;
    const auto row = [&tile](int r) { return min(tile.row(r), tile.rows - 1); };
    const int piece = kPieces * (warp_id() % kSplit);
    const int copied = lane_id() / kPieces;  // row of the lane's first copy
    source_ = reinterpret_cast<const std::byte*>(weights.data) + row(copied) * row_bytes +
              (piece + lane_id() % kPieces) * 16;
#pragma unroll
    for (int i = 1; i < kCopies; ++i)
      copy_offsets_[i - 1] =
          (row(copied + i * kCopiedRows) - row(copied)) * static_cast<int>(row_bytes);
  }

  __device__ void start_reading() {
    copies_left_ = pieces_left_ - lane_id() % kPieces;
#pragma unroll
    for (int slot = 0; slot < kStages; ++slot) copy(ring_ + slot * kStageBytes);
  }

  // sums += products with the columns at `inputs`; results of those from `columns` on have no
  // meaning.
  __device__ void multiply(const std::byte* inputs, int columns, float (&sums)[4]) {
    const std::byte* input = inputs + min(lane_id() / 4, columns - 1) * pitch_ +
                             (kPieces * (warp_id() % kSplit) + lane_id() % 4) * (kLaneValues * 2);
    const int place = place_of(lane_id() / 4, lane_id() % 4);
    float more[4] = {};
    int slot = 0;
    for (int left = pieces_left_; left > 0; left -= kPieces * kSplit) {
      wait_for_copies<kStages - 1>();
      __syncwarp();
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const std::byte* at = ring_ + slot * kStageBytes + (place ^ (half * 64));
        const uint4 a0 = *reinterpret_cast<const uint4*>(at);
        const uint4 a1 = *reinterpret_cast<const uint4*>(at + kStreamPairs * kStageRowBytes);
        const std::byte* b = input + half * 4 * kLaneValues * 2;
        multiply_pieces(a0, a1, b, sums, more);
      }
      __syncwarp();
      copy(ring_ + slot * kStageBytes);
      slot = slot + 1 == kStages ? 0 : slot + 1;
      input += kPieces * kSplit * kLaneValues * 2;
    }
    wait_for_copies<0>();  // the zeros behind the end: the ring may be used again
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] += more[i];
  }

 private:
  static constexpr int kPieces = kStageRowBytes / 16;        // of a row in a stage
  static constexpr int kCopiedRows = kWarp / kPieces;        // by one copy of all lanes
  static constexpr int kCopies = kStreamRows / kCopiedRows;  // of a stage
  static_assert(kCopiedRows % 2 == 0, "a lane's rows lie at the same places");

  // A piece of both rows of a pair with the same K values of the lane's column.
  __device__ static void multiply_pieces(const uint4& a0, const uint4& a1, const std::byte* input,
                                         float (&sums)[4], float (&more)[4]) {
    const uint4 b = *reinterpret_cast<const uint4*>(input);
    mma(sums, a0.x, a1.x, a0.y, a1.y, b.x, b.y);
    mma(more, a0.z, a1.z, a0.w, a1.w, b.z, b.w);
  }

  __device__ static int place_of(int row, int piece) {
    return row * kStageRowBytes + (piece ^ (row % 2 * 4)) * 16;
  }

  // The next stage; pieces behind the end are zeros.
  __device__ void copy(std::byte* stage) {
    const bool there = copies_left_ > 0;
    const auto to = static_cast<std::uint32_t>(__cvta_generic_to_shared(stage)) +
                    place_of(lane_id() / kPieces, lane_id() % kPieces);
    const std::byte* from = there ? source_ : source_ - kStageRowBytes * kSplit;
    copy_piece(to, from, there);
#pragma unroll
    for (int i = 1; i < kCopies; ++i)
      copy_piece(to + i * kCopiedRows * kStageRowBytes, from + copy_offsets_[i - 1], there);
    end_copies();
    source_ += kStageRowBytes * kSplit;
    copies_left_ -= kPieces * kSplit;
  }

  const int pieces_left_;  // of a row, from the warp's first stage on
  const int pitch_;        // of the inputs
  std::byte* const ring_;
  const std::byte* source_;        // of the lane's first copy of the next stage
  int copy_offsets_[kCopies - 1];  // from it to the lane's others, bytes
  int copies_left_ = 0;            // pieces from the lane's on
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

// Zeros behind a column's K values.
__device__ inline void pad_inputs(std::byte* inputs, int columns, int k) {
  const int pad = padded_values(k) - k;
  for (int c = 0; c < columns; ++c)
    for (int i = static_cast<int>(threadIdx.x) * 8; i < pad; i += static_cast<int>(blockDim.x) * 8)
      *reinterpret_cast<uint4*>(inputs + c * input_pitch(k) + (k + i) * 2) = uint4{0, 0, 0, 0};
}

// Fills the inputs of a block: column c is the K values at row(c), as bfloat16. A thread has two
// reads of kColumns columns each in flight.
template <int kColumns = 2, class Row>
__device__ void stage_inputs(std::byte* inputs, int columns, int k, Row&& row) {
  const int begin = static_cast<int>(threadIdx.x) * 8;
  const int stride = static_cast<int>(blockDim.x) * 8;
  for (int c = 0; c < columns; c += kColumns) {
    const float* from[kColumns];
#pragma unroll
    for (int d = 0; d < kColumns; ++d) from[d] = row(min(c + d, columns - 1));
    for (int i = begin; i < k; i += 2 * stride) {
      float values[kColumns][2][8];
#pragma unroll
      for (int d = 0; d < kColumns; ++d) {
        load8(from[d] + i, values[d][0]);
        if (i + stride < k) load8(from[d] + i + stride, values[d][1]);
      }
#pragma unroll
      for (int d = 0; d < kColumns; ++d) {
        if (c + d >= columns) break;
        std::byte* to = inputs + (c + d) * input_pitch(k) + i * 2;
        *reinterpret_cast<uint4*>(to) = input_pairs(values[d][0]);
        if (i + stride < k) *reinterpret_cast<uint4*>(to + stride * 2) = input_pairs(values[d][1]);
      }
    }
  }
  pad_inputs(inputs, columns, k);
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
        *reinterpret_cast<uint4*>(to + (base + u * kStride) * 2) = input_pairs(values[u]);
      }
    }
    if (c == 0) pad_inputs(inputs, columns, norm.hidden);
    const float mean = block_sum<kBlockWarps>(squares, scratch) / static_cast<float>(norm.hidden);
    if (threadIdx.x == 0) factors[c] = 1.0F / sqrtf(mean + norm.eps);
    __syncthreads();
  }
}

}  // namespace strata::kernels::cuda
