// Matrix times up to eight rows of a step on tensor cores, for cards from compute capability 8.0
// on: the products of decoding, bound by reading the weights. Inputs are rounded to bfloat16, sums
// are float32.
//
// A tile is 16 rows of a matrix, as eight pairs (first, second). kSplit warps of a block share a
// tile and cut K between them; a lane reads 16 bytes of each of its two rows at a time, several
// reads ahead, straight into the operands: which K values an instruction's slots hold is free as
// long as weights and inputs agree. The rows of the step are the instruction's columns; they lie in
// shared memory as bfloat16 in the order the weights are decoded in. Sums of the warps are added in
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
#include "kernels/cuda/warp.cuh"

namespace strata::kernels::cuda {

inline constexpr int kStreamColumns = 8;  // rows of a step
inline constexpr int kStreamRows = 16;    // of a matrix: a tile
inline constexpr int kStreamPairs = kStreamRows / 2;
inline constexpr int kStreamAhead = 4;   // reads of a row in flight
inline constexpr int kStreamBlocks = 2;  // of a multiprocessor at least: bounds the registers

// Read once: kept out of the first-level cache, where the inputs of other blocks lie.
__device__ inline uint4 load_streamed(const void* from) {
  uint4 words;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "l"(from));
  return words;
}

// What a lane holds of a row: kValues consecutive weights, decoded eight at a time into bfloat16
// pairs. kPermuted: pairs are (0, 4), (1, 5), (2, 6), (3, 7) of the eight instead of neighbours.
struct Bf16Chunks {
  static constexpr int kValues = 8;
  static constexpr bool kPermuted = false;
  const std::uint16_t* data;
  int k;

  struct Chunk {
    uint4 words;
  };
  __device__ Chunk load(int row, int at) const {
    return {load_streamed(data + static_cast<std::size_t>(row) * k + at)};
  }
  __device__ static uint4 decode(const Chunk& chunk, int /*eight*/) { return chunk.words; }
};

struct Int8Chunks {
  static constexpr int kValues = 16;
  static constexpr bool kPermuted = false;
  const std::int8_t* data;
  const std::uint16_t* scales;
  int k;

  struct Chunk {
    uint4 words;
    std::uint32_t scale;  // twice
  };
  __device__ Chunk load(int row, int at) const {
    const std::size_t index = static_cast<std::size_t>(row) * k + at;
    return {load_streamed(data + index), __ldg(scales + index / 32) * 0x10001U};
  }
  __device__ static uint4 decode(const Chunk& chunk, int eight) {
    const std::uint32_t low = eight == 0 ? chunk.words.x : chunk.words.z;
    const std::uint32_t high = eight == 0 ? chunk.words.y : chunk.words.w;
    return {scaled_bf16(int8_pair(low, 0x4140), chunk.scale),
            scaled_bf16(int8_pair(low, 0x4342), chunk.scale),
            scaled_bf16(int8_pair(high, 0x4140), chunk.scale),
            scaled_bf16(int8_pair(high, 0x4342), chunk.scale)};
  }
};

struct Mxfp4Chunks {
  static constexpr int kValues = 32;
  static constexpr bool kPermuted = true;
  const std::uint8_t* blocks;
  const std::uint8_t* scales;
  int k;

