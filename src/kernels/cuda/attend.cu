// Softmax attention of each row over its pages, with the sink as one more score.
//
// Keys are cut into splits of 256, counted from the first one the row sees. Each split gives a
// maximum, a sum and a weighted sum of values; splits are merged one after the other onto the sink.
// Steps of few rows compute splits in parallel and merge them in a second kernel, steps of many
// merge as they go: the arithmetic, and so the bits, are the same.
//
// This is the path of every card and shape; attend_decode.cu and attend_prefill.cu take over where
// they can.
#include <algorithm>

#include "kernels/cuda/attend.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/kv.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/numbers.cuh"

namespace strata::kernels::cuda {
namespace {

static_assert(kBlockThreads == kSplitKeys, "a thread scores one key");

struct Softmax {
  float max;
  float sum;
};

// Factors for what was summed so far and for what is added.
struct Rescale {
  float old_factor;
  float new_factor;
};
__device__ Rescale merge(Softmax& total, const Softmax& part) {
  const float best = fmaxf(total.max, part.max);
  const Rescale factors{expf(total.max - best), expf(part.max - best)};
  total.max = best;
  total.sum = total.sum * factors.old_factor + part.sum * factors.new_factor;
  return factors;
}

__device__ int splits_of(const KeyRange& keys) {
  return (keys.end - keys.first + kSplitKeys - 1) / kSplitKeys;
}

// One KV head of one row, on one block; G heads or fewer share it.
template <int D, int G, class Kv>
struct Group {
  static constexpr int kParts = kBlockThreads / D;  // of a split's keys, when values are added
  static constexpr int kPartKeys = kSplitKeys / kParts;

  struct Shared {
    float q[G][D];
    float work[G][kSplitKeys];  // scores, then weights, then partial sums [kParts][G][D]
    float out[G][D];            // merged so far
    Softmax total[G];
    Softmax split[G];
  };

  const AttendArgs& args;
  const StepRow& row;
  Shared& shared;
  int heads;
  int kv_head;

  __device__ const Kv* token(int position, bool values) const {
    const std::byte* block = kv_block(args.kv, args.inputs, row, position, kv_head);
    if (values) block += args.kv.block_bytes;
    return reinterpret_cast<const Kv*>(block) + position % args.kv.page_tokens * D;
  }

  __device__ void load_queries(const float* q) const {
    for (int i = threadIdx.x; i < G * D; i += kBlockThreads)
      shared.q[i / D][i % D] = i < heads * D ? q[i] : 0.0F;
  }

  __device__ void score_key(int position) const {
    float dot[G] = {};
    const Kv* key = token(position, false);
    for (int at = 0; at < D; at += 8) {
      float values[8];
      load8(key + at, values);
#pragma unroll
      for (int g = 0; g < G; ++g) {
#pragma unroll
        for (int i = 0; i < 8; ++i) dot[g] = fmaf(shared.q[g][at + i], values[i], dot[g]);
      }
    }
#pragma unroll
    for (int g = 0; g < G; ++g) shared.work[g][threadIdx.x] = dot[g] * args.scale;
  }

  // Scores become weights exp(score - max); a warp takes a head.
  __device__ void weigh(int count) const {
    for (int g = warp_id(); g < heads; g += kBlockWarps) {
      float best = -INFINITY;
      for (int i = lane_id(); i < count; i += kWarp) best = fmaxf(best, shared.work[g][i]);
      best = warp_max(best);
      float sum = 0.0F;
      for (int i = lane_id(); i < count; i += kWarp) {
        const float weight = expf(shared.work[g][i] - best);
        shared.work[g][i] = weight;
        sum += weight;
      }
      sum = warp_sum(sum);
      if (lane_id() == 0) shared.split[g] = {best, sum};
    }
  }

  // Leaves the split's weighted sums of values in `work` as [kParts][G][D].
  __device__ void add_values(int first, int count) const {
    const int dim = threadIdx.x % D;
    const int part = threadIdx.x / D;
    float sums[G] = {};
    const int end = min(count, (part + 1) * kPartKeys);
    for (int i = part * kPartKeys; i < end; ++i) {
      const float value = to_float(token(first + i, true)[dim]);
#pragma unroll
      for (int g = 0; g < G; ++g) sums[g] = fmaf(shared.work[g][i], value, sums[g]);
    }
    __syncthreads();
    float* work = &shared.work[0][0];
#pragma unroll
    for (int g = 0; g < G; ++g) work[(part * G + g) * D + dim] = sums[g];
  }

  __device__ float split_sum(int g, int dim) const {
    const float* work = &shared.work[0][0];
    float sum = 0.0F;
    for (int part = 0; part < kParts; ++part) sum += work[(part * G + g) * D + dim];
    return sum;
  }

  // Weighted sums and state of the split of keys [first, first + count).
  __device__ void attend_split(int first, int count) const {
    if (static_cast<int>(threadIdx.x) < count) score_key(first + threadIdx.x);
    else
      for (int g = 0; g < G; ++g) shared.work[g][threadIdx.x] = 0.0F;
    __syncthreads();
    weigh(count);
    __syncthreads();
    add_values(first, count);
    __syncthreads();
  }

  __device__ void start(const float* sinks) const {
    for (int i = threadIdx.x; i < G * D; i += kBlockThreads) shared.out[i / D][i % D] = 0.0F;
    if (static_cast<int>(threadIdx.x) < heads)
      shared.total[threadIdx.x] = {sinks[threadIdx.x], 1.0F};
    __syncthreads();
  }

