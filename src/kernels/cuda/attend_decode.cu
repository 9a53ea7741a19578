// Attention of rows that share no keys, on tensor cores, to the precision of float32: a row is all
// its heads, so the upper half of an operand's 16 rows holds the queries (or weights) of up to
// eight heads rounded to operands and the lower half what rounding left over.
//
// A block reads splits of 256 keys, counted from the first one the row sees; each of its warps
// holds 32 keys and their values in registers, in the places where the instructions want them:
// which key, dimension or product has which slot is free as long as operands agree. Splits are
// merged in sequence to groups of eight and groups in sequence onto the sink, whoever computed
// them, so results do not depend on how a row is shared among blocks.
#include <algorithm>

#include "kernels/cuda/attend.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numbers.cuh"

namespace strata::kernels::cuda {
namespace {

constexpr int kGroupSplits = 8;
constexpr int kWarpKeys = kSplitKeys / kBlockWarps;
constexpr int kWorkStride = kAttendDim + 4;  // floats; spreads heads over the banks
constexpr int kUnitsAtOnce = 16;             // of which the last block reads the sums
static_assert(kWarpKeys == kWarp, "a lane finds one key");
static_assert(kBlockWarps == kAttendHeads, "a warp merges one head");

// A lane's part of one head: dimensions 2 lane and 2 lane + 1. `max` is of scores times log2(e).
struct Head {
  float max = kNoMax;
  float sum = 0.0F;
  float2 out{0.0F, 0.0F};

  __device__ void add(const Head& part) {
    const float best = fmaxf(max, part.max);
    const float old_factor = power_of_2(max - best);
    const float new_factor = power_of_2(part.max - best);
    max = best;
    sum = fmaf(part.sum, new_factor, sum * old_factor);
    out.x = fmaf(part.out.x, new_factor, out.x * old_factor);
    out.y = fmaf(part.out.y, new_factor, out.y * old_factor);
  }
};

struct Shared {
  uint4 query[2][2][kWarp];
  float out[2][kBlockWarps][kAttendHeads][kWorkStride];
  float2 state[2][kBlockWarps][kAttendHeads];  // maximum, sum
  bool last;
};

// How the splits of a row are shared among the gridDim.z blocks of a KV head: each takes every
// gridDim.z-th unit.
struct Share {
  int splits;
  int unit_splits;
  int units;

  __device__ Share(int split_count, int few_splits) : splits(split_count) {
    unit_splits = gridDim.z == 1 ? splits : (splits <= few_splits ? 1 : kGroupSplits);
    units = (splits + unit_splits - 1) / unit_splits;
  }
  __device__ int first() const { return static_cast<int>(blockIdx.z) * unit_splits; }
  __device__ int after(int split) const {
    return (split + 1) % unit_splits != 0 && split + 1 < splits
               ? split + 1
               : (split / unit_splits + static_cast<int>(gridDim.z)) * unit_splits;
  }
  __device__ bool ends_group(int split) const {
    return split % kGroupSplits == kGroupSplits - 1 || split + 1 == splits;
  }
};

// Thirty-two keys of a warp and their values. With g = lane / 4 and q = lane % 4 a lane holds of
// keys 8 j + g the dimensions 32 c + 8 q to + 7 in key[j][c], and the dimensions 8 g to 8 g + 7 of
// the values of keys 16 t + {2 q, 2 q + 1, 2 q + 8, 2 q + 9} in value[t].
struct Keys {
  uint4 key[4][2];
  uint4 value[2][4];

  // `place`: of the lane's key.
  __device__ void load_keys(const TokenPlaces& places, std::uint32_t place) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const std::byte* at = places.key(__shfl_sync(0xffffffffU, place, 8 * j + lane_id() / 4));
#pragma unroll
      for (int c = 0; c < 2; ++c)
        key[j][c] = reinterpret_cast<const uint4*>(at)[4 * c + lane_id() % 4];
    }
  }
  __device__ void load_values(const TokenPlaces& places, std::uint32_t place) {
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int from = 16 * t + lane_id() % 4 * 2 + i / 2 * 8 + i % 2;
        const std::byte* at = places.key(__shfl_sync(0xffffffffU, place, from)) + places.values;
        value[t][i] = reinterpret_cast<const uint4*>(at)[lane_id() / 4];
      }
    }
  }
};

