// Products of a matrix and many rows of a step on tensor cores, inputs as operands, sums in
// float32: the core that dense, qkv and experts share. Weights are on the M side of the
// instruction, rows of the step ("tokens") on the N side.
//
// A block makes one tile, M rows of the matrix for N tokens, and runs through K in steps of
// Format::kStep: a ring of stages in shared memory is filled by asynchronous copies (weights as
// they are, tokens gathered by index) and emptied by four warps, which turn weights into operands
// in registers. Each output is one sum in the order of K, whatever N is, unless K is split among
// blocks: then the parts are added in their order.
//
// Shared memory: [byte offsets of rows and tokens: u32 M + N][scales of the M rows][stages].
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/cuda/device.h"
#include "kernels/cuda/formats.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/warp.cuh"

namespace strata::kernels::cuda {

inline constexpr int kGemmWarps = 4;  // of most tiles
inline constexpr int kGemmThreads = kGemmWarps * kWarp;
inline constexpr int kMostStages = 5;

// Rows of a matrix from a tile's first one on.
struct Panel {
  const std::byte* data;    // rows lie behind each other, 16-byte aligned
  const std::byte* scales;  // the same; the first one's are aligned
  int rows;                 // at least 1; may be more or less than a tile's
  int k;                    // multiple of 32
};

// Bytes of a row of k values and of its scales.
template <class Format>
struct RowBytes {
  __host__ __device__ static constexpr std::uint32_t of(int k) {
    return static_cast<std::uint32_t>(k / Format::kChunkValues * 16);
  }
  __host__ __device__ static constexpr int scales(int k) { return k / 32 * Format::kScaleBytes; }
};

template <class Format>
__device__ Panel panel_of(const Matrix& matrix, int first) {
  const auto skipped = static_cast<std::size_t>(first);
  return {static_cast<const std::byte*>(matrix.data) + skipped * RowBytes<Format>::of(matrix.cols),
          reinterpret_cast<const std::byte*>(matrix.scales) +
              skipped * RowBytes<Format>::scales(matrix.cols),
          matrix.rows - first, matrix.cols};
}

// A tile of M rows and N tokens; WarpsM of the warps share its rows, the others its tokens.
template <class FormatOf, int M, int N, int WarpsM, int Warps = kGemmWarps>
struct Tile {
  using Format = FormatOf;
  using Tokens = Bf16Rows<Format::kStep>;
  static constexpr int kM = M;
  static constexpr int kN = N;
  static constexpr int kWarpM = M / WarpsM;
  static constexpr int kWarpN = N / (Warps / WarpsM);
  static constexpr int kThreads = Warps * kWarp;
  static constexpr int kBlocksM = kWarpM / 16;  // of a warp: instructions
  static constexpr int kBlocksN = kWarpN / 8;
  static constexpr int kWeightBytes = M * Format::kRowBytes;
  static constexpr int kStageBytes = kWeightBytes + N * Tokens::kRowBytes;
  static constexpr int kTableBytes = ((M + N) * 4 + 127) / 128 * 128;
  static_assert(kWarpM % 16 == 0 && kWarpN % 8 == 0);

  // A lane's sums: see mma.
  using Sums = float[kBlocksM][kBlocksN][4];