  __device__ void merge_split() const {
    for (int i = threadIdx.x; i < heads * D; i += kBlockThreads) {
      const int g = i / D;
      Softmax total = shared.total[g];
      const Rescale factors = merge(total, shared.split[g]);
      shared.out[g][i % D] =
          shared.out[g][i % D] * factors.old_factor + split_sum(g, i % D) * factors.new_factor;
    }
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < heads)
      merge(shared.total[threadIdx.x], shared.split[threadIdx.x]);
    __syncthreads();
  }
};

// Index of a head's split in the scratch of parallel splits.
__device__ std::size_t split_index(const AttendArgs& args, int row, int head, int split) {
  return (static_cast<std::size_t>(row) * args.q_heads + head) * args.max_splits + split;
}

template <int D, int G, class Kv, bool kSplit>
__global__ void __launch_bounds__(kBlockThreads) attend_kernel(const AttendArgs args) {
  using OneGroup = Group<D, G, Kv>;
  __shared__ typename OneGroup::Shared shared;
  const int index = blockIdx.x;
  const StepRow row = args.inputs.rows[index];
  if (row.seq < 0) return;
  const int kv_head = blockIdx.y;
  const int heads = args.q_heads / args.kv.heads;
  const OneGroup group{args, row, shared, heads, kv_head};
  const std::size_t at = (static_cast<std::size_t>(index) * args.q_heads + kv_head * heads) * D;
  const KeyRange keys = keys_of(args, row.position);
  group.load_queries(args.q + at);
  group.start(args.sinks + kv_head * heads);
  for (int split = blockIdx.z; split < splits_of(keys); split += gridDim.z) {
    const int first = keys.first + split * kSplitKeys;
    group.attend_split(first, min(kSplitKeys, keys.end - first));
    if constexpr (kSplit) {
      for (int i = threadIdx.x; i < heads * D; i += kBlockThreads)
        args.split_out[split_index(args, index, kv_head * heads + i / D, split) * D + i % D] =
            group.split_sum(i / D, i % D);
      if (static_cast<int>(threadIdx.x) < heads)
        reinterpret_cast<Softmax*>(
            args.split_state)[split_index(args, index, kv_head * heads + threadIdx.x, split)] =
            shared.split[threadIdx.x];
      __syncthreads();
    } else {
      group.merge_split();
    }
  }
  if constexpr (!kSplit)
    for (int i = threadIdx.x; i < heads * D; i += kBlockThreads)
      args.out[at + i] = shared.out[i / D][i % D] / shared.total[i / D].sum;
}

// Merges the splits of one head of one row.
template <int D>
__global__ void combine_kernel(const AttendArgs args) {
  const int index = blockIdx.x;
  const int head = blockIdx.y;
  const StepRow row = args.inputs.rows[index];
  const int dim = threadIdx.x;
  if (row.seq < 0 || dim >= D) return;
  const KeyRange keys = keys_of(args, row.position);
  Softmax total{args.sinks[head], 1.0F};
  float out = 0.0F;
  for (int split = 0; split < splits_of(keys); ++split) {
    const std::size_t at = split_index(args, index, head, split);
    const Rescale factors = merge(total, reinterpret_cast<const Softmax*>(args.split_state)[at]);
    out = out * factors.old_factor + args.split_out[at * D + dim] * factors.new_factor;
  }
  args.out[(static_cast<std::size_t>(index) * args.q_heads + head) * D + dim] = out / total.sum;
}

constexpr unsigned kMostSplitBlocks = 64;  // of one row and KV head; they take turns beyond

template <int D, int G, class Kv>
void launch_group(cudaStream_t stream, const AttendArgs& args) {
  const int splits =
      args.window > 0 ? static_cast<int>(divide_up(args.window, kSplitKeys)) : args.max_splits;
  dim3 grid(args.rows, args.kv.heads);
  if (splits == 1 || args.rows > args.split_rows)
    return launch(stream, grid, attend_kernel<D, G, Kv, false>, args);
  grid.z = static_cast<unsigned>(splits) < kMostSplitBlocks ? splits : kMostSplitBlocks;
  launch(stream, grid, attend_kernel<D, G, Kv, true>, args);
  launch(stream, dim3(args.rows, args.q_heads), combine_kernel<D>, args);
}

template <int D, int G>
void launch_dtype(cudaStream_t stream, const AttendArgs& args) {
  if (args.kv.bf16) launch_group<D, G, std::uint16_t>(stream, args);
  else launch_group<D, G, float>(stream, args);
}

template <int D>
void launch_heads(cudaStream_t stream, const AttendArgs& args) {
  if (args.q_heads / args.kv.heads <= 8) launch_dtype<D, 8>(stream, args);
  else launch_dtype<D, kMaxGroupHeads>(stream, args);
}

}  // namespace

void launch_attend(cudaStream_t stream, const AttendArgs& args) {
  const bool fits = args.kv.bf16 && args.kv.head_dim == kAttendDim &&
                    args.q_heads / args.kv.heads <= kAttendHeads;
  if (args.arrived != nullptr && fits) {
    // Few rows fill a card by their keys; of many, most share theirs with neighbours, unless there
    // are as many sequences.
    constexpr std::int32_t kFewRows = 64;
    if (args.rows <= std::max(kFewRows, 2 * args.seqs)) return launch_attend_decode(stream, args);
    return launch_attend_prefill(stream, args);
  }
  switch (args.kv.head_dim) {
    case 32: return launch_heads<32>(stream, args);
    case 64: return launch_heads<64>(stream, args);
    default: return launch_heads<128>(stream, args);
  }
}

}  // namespace strata::kernels::cuda