  struct Chunk {
    uint4 words;
    std::uint32_t scale;  // E8M0
  };
  __device__ Chunk load(int row, int at) const {
    const std::size_t index = static_cast<std::size_t>(row) * k + at;
    return {load_streamed(blocks + index / 2), __ldg(scales + index / 32)};
  }
  __device__ static uint4 decode(const Chunk& chunk, int eight) {
    const std::uint32_t words[4] = {chunk.words.x, chunk.words.y, chunk.words.z, chunk.words.w};
    return mxfp4_pairs(words[eight], chunk.scale);
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

// One warp's part of a tile's products: K values [(s + kSplit j) * 4 kValues, ...) for s = its
// place among the kSplit warps and j = 0, 1, ...
template <class Chunks, int kSplit>
class WarpStream {
 public:
  // first, second: the lane's two rows, clamped to the matrix.
  __device__ WarpStream(const Chunks& weights, int first, int second)
      : weights_(weights), rows_{first, second}, begin_(warp_id() % kSplit * 4 * Chunks::kValues) {}

  __device__ void start_reading() {
#pragma unroll
    for (int u = 0; u < kStreamAhead; ++u) read(u, begin_ + u * kStep + lane_offset());
  }

  // sums += products with the columns at `inputs`; those behind `columns` count as zeros.
  __device__ void multiply(const std::byte* inputs, int columns, float (&sums)[4]) {
    const int column = lane_id() / 4;
    const std::byte* input = column < columns ? inputs + column * input_pitch(weights_.k) : nullptr;
    for (int at = begin_; at < weights_.k; at += kStreamAhead * kStep) {
#pragma unroll
      for (int u = 0; u < kStreamAhead; ++u) {
        if (at + u * kStep >= weights_.k) break;
        // Lanes of a warp may be behind the end while others are not: they multiply zeros.
        const int here = at + u * kStep + lane_offset();
#pragma unroll
        for (int eight = 0; eight < Chunks::kValues / 8; ++eight) {
          uint4 b{0, 0, 0, 0};
          if (input != nullptr && here < weights_.k)
            b = *reinterpret_cast<const uint4*>(input + (here + 8 * eight) * 2);
          const uint4 a0 = Chunks::decode(chunks_[u][0], eight);
          const uint4 a1 = Chunks::decode(chunks_[u][1], eight);
          mma_bf16(sums, a0.x, a1.x, a0.y, a1.y, b.x, b.y);
          mma_bf16(sums, a0.z, a1.z, a0.w, a1.w, b.z, b.w);
        }
        read(u, here + kStreamAhead * kStep);
      }
    }
  }

 private:
  static constexpr int kStep = 4 * Chunks::kValues * kSplit;

  __device__ static int lane_offset() { return lane_id() % 4 * Chunks::kValues; }

  __device__ void read(int u, int at) {
    if (at >= weights_.k) {
      chunks_[u][0] = {};
      chunks_[u][1] = {};
      return;
    }
    chunks_[u][0] = weights_.load(rows_[0], at);
    chunks_[u][1] = weights_.load(rows_[1], at);
  }

  const Chunks weights_;
  const int rows_[2];
  const int begin_;
  typename Chunks::Chunk chunks_[kStreamAhead][2];
};

// The sums of a block's warps, [warp][row of the tile][column].
using StreamSums = float[kBlockWarps][kStreamRows][kStreamColumns];

__device__ inline void put_sums(StreamSums& all, const float (&sums)[4]) {
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
__device__ void each_stream_result(const StreamSums& all, int columns, Store&& store) {
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

// Fills the inputs of a block: column c is the K values at row(c), as bfloat16.
template <bool kPermuted, class Row>
__device__ void stage_inputs(std::byte* inputs, int columns, int k, Row&& row) {
  for (int c = 0; c < columns; ++c) {
    const float* from = row(c);
    std::byte* to = inputs + c * input_pitch(k);
    for (int i = threadIdx.x * 8; i < k; i += kBlockThreads * 8) {
      float values[8];
      load8(from + i, values);
      *reinterpret_cast<uint4*>(to + i * 2) = input_pairs<kPermuted>(values);
    }
  }
}

// The same of rows that are normed on the way: column c is (x + deltas) * weight of row index(c);
// its factor 1 / sqrt(mean square + eps), which the results are to be multiplied by, goes to
// factors[c].
template <class Index>
__device__ void stage_normed_inputs(std::byte* inputs, float* factors, int columns,
                                    const NormArgs& norm, Index&& index) {
  __shared__ float scratch[kBlockWarps];
  for (int c = 0; c < columns; ++c) {
    const std::size_t first = static_cast<std::size_t>(max(index(c), 0)) * norm.hidden;
    std::byte* to = inputs + c * input_pitch(norm.hidden);
    float squares = 0.0F;
    for (int i = threadIdx.x * 8; i < norm.hidden; i += kBlockThreads * 8) {
      float values[8];
      float weight[8];
      load_with_deltas(norm, first + i, values);
      load8(norm.weight + i, weight);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        squares = fmaf(values[j], values[j], squares);
        values[j] *= weight[j];
      }
      *reinterpret_cast<uint4*>(to + i * 2) = input_pairs<false>(values);
    }
    const float mean = block_sum(squares, scratch) / static_cast<float>(norm.hidden);
    if (threadIdx.x == 0) factors[c] = 1.0F / sqrtf(mean + norm.eps);
    __syncthreads();
  }
}

}  // namespace strata::kernels::cuda
