// Attention of rows that share keys, on tensor cores: a block takes up to 16 consecutive rows of
// one sequence and the query heads of one KV head, and walks over the keys in tiles of 64, which
// lie at multiples of 64 whatever the rows are, so that a row's result does not depend on its
// neighbours. Queries and weights are rounded to operands; scores, maxima and sums are float32.
//
// A warp has four rows. An operand's 16 rows are two of them with eight heads each: row i / 8, head
// i % 8. A tile's keys and values come into shared memory two tiles ahead; 16-byte chunk c of a
// token lies at c ^ (token % 8), so that eight tokens' equal chunks lie in different banks.
#include <algorithm>

#include "kernels/cuda/attend.cuh"
#include "kernels/cuda/launch.cuh"

namespace strata::kernels::cuda {
namespace {

constexpr int kTileRows = 16;
constexpr int kTileKeys = 64;
constexpr int kStages = 3;
constexpr int kThreads = 128;
constexpr int kWarpRows = kTileRows / (kThreads / kWarp);
constexpr int kChunks = kTokenBytes / 16;                      // of a token
constexpr int kThreadKeys = kTileKeys / (kThreads / kChunks);  // of which a thread copies a chunk
constexpr int kKeyBlocks = kTileKeys / 8;
constexpr int kDimBlocks = kAttendDim / 8;
static_assert(kWarpRows == 4, "two operands of two rows");
// Next to a large sink weights would be too small for fp16.
constexpr bool kSinkLast = kFp16Operands;

// [first, first + count) of the step's rows: part of one sequence.
struct RowTile {
  int seq = -1;
  int first = 0;
  int count = 0;
};

// Tiles end where a sequence ends and at multiples of 16. So there is one for each multiple of 16,
// and one for each sequence that begins elsewhere; those come first.
__device__ RowTile tile_of_block(const AttendArgs& args) {
  RowTile tile;
  const int block = static_cast<int>(blockIdx.x);
  if (block < args.seqs) {
    tile.seq = block;
    tile.first = args.inputs.seqs[block].first_row;
    // The table's entries behind the step's last sequence are of an earlier step.
    const bool stands = tile.first > 0 && tile.first < args.rows && tile.first % kTileRows != 0 &&
                        args.inputs.rows[tile.first].seq == block;
    if (!stands) return {};
  } else {
    // Rows with many keys first: their blocks take longest.
    tile.first = (static_cast<int>(gridDim.x) - 1 - block) * kTileRows;
    tile.seq = args.inputs.rows[tile.first].seq;
    if (tile.seq < 0) return {};
  }
  const StepSeq& seq = args.inputs.seqs[tile.seq];
  tile.count = min(kTileRows - tile.first % kTileRows, seq.first_row + seq.num_rows - tile.first);
  return tile;
}

struct Stage {
  uint4 keys[kTileKeys][kChunks];
  uint4 values[kTileKeys][kChunks];
};

// Copies tiles of keys to shared memory. Where a tile holds keys that no row sees, others stand in.
struct Loader {
  TokenPlaces places;
  KeyRange range;
  std::uint32_t place[kThreadKeys];  // of the tile that is copied next

  __device__ static int chunk() { return static_cast<int>(threadIdx.x) % kChunks; }
  __device__ static int key(int i) {
    return static_cast<int>(threadIdx.x) / kChunks + i * (kThreads / kChunks);
  }
  __device__ void find(int first_key) {
#pragma unroll
    for (int i = 0; i < kThreadKeys; ++i)
      place[i] = places.of(min(max(first_key + key(i), range.first), range.end - 1));
  }
  __device__ void copy(Stage& stage) const {
#pragma unroll
    for (int i = 0; i < kThreadKeys; ++i) {
      const std::byte* from = places.key(place[i]) + chunk() * 16;
      const int to = chunk() ^ (key(i) % 8);
      copy16(reinterpret_cast<std::byte*>(&stage.keys[key(i)][to]), from, 16);
      copy16(reinterpret_cast<std::byte*>(&stage.values[key(i)][to]), from + places.values, 16);
    }
  }
};

// A warp's four rows: operand m has rows 2 m and 2 m + 1. Of a lane's numbers [..][0] and [1] are
// of the former, [2] and [3] of the latter, all of head lane / 4.
struct Rows {
  std::uint32_t query[2][4][4];
  float out[2][kDimBlocks][4];
  float max[2][2];  // of scores before scaling
  float sum[2][2];  // of the lane's keys
};

__device__ void load_queries(Rows& rows, const AttendArgs& args, const RowTile& tile, int head) {
  const int row = warp_id() * kWarpRows;
  const bool exists = lane_id() / 4 < args.q_heads / args.kv.heads;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int at = min(tile.count - 1, row + 2 * m + i) + tile.first;
      const float* q = args.q + (static_cast<std::size_t>(at) * args.q_heads + head) * kAttendDim;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float2 pair{0.0F, 0.0F};
          if (exists)
            pair = *reinterpret_cast<const float2*>(q + 16 * k + 8 * half + lane_id() % 4 * 2);
          rows.query[m][k][2 * half + i] = operand_pair(pair.x, pair.y);
        }
      }
    }
  }
}