// A pair of operands and what rounding left over, rounded.
struct SplitPair {
  std::uint32_t upper;
  std::uint32_t rest;
  SplitPair() = default;
  __device__ SplitPair(float low, float high)
      : upper(operand_pair(low, high)),
        rest(operand_pair(low - low_operand(upper), high - high_operand(upper))) {}
};

// Puts the queries, times `factor`, where `score` wants them: of head g the dimensions 32 c + 8 q +
// 4 h and + 1, then + 2 and + 3, lie in query[c][h][lane]. A thread makes one pair.
__device__ void put_queries(Shared& shared, const float* q, int heads, float factor) {
  const int c = warp_id() / 4;
  const int h = warp_id() / 2 % 2;
  const int second = warp_id() % 2;
  float2 values{0.0F, 0.0F};
  if (lane_id() / 4 < heads)
    values = *reinterpret_cast<const float2*>(q + lane_id() / 4 * kAttendDim + 32 * c +
                                              lane_id() % 4 * 8 + 4 * h + 2 * second);
  const SplitPair pair(values.x * factor, values.y * factor);
  reinterpret_cast<uint2*>(&shared.query[c][h][lane_id()])[second] = {pair.upper, pair.rest};
}

// Scores of head g with keys 8 j + 2 q and + 1.
__device__ void score(const Shared& shared, const Keys& keys, float (&scores)[4][2]) {
  float sums[4][4] = {};
#pragma unroll
  for (int c = 0; c < 2; ++c) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint4 q = shared.query[c][h][lane_id()];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint4& key = keys.key[j][c];
        mma(sums[j], q.x, q.y, q.z, q.w, bf16_operands(h == 0 ? key.x : key.z),
            bf16_operands(h == 0 ? key.y : key.w));
      }
    }
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    scores[j][0] = sums[j][0] + sums[j][2];
    scores[j][1] = sums[j][1] + sums[j][3];
  }
}

// Over the lanes of one head.
__device__ inline float head_max(float value) {
  value = fmaxf(value, from_lane_xor(value, 1));
  return fmaxf(value, from_lane_xor(value, 2));
}
__device__ inline float head_sum(float value) {
  value += from_lane_xor(value, 1);
  return value + from_lane_xor(value, 2);
}

// Scores of the first `count` keys become weights 2^(score - maximum), the others zeros. Returns
// maximum and sum.
__device__ float2 weigh(float (&scores)[4][2], int count) {
  float best = kNoMax;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
#pragma unroll
    for (int i = 0; i < 2; ++i)
      if (8 * j + lane_id() % 4 * 2 + i < count) best = fmaxf(best, scores[j][i]);
  }
  best = head_max(best);
  float sum = 0.0F;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const bool exists = 8 * j + lane_id() % 4 * 2 + i < count;
      scores[j][i] = exists ? power_of_2(scores[j][i] - best) : 0.0F;
      sum += scores[j][i];
    }
  }
  return {best, head_sum(sum)};
}

__device__ inline std::uint32_t word(const uint4& words, int i) {
  return i == 0 ? words.x : (i == 1 ? words.y : (i == 2 ? words.z : words.w));
}

// Where dimension `dim` of a head lies in Shared::out: a warp's stores use every bank.
__device__ inline int place_of(int dim) { return dim ^ ((dim & 32) >> 2); }

// Puts weighted sums of values of head g in their place: dimensions 16 q to 16 q + 15.
__device__ void add_values(const float (&weights)[4][2], const Keys& keys, float* out) {
  SplitPair pairs[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) pairs[j] = SplitPair(weights[j][0], weights[j][1]);
#pragma unroll
  for (int four = 0; four < 8; four += 4) {
    float sums[4][4] = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int n = four + i;  // column g is dimension 8 g + n
      const unsigned halves = n % 2 == 0 ? 0x5410U : 0x7632U;
#pragma unroll
      for (int t = 0; t < 2; ++t) {
        const uint4(&value)[4] = keys.value[t];
        const SplitPair& first = pairs[2 * t];
        const SplitPair& second = pairs[2 * t + 1];
        mma(sums[i], first.upper, first.rest, second.upper, second.rest,
            bf16_operands(__byte_perm(word(value[0], n / 2), word(value[1], n / 2), halves)),
            bf16_operands(__byte_perm(word(value[2], n / 2), word(value[3], n / 2), halves)));
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h)
      *reinterpret_cast<float4*>(out + place_of(lane_id() % 4 * 16 + 8 * h + four)) =
          make_float4(sums[0][h] + sums[0][2 + h], sums[1][h] + sums[1][2 + h],
                      sums[2][h] + sums[2][2 + h], sums[3][h] + sums[3][2 + h]);
  }
}