  __host__ __device__ static constexpr int scale_bytes(int k) {
    return (M * RowBytes<Format>::scales(k) + 127) / 128 * 128;
  }
  __host__ __device__ static constexpr int bytes(int k, int stages) {
    return kTableBytes + scale_bytes(k) + stages * kStageBytes;
  }
  __device__ static int stages_in(int k, int memory) {
    return min(kMostStages, (memory - kTableBytes - scale_bytes(k)) / kStageBytes);
  }
  // Row and token of the tile where the lane's sums [m][n] begin.
  __device__ static int row(int m) { return warp_id() % WarpsM * kWarpM + 16 * m + lane_id() / 4; }
  __device__ static int token(int n) {
    return warp_id() / WarpsM * kWarpN + 8 * n + lane_id() % 4 * 2;
  }
};

// The steps of K that a block takes.
struct Steps {
  int begin, end;
};
template <class Format>
__device__ Steps steps_of(int k, int part, int parts) {
  const int steps = (k + Format::kStep - 1) / Format::kStep;
  return {steps * part / parts, steps * (part + 1) / parts};
}

// Offsets of rows, and the scales; whoever waits for the first group of copies after the next
// barrier sees them.
template <class T, class Job>
__device__ void prepare_weights(const Panel& panel, const Job& job) {
  std::byte* memory = block_memory();
  auto* table = reinterpret_cast<std::uint32_t*>(memory);
  for (int i = threadIdx.x; i < T::kM; i += T::kThreads)
    table[i] = static_cast<std::uint32_t>(min(job.row_at(i), panel.rows - 1)) *
               RowBytes<typename T::Format>::of(panel.k);
  if constexpr (T::Format::kScaleBytes > 0) {
    const int bytes = min(T::kM, panel.rows) * RowBytes<typename T::Format>::scales(panel.k);
    for (int at = threadIdx.x * 16; at < bytes; at += T::kThreads * 16)
      copy16(memory + T::kTableBytes + at, panel.scales + at, min(16, bytes - at));
  }
}

// Offsets of tokens.
template <class T, class Job>
__device__ void prepare_tokens(const Panel& panel, const Job& job) {
  auto* table = reinterpret_cast<std::uint32_t*>(block_memory()) + T::kM;
  for (int i = threadIdx.x; i < T::kN; i += T::kThreads)
    table[i] = job.input_at(i) * static_cast<std::uint32_t>(panel.k) * 2U;
}

// Starts copying step `step` into a stage; zeros behind the end of K.
template <class T>
__device__ void copy_weights(const Panel& panel, int step, std::byte* stage) {
  using Format = typename T::Format;
  constexpr int kLanes = Format::kCopyLanes;
  constexpr int kRowsAtOnce = T::kThreads / kLanes;
  constexpr int kChunks = Format::kRowBytes / 16;
  static_assert(T::kM % kRowsAtOnce == 0 && kChunks % kLanes == 0);
  const auto* table = reinterpret_cast<const std::uint32_t*>(block_memory());
  const int first = step * Format::kStep;
#pragma unroll
  for (int i = 0; i < T::kM / kRowsAtOnce; ++i) {
    const int row = static_cast<int>(threadIdx.x) / kLanes + i * kRowsAtOnce;
    const std::byte* from = panel.data + table[row] + RowBytes<Format>::of(first);
#pragma unroll
    for (int c = 0; c < kChunks / kLanes; ++c) {
      const int chunk = static_cast<int>(threadIdx.x) % kLanes + c * kLanes;
      const bool inside = first + chunk * Format::kChunkValues < panel.k;
      copy16(stage + Format::place(row, chunk), from + chunk * 16, inside ? 16 : 0);
    }
  }
}
template <class T>
__device__ void copy_tokens(const Panel& panel, const std::byte* x, int step, std::byte* stage) {
  constexpr int kTokenChunks = T::Format::kStep / 8;
  constexpr int kAtOnce = T::kThreads / 8;  // tokens
  static_assert(kTokenChunks % 8 == 0);
  const auto* table = reinterpret_cast<const std::uint32_t*>(block_memory());
  const int first = step * T::Format::kStep;
#pragma unroll
  for (int i = 0; i < (T::kN + kAtOnce - 1) / kAtOnce; ++i) {
    const int token = static_cast<int>(threadIdx.x) / 8 + i * kAtOnce;
    if (T::kN % kAtOnce != 0 && token >= T::kN) break;
    const std::byte* from = x + table[T::kM + token] + first * 2;
#pragma unroll
    for (int c = 0; c < kTokenChunks / 8; ++c) {
      const int chunk = static_cast<int>(threadIdx.x) % 8 + c * 8;
      const bool inside = first + chunk * 8 < panel.k;
      copy16(stage + T::kWeightBytes + T::Tokens::place(token, chunk), from + chunk * 16,
             inside ? 16 : 0);
    }
  }
}

// Adds a stage's products.
template <class T, class Job>
__device__ void multiply_step(const Panel& panel, const Job& job, int step, const std::byte* stage,
                              typename T::Sums& sums) {
  using Format = typename T::Format;
  const std::byte* scales = block_memory() + T::kTableBytes;
  const int scale_row = RowBytes<Format>::scales(panel.k);
  const int lane_token = T::token(0) - lane_id() % 4 * 2 + lane_id() / 4;
#pragma unroll
  for (int line = 0; line < Format::kStep / 64; ++line) {
    // Lanes behind the end of K take the last scale: their weights are zeros.
    const int scale_at =
        min(step * (Format::kStep / 32) + 2 * line + lane_id() % 4 / 2, panel.k / 32 - 1) *
        Format::kScaleBytes;
    typename Format::Values weights[T::kBlocksM][2];
#pragma unroll
    for (int m = 0; m < T::kBlocksM; ++m) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = T::row(m) + 8 * h;
        const std::byte* scale = scales;
        if constexpr (Format::kScaleBytes > 0) scale += job.row_at(row) * scale_row + scale_at;
        weights[m][h] = Format::load(stage, row, line, scale);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint4 b[T::kBlocksN];
#pragma unroll
      for (int n = 0; n < T::kBlocksN; ++n)
        b[n] = T::Tokens::read(stage + T::kWeightBytes, lane_token + 8 * n, line, half);
#pragma unroll
      for (int m = 0; m < T::kBlocksM; ++m) {
        const uint4 first = Format::pairs(weights[m][0], half);
        const uint4 second = Format::pairs(weights[m][1], half);
#pragma unroll
        for (int n = 0; n < T::kBlocksN; ++n)
          mma(sums[m][n], first.x, second.x, first.y, second.y, b[n].x, b[n].y);
#pragma unroll
        for (int n = 0; n < T::kBlocksN; ++n)
          mma(sums[m][n], first.z, second.z, first.w, second.w, b[n].z, b[n].w);
      }
    }
  }
}