using Scores = float[2][kKeyBlocks][4];

__device__ void score(const Rows& rows, const Stage& stage, Scores& scores) {
#pragma unroll
  for (int n = 0; n < kKeyBlocks; ++n) {
#pragma unroll
    for (int m = 0; m < 2; ++m)
      scores[m][n][0] = scores[m][n][1] = scores[m][n][2] = scores[m][n][3] = 0.0F;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      std::uint32_t keys[4];
      const int chunk = 4 * half + lane_id() / 8;
      const int key = lane_id() % 8;
      load_blocks<false>(keys,
                         reinterpret_cast<const std::byte*>(&stage.keys[8 * n + key][chunk ^ key]));
#pragma unroll
      for (std::uint32_t& pair : keys) pair = bf16_operands(pair);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const auto& q = rows.query[m];
        const int k = 2 * half;
        mma(scores[m][n], q[k][0], q[k][1], q[k][2], q[k][3], keys[0], keys[1]);
        mma(scores[m][n], q[k + 1][0], q[k + 1][1], q[k + 1][2], q[k + 1][3], keys[2], keys[3]);
      }
    }
  }
}

// Takes out the keys of the tile that a row does not see. `position`: of the warp's first row.
__device__ void mask(Scores& scores, int first_key, int position, int window) {
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int n = 0; n < kKeyBlocks; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int behind =
            position + 2 * m + i / 2 - (first_key + 8 * n + lane_id() % 4 * 2 + i % 2);
        if (behind < 0 || (window > 0 && behind >= window)) scores[m][n][i] = -INFINITY;
      }
    }
  }
}

// Scores become weights 2^(factor (score - maximum)) and go into sums; what was summed before is
// rescaled to the new maximum.
__device__ void weigh(Rows& rows, Scores& scores, float factor) {
#pragma unroll
  for (int m = 0; m < 2; ++m) {
    float best[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      best[r] = fmaxf(scores[m][0][2 * r], scores[m][0][2 * r + 1]);
#pragma unroll
      for (int n = 1; n < kKeyBlocks; ++n)
        best[r] = fmaxf(best[r], fmaxf(scores[m][n][2 * r], scores[m][n][2 * r + 1]));
      best[r] = fmaxf(best[r], from_lane_xor(best[r], 1));
      best[r] = fmaxf(best[r], from_lane_xor(best[r], 2));
    }
    if (__any_sync(0xffffffffU, best[0] > rows.max[m][0] || best[1] > rows.max[m][1])) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float max = fmaxf(rows.max[m][r], best[r]);
        const float rescale = power_of_2((rows.max[m][r] - max) * factor);
        rows.max[m][r] = max;
        rows.sum[m][r] *= rescale;
#pragma unroll
        for (int n = 0; n < kDimBlocks; ++n) {
          rows.out[m][n][2 * r] *= rescale;
          rows.out[m][n][2 * r + 1] *= rescale;
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float offset = -rows.max[m][r] * factor;
#pragma unroll
      for (int n = 0; n < kKeyBlocks; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& score = scores[m][n][2 * r + i];
          score = power_of_2(fmaf(score, factor, offset));
          rows.sum[m][r] += score;
        }
      }
    }
  }
}

__device__ void add_values(Rows& rows, const Stage& stage, const Scores& weights) {
#pragma unroll
  for (int k = 0; k < kTileKeys / 16; ++k) {
    std::uint32_t pairs[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const auto& block = weights[m][2 * k + i / 2];
        pairs[m][i] = operand_pair(block[i % 2 * 2], block[i % 2 * 2 + 1]);
      }
    }
#pragma unroll
    for (int n = 0; n < kDimBlocks; n += 2) {
      std::uint32_t values[4];
      const int key = lane_id() % 8;
      const int chunk = n + lane_id() / 16;
      load_blocks<true>(values,
                        reinterpret_cast<const std::byte*>(
                            &stage.values[16 * k + lane_id() / 8 % 2 * 8 + key][chunk ^ key]));
#pragma unroll
      for (std::uint32_t& pair : values) pair = bf16_operands(pair);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const auto& p = pairs[m];
        mma(rows.out[m][n], p[0], p[1], p[2], p[3], values[0], values[1]);
        mma(rows.out[m][n + 1], p[0], p[1], p[2], p[3], values[2], values[3]);
      }
    }
  }
}