// The warp's head of a split of `count` keys.
__device__ Head merge_parts(const Shared& shared, int buffer, int count) {
  const int head = warp_id();
  const int parts = (count + kWarpKeys - 1) / kWarpKeys;
  Head merged;
#pragma unroll
  for (int part = 0; part < kBlockWarps; ++part)
    if (part < parts) merged.max = fmaxf(merged.max, shared.state[buffer][part][head].x);
#pragma unroll
  for (int part = 0; part < kBlockWarps; ++part) {
    if (part >= parts) continue;
    const float2 state = shared.state[buffer][part][head];
    const float factor = power_of_2(state.x - merged.max);
    const float2 out =
        *reinterpret_cast<const float2*>(&shared.out[buffer][part][head][place_of(2 * lane_id())]);
    merged.sum = fmaf(state.y, factor, merged.sum);
    merged.out.x = fmaf(out.x, factor, merged.out.x);
    merged.out.y = fmaf(out.y, factor, merged.out.y);
  }
  return merged;
}

// Sums of units that wait to be merged: [rows, kv heads, room for units, heads].
struct Units {
  float2* out;    // and [32], a lane's dimensions
  float2* state;  // maximum, sum

  __device__ Units(const AttendArgs& args, int room) {
    const std::size_t at =
        (static_cast<std::size_t>(blockIdx.y) * gridDim.x + blockIdx.x) * room * kAttendHeads +
        warp_id();
    out = reinterpret_cast<float2*>(args.split_out) + at * kWarp + lane_id();
    state = reinterpret_cast<float2*>(args.split_state) + at;
  }
  __device__ void put(int unit, const Head& head) const {
    __stcg(out + static_cast<std::size_t>(unit) * kAttendHeads * kWarp, head.out);
    if (lane_id() == 0)
      __stcg(state + static_cast<std::size_t>(unit) * kAttendHeads,
             make_float2(head.max, head.sum));
  }
  __device__ Head get(int unit) const {
    const float2 both = __ldcg(state + static_cast<std::size_t>(unit) * kAttendHeads);
    Head head;
    head.max = both.x;
    head.sum = both.y;
    head.out = __ldcg(out + static_cast<std::size_t>(unit) * kAttendHeads * kWarp);
    return head;
  }
};

// Whether all blocks of the row and KV head have put their units: true for the last.
__device__ bool is_last(Shared& shared, const AttendArgs& args, int blocks) {
  __threadfence();
  __syncthreads();
  std::int32_t* arrived = args.arrived + blockIdx.y * gridDim.x + blockIdx.x;
  if (threadIdx.x == 0) {
    shared.last = atomicAdd(arrived, 1) == blocks - 1;
    if (shared.last) *arrived = 0;
  }
  __syncthreads();
  __threadfence();
  return shared.last;
}

__device__ void merge_units(const Units& units, const Share& share, Head& total) {
  Head group;
  for (int first = 0; first < share.units; first += kUnitsAtOnce) {
    Head some[kUnitsAtOnce];
#pragma unroll
    for (int i = 0; i < kUnitsAtOnce; ++i)
      if (first + i < share.units) some[i] = units.get(first + i);
#pragma unroll
    for (int i = 0; i < kUnitsAtOnce; ++i) {
      if (first + i >= share.units) continue;
      group.add(some[i]);
      if (share.unit_splits != 1 || share.ends_group(first + i)) {
        total.add(group);
        group = Head{};
      }
    }
  }
}