// The products of a tile over `steps`. `x`: rows of panel.k operands. A Job says what the tile's
// rows and tokens are:
//   row_at(i)    which row of the panel is the tile's row i
//   input_at(i)  which row of x is its token i; beyond the last one any that exists
// kEarly: panel and rows were known before this launch began, which has not waited for the ones in
// front yet.
template <class T, bool kEarly, class Job>
__device__ void multiply_tile(const Panel& panel, const std::uint16_t* x, const Job& job,
                              const Steps& steps, int memory, typename T::Sums& sums) {
  const auto* inputs = reinterpret_cast<const std::byte*>(x);
  std::byte* ring = block_memory() + T::kTableBytes + T::scale_bytes(panel.k);
  const int stages = T::stages_in(panel.k, memory);
  const int first = min(stages - 1, steps.end - steps.begin);
  prepare_weights<T>(panel, job);
  __syncthreads();
  for (int i = 0; i < first; ++i)
    copy_weights<T>(panel, steps.begin + i, ring + i * T::kStageBytes);
  if constexpr (kEarly) dependency_wait();
  prepare_tokens<T>(panel, job);
  __syncthreads();
  for (int i = 0; i < stages - 1; ++i) {
    if (i < first) copy_tokens<T>(panel, inputs, steps.begin + i, ring + i * T::kStageBytes);
    commit_copies();
  }
  int full = 0;
  int empty = stages - 1;
  for (int step = steps.begin; step < steps.end; ++step) {
    wait_copies(stages - 2);
    __syncthreads();  // the stage is there for all, and all are done with the one before
    if (step + stages - 1 < steps.end) {
      copy_weights<T>(panel, step + stages - 1, ring + empty * T::kStageBytes);
      copy_tokens<T>(panel, inputs, step + stages - 1, ring + empty * T::kStageBytes);
    }
    commit_copies();
    multiply_step<T>(panel, job, step, ring + full * T::kStageBytes, sums);
    full = full + 1 == stages ? 0 : full + 1;
    empty = empty + 1 == stages ? 0 : empty + 1;
  }
}

// Adds up the parts of K of a tile: the block that comes last gets all of them, true, and the
// others false.
template <class T>
__device__ bool add_parts(const Partials& partials, int tile, int part, int parts,
                          typename T::Sums& sums) {
  if (parts == 1) return true;
  constexpr int kVectors = T::kBlocksM * T::kBlocksN;
  auto* all = reinterpret_cast<float4*>(partials.sums) +
              static_cast<std::size_t>(tile) * parts * kVectors * T::kThreads + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const auto& sum = sums[i / T::kBlocksN][i % T::kBlocksN];
    __stcg(all + (part * kVectors + i) * T::kThreads, make_float4(sum[0], sum[1], sum[2], sum[3]));
  }
  __threadfence();
  __syncthreads();
  auto* last = reinterpret_cast<int*>(block_memory());
  if (threadIdx.x == 0) *last = atomicAdd(partials.arrived + tile, 1) == parts - 1 ? 1 : 0;
  __syncthreads();
  if (*last == 0) return false;
  __threadfence();
  if (threadIdx.x == 0) partials.arrived[tile] = 0;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    auto& sum = sums[i / T::kBlocksN][i % T::kBlocksN];
    sum[0] = sum[1] = sum[2] = sum[3] = 0.0F;
    for (int each = 0; each < parts; ++each) {
      const float4 other = __ldcg(all + (each * kVectors + i) * T::kThreads);
      sum[0] += other.x, sum[1] += other.y, sum[2] += other.z, sum[3] += other.w;
    }
  }
  return true;
}