__device__ void store(const Rows& rows, const AttendArgs& args, const RowTile& tile, int head) {
  if (lane_id() / 4 >= args.q_heads / args.kv.heads) return;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = warp_id() * kWarpRows + 2 * m + r;
      if (row >= tile.count) continue;
      float* out = args.out +
                   (static_cast<std::size_t>(tile.first + row) * args.q_heads + head) * kAttendDim;
#pragma unroll
      for (int n = 0; n < kDimBlocks; ++n)
        *reinterpret_cast<float2*>(out + 8 * n + lane_id() % 4 * 2) = make_float2(
            rows.out[m][n][2 * r] / rows.sum[m][r], rows.out[m][n][2 * r + 1] / rows.sum[m][r]);
    }
  }
}

__global__ void __launch_bounds__(kThreads, 2) prefill_kernel(const AttendArgs args) {
  __shared__ Stage stages[kStages];
  const RowTile tile = tile_of_block(args);
  if (tile.seq < 0) return;
  const int kv_head = static_cast<int>(blockIdx.y);
  const int heads = args.q_heads / args.kv.heads;
  const int head = kv_head * heads + lane_id() / 4;
  const int position = args.inputs.rows[tile.first].position;
  const KeyRange range{keys_of(args, position).first, position + tile.count};
  const int first_tile = range.first / kTileKeys;
  const int end_tile = (range.end + kTileKeys - 1) / kTileKeys;

  Loader loader{TokenPlaces(args, args.inputs.seqs[tile.seq], kv_head), range, {}};
  for (int i = 0; i < kStages - 1; ++i) {
    if (first_tile + i < end_tile) {
      loader.find((first_tile + i) * kTileKeys);
      loader.copy(stages[i]);
    }
    commit_copies();
  }
  if (first_tile + kStages - 1 < end_tile) loader.find((first_tile + kStages - 1) * kTileKeys);

  const bool computes = warp_id() * kWarpRows < tile.count;
  Rows rows{};
  const float sink = lane_id() / 4 < heads ? args.sinks[head] / args.scale : 0.0F;
  if (computes) {
    load_queries(rows, args, tile, head);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        rows.max[m][r] = kSinkLast ? kNoMax : fmaxf(sink, kNoMax);
        rows.sum[m][r] = !kSinkLast && lane_id() % 4 == 0 ? 1.0F : 0.0F;
      }
    }
  }
  const int warp_position = position + warp_id() * kWarpRows;
  int stage = 0;
  for (int i = first_tile; i < end_tile; ++i) {
    wait_copies(kStages - 2);
    __syncthreads();  // the tile is whole, and nobody reads the one before it any more
    if (i + kStages - 1 < end_tile) loader.copy(stages[(stage + kStages - 1) % kStages]);
    commit_copies();
    if (i + kStages < end_tile) loader.find((i + kStages) * kTileKeys);
    if (computes) {
      const int first_key = i * kTileKeys;
      Scores scores;
      score(rows, stages[stage], scores);
      if (first_key + kTileKeys - 1 > warp_position ||
          (args.window > 0 && first_key <= warp_position + kWarpRows - 1 - args.window))
        mask(scores, first_key, warp_position, args.window);
      weigh(rows, scores, args.scale * kLog2E);
      add_values(rows, stages[stage], scores);
    }
    stage = (stage + 1) % kStages;
  }
  if (!computes) return;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      rows.sum[m][r] += from_lane_xor(rows.sum[m][r], 1);
      rows.sum[m][r] += from_lane_xor(rows.sum[m][r], 2);
      if (!kSinkLast) continue;
      const float max = fmaxf(sink, rows.max[m][r]);
      const float rescale = power_of_2((rows.max[m][r] - max) * args.scale * kLog2E);
      rows.sum[m][r] = rows.sum[m][r] * rescale + power_of_2((sink - max) * args.scale * kLog2E);
#pragma unroll
      for (int n = 0; n < kDimBlocks; ++n) {
        rows.out[m][n][2 * r] *= rescale;
        rows.out[m][n][2 * r + 1] *= rescale;
      }
    }
  }
  store(rows, args, tile, head);
}

}  // namespace

void launch_attend_prefill(cudaStream_t stream, const AttendArgs& args) {
  const dim3 grid(args.seqs + divide_up(args.rows, kTileRows), args.kv.heads);
  launch_threads(stream, grid, kThreads, 0, prefill_kernel, args);
}

}  // namespace strata::kernels::cuda