__global__ void __launch_bounds__(kBlockThreads, 2)
    decode_kernel(const AttendArgs args, const int few_splits, const int room) {
  __shared__ Shared shared;
  dependents_may_start();
  // Where the keys are is known before they all are there.
  const StepRow row = args.inputs.rows[blockIdx.y];
  const int kv_head = static_cast<int>(blockIdx.x);
  const int heads = args.q_heads / args.kv.heads;
  const int first_head = kv_head * heads;
  const KeyRange range = keys_of(args, row.position);
  const Share share((range.end - range.first + kSplitKeys - 1) / kSplitKeys, few_splits);
  if (row.seq < 0 || share.first() >= share.splits) return dependency_wait();
  const TokenPlaces places(args, args.inputs.seqs[row.seq], kv_head);
  const bool has_head = warp_id() < heads;
  Head total;
  if (has_head) total.max = args.sinks[first_head + warp_id()] * kLog2E;
  total.sum = 1.0F;

  // Where a key is missing, the last one stands in and weighs nothing.
  const auto count_of = [&](int split) {
    return min(kSplitKeys, range.end - range.first - split * kSplitKeys) - warp_id() * kWarpKeys;
  };
  const auto place_in = [&](int split) {
    return places.of(
        min(range.first + split * kSplitKeys + warp_id() * kWarpKeys + lane_id(), range.end - 1));
  };
  Keys keys;
  std::uint32_t place = 0;
  if (count_of(share.first()) > 0) {
    place = place_in(share.first());
    places.prefetch(place);
  }
  dependency_wait();
  put_queries(
      shared,
      args.q + (static_cast<std::size_t>(blockIdx.y) * args.q_heads + first_head) * kAttendDim,
      heads, args.scale * kLog2E);
  if (count_of(share.first()) > 0) {
    keys.load_keys(places, place);
    keys.load_values(places, place);
  }
  __syncthreads();
  Head group;
  int buffer = 0;
  for (int split = share.first(); split < share.splits;) {
    const int next = share.after(split);
    const int count = count_of(split);
    const bool more = next < share.splits && count_of(next) > 0;
    if (more) place = place_in(next);
    float scores[4][2];
    if (count > 0) score(shared, keys, scores);
    if (more) keys.load_keys(places, place);
    if (count > 0) {
      const int head = lane_id() / 4;
      const float2 state = weigh(scores, count);
      if (lane_id() % 4 == 0) shared.state[buffer][warp_id()][head] = state;
      add_values(scores, keys, shared.out[buffer][warp_id()][head]);
    }
    if (more) keys.load_values(places, place);
    __syncthreads();
    if (has_head) {
      group.add(merge_parts(shared, buffer, count + warp_id() * kWarpKeys));
      const bool is_unit = share.units > 1 && share.unit_splits == 1;
      if (is_unit || share.ends_group(split)) {
        if (share.units == 1) total.add(group);
        else Units(args, room).put(split / share.unit_splits, group);
        group = Head{};
      }
    }
    buffer ^= 1;
    split = next;
  }
  if (share.units > 1) {
    if (!is_last(shared, args, min(share.units, static_cast<int>(gridDim.z)))) return;
    if (has_head) merge_units(Units(args, room), share, total);
  }
  if (!has_head) return;
  float2* out = reinterpret_cast<float2*>(
      args.out +
      (static_cast<std::size_t>(blockIdx.y) * args.q_heads + first_head + warp_id()) * kAttendDim);
  out[lane_id()] = make_float2(total.out.x / total.sum, total.out.y / total.sum);
}

}  // namespace

void launch_attend_decode(cudaStream_t stream, const AttendArgs& args) {
  constexpr std::int32_t kMostBlocks = 64;  // of a KV head, all rows together
  constexpr std::int32_t kFewRows = 16;     // their splits are units, if they are few
  constexpr std::int32_t kMostSharedRows = 32;
  constexpr std::int32_t kLeastShares = 4;
  const std::int32_t splits = args.window > 0
                                  ? static_cast<std::int32_t>(divide_up(args.window, kSplitKeys))
                                  : args.max_splits;
  dim3 grid(args.kv.heads, args.rows);
  std::int32_t few_splits = 0;
  std::int32_t room = 0;
  if (splits > 1 && args.rows <= kMostSharedRows && args.rows * args.kv.heads <= kMostArrivals) {
    const std::int32_t shares = std::max(kMostBlocks / args.rows, kLeastShares);
    if (args.rows <= kFewRows) few_splits = std::min(2 * shares, splits);
    const auto groups = static_cast<std::int32_t>(divide_up(splits, kGroupSplits));
    room = std::max(few_splits, groups);
    // The scratch is sized for query heads, some of which may be missing here.
    if (std::int64_t{args.rows} * args.kv.heads * kAttendHeads * room <=
        std::int64_t{args.split_rows} * args.q_heads * args.max_splits)
      grid.z = static_cast<unsigned>(std::min(shares, room));
  }
  launch_early(stream, {grid}, decode_kernel, args, few_splits, room);
}

}  // namespace strata::kernels::cuda