// Puts the sums in their places. More of the Job:
//   Row row(i)                  of the tile's rows i and i + 8
//   Token token(i)              of its token i < job.tokens
//   store(row, token, a, b)     the sums of rows i and i + 8
template <class T, class Job>
__device__ void store_tile(const Job& job, const typename T::Sums& sums) {
  typename Job::Row rows[T::kBlocksM];
#pragma unroll
  for (int m = 0; m < T::kBlocksM; ++m) rows[m] = job.row(T::row(m));
#pragma unroll
  for (int n = 0; n < T::kBlocksN; ++n) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int index = T::token(n) + j;
      if (index >= job.tokens) continue;
      const typename Job::Token token = job.token(index);
#pragma unroll
      for (int m = 0; m < T::kBlocksM; ++m)
        job.store(rows[m], token, sums[m][n][j] * T::Format::kUnit,
                  sums[m][n][2 + j] * T::Format::kUnit);
    }
  }
}

// Shared memory for blocks of the tiles Ts: as much as lets `blocks` of them share a
// multiprocessor, at least two stages, at most kMostStages.
template <class... Ts>
int tile_memory(int k, int blocks) {
  const int least = std::max({Ts::bytes(k, 2)...});
  const int most = std::max({Ts::bytes(k, kMostStages)...});
  const int share = device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor) / blocks -
                    device_attribute(cudaDevAttrReservedSharedMemoryPerBlock);
  const int limit = most_block_memory();
  return std::max(least, std::min({share, most, limit}));
}

template <class... Parameters, class... Arguments>
void launch_tiles(cudaStream_t stream, dim3 grid, int threads, int memory,
                  void (*kernel)(Parameters...), Arguments&&... arguments) {
  launch_early(stream,
               {grid, static_cast<std::size_t>(memory), static_cast<unsigned>(threads), true},
               kernel, std::forward<Arguments>(arguments)...);
}

// Blocks of a dense product on a multiprocessor.
template <class T>
constexpr int dense_blocks() {
  return T::kN <= 64 && T::kThreads == kGemmThreads ? 3 : 2;
}

// Into how many parts K is split, so that `tiles` fill the card; of large tiles, whose parts cost
// more to add up, fewer.
template <class T>
int parts_of(int k, int tiles, const Partials& partials) {
  constexpr int kBlocks = dense_blocks<T>();
  constexpr std::int64_t kMostParts = T::kN == 64 ? 5 : 8;
  const std::int64_t tile_sums = std::int64_t{tiles} * T::kM * T::kN;
  const int steps = static_cast<int>(divide_up(k, T::Format::kStep));
  const int wanted = kBlocks * device_attribute(cudaDevAttrMultiProcessorCount) / tiles;
  const int most = static_cast<int>(
      std::min<std::int64_t>({wanted, kMostParts, steps / 4, partials.size / tile_sums}));
  return tiles > kMostArrivals ? 1 : std::max(most, 1);
}

// Formats of dense weights: of few tokens steps of whole lines of memory.
struct Bf16Dense {
  using Few = Bf16Format<64>;
  using Many = Bf16Format<64>;
};
struct Int8Dense {
  using Few = Int8Format<128>;
  using Many = Int8Format<64>;
};

// Calls `fn` with the tile of a dense product of `count` tokens: `tiles(M, N)` counts them.
template <class Dense, class Tiles, class Fn>
void with_dense_tile(int k, int count, Tiles&& tiles, Fn&& fn) {
  using Format = typename Dense::Many;
  using Few = typename Dense::Few;
  const int most = most_block_memory();
  if (count <= 16) return fn(Tile<Few, 64, 16, 4>{});
  if (count <= 32 || (count <= 64 && Tile<Few, 64, 64, 2>::bytes(k, 2) > most))
    return fn(Tile<Few, 64, 32, 4>{});
  const int at_once = 2 * device_attribute(cudaDevAttrMultiProcessorCount);
  if (count <= 64) {
    // Few tiles: more warps hide more of what each waits for.
    if (static_cast<int>(tiles(64, 64)) < at_once) return fn(Tile<Few, 64, 64, 4, 8>{});
    return fn(Tile<Few, 64, 64, 2>{});
  }
  // The larger one is better by itself, the smaller one may leave fewer multiprocessors idle.
  const auto waves = [&](int m) { return divide_up(tiles(m, 128), at_once) * m; };
  const bool fits = Tile<Format, 128, 128, 2>::bytes(k, 2) <= most;
  if (fits && waves(128) <= waves(64)) fn(Tile<Format, 128, 128, 2>{});
  else fn(Tile<Format, 64, 128, 2>{});
}

}  // namespace strata::kernels::cuda
