// What a draw keeps of its candidates (draw_cut.h), what logit_bias and penalties change, and what
// log-probabilities are made of. A scan of a row is kDrawParts blocks; the last one to arrive ends
// it. Sums over blocks are of integers, or made in the order of parts.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"

namespace strata::kernels::cuda {
namespace {

using Count = unsigned long long;  // as atomics take it

// What a scan looks for in a row.
struct Job {
  bool report;  // of raw logits of every id; else of the candidates of a draw
  bool asked;
  std::int32_t top_k;
  double top_p, scale, reach;

  __device__ Job(const StepLogits& how, bool of_report)
      : report(of_report),
        asked(report ? how.top_n >= 0 : how.filtered),
        top_k(report ? how.top_n : how.top_k),
        top_p(report ? 1.0 : how.top_p),
        scale(how.scale),
        reach(how.reach) {}
  __device__ bool takes_part(const DrawCut& cut, CutScan scan) const {
    if (!asked || scan.first()) return asked;
    if (!(report ? cut.best != 0 : has_candidates(cut))) return false;
    return scan.mass ? top_p < 1.0 : top_k > 0;
  }
};

// The ids of a row, as order_of their logits; 0: may not come.
class Ids {
 public:
  __device__ Ids(const DrawArgs& args, const StepLogits& how, int row, bool report)
      : logits_(args.logits + static_cast<std::size_t>(row) * args.vocab),
        banned_(args.banned),
        vocab_(args.vocab),
        all_(report) {
    for (int i = 0; i < kMostMasked; ++i) masked_[i] = how.masked[i];
  }
  __device__ std::uint32_t operator[](int id) const {
    if (id >= vocab_) return 0;
    const float logit = logits_[id];
    bool allowed = (banned_[id / 32] >> (id % 32) & 1U) == 0;
#pragma unroll
    for (const std::int32_t masked : masked_) allowed = allowed && id != masked;
    return allowed || all_ ? order_of(logit) : 0;
  }
  // Calls fn(order, id) for the block's part, several ids read at once.
  template <class Fn>
  __device__ void each_of_part(Fn&& fn) const {
    constexpr int kAhead = 4;
    constexpr int kStride = kDrawParts * kBlockThreads;
    for (int first = blockIdx.x * kBlockThreads + threadIdx.x; first < vocab_;
         first += kAhead * kStride) {
      std::uint32_t order[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) order[i] = (*this)[first + i * kStride];
#pragma unroll
      for (int i = 0; i < kAhead; ++i)
        if (first + i * kStride < vocab_) fn(order[i], first + i * kStride);
    }
  }
  // The nth id of `order`, counted from 1; for a whole block.
  __device__ int nth_of(std::uint32_t order, Count nth) const {
    __shared__ int counts[kBlockWarps];
    __shared__ int found;
    const int span = (vocab_ + kBlockThreads - 1) / kBlockThreads * kWarp;  // of a warp
    const int first = warp_id() * span + lane_id();
    int count = 0;
#pragma unroll 4
    for (int i = 0; i < span; i += kWarp)
      count += __popc(__ballot_sync(0xffffffffU, (*this)[first + i] == order));
    if (lane_id() == 0) counts[warp_id()] = count;
    if (threadIdx.x == 0) found = kEveryId;
    __syncthreads();
    Count before = 0;
    for (int warp = 0; warp < warp_id(); ++warp) before += counts[warp];
    const bool here = before < nth && nth <= before + count;
    for (int i = 0; here && i < span && before < nth; i += kWarp) {
      const bool equal = (*this)[first + i] == order;
      const unsigned lanes = __ballot_sync(0xffffffffU, equal);
      const unsigned upto = lanes & (0xffffffffU >> (kWarp - 1 - lane_id()));
      if (equal && before + __popc(upto) == nth) found = first + i;
      before += __popc(lanes);
    }
    __syncthreads();
    return found;
  }

 private:
  const float* logits_;
  const std::uint32_t* banned_;
  std::int32_t masked_[kMostMasked];
  int vocab_;
  bool all_;
};

// Whether this block is the last one of its row to get here; it sees what the others wrote.
__device__ bool last_of_row(DrawScratch& scratch) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(&scratch.arrived, 1) == static_cast<int>(gridDim.x) - 1;
  __syncthreads();
  if (!last) return false;
  __threadfence();
  if (threadIdx.x == 0) scratch.arrived = 0;
  return true;
}

// A block's bins of 64 bits in words that every card adds to atomically.
class BlockBins {
 public:
  __device__ void clear() {
    for (int bin = threadIdx.x; bin < kCutBins; bin += kBlockThreads) low_[bin] = high_[bin] = 0;
  }
  __device__ void add(std::uint32_t bin, std::uint64_t value) {
    const auto low = static_cast<std::uint32_t>(value);
    const std::uint32_t carry = atomicAdd(&low_[bin], low) + low < low ? 1 : 0;
    const std::uint32_t high = static_cast<std::uint32_t>(value >> 32) + carry;
    if (high != 0) atomicAdd(&high_[bin], high);
  }
  __device__ void add_to(Count* bins) const {
    for (int bin = threadIdx.x; bin < kCutBins; bin += kBlockThreads) {
      const Count value = static_cast<Count>(high_[bin]) << 32 | low_[bin];
      if (value != 0) atomicAdd(bins + bin, value);
    }
  }

 private:
  std::uint32_t low_[kCutBins], high_[kCutBins];
};

// Sum of the values of the block's threads up to this one.
__device__ Count sum_up_to(Count value, Count& total) {
  __shared__ Count of_warp[kBlockWarps];
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const Count other = __shfl_up_sync(0xffffffffU, value, distance);
    if (lane_id() >= distance) value += other;
  }
  if (lane_id() == kWarp - 1) of_warp[warp_id()] = value;
  __syncthreads();
  total = 0;
  for (int warp = 0; warp < kBlockWarps; ++warp) {
    if (warp == warp_id()) value += total;
    total += of_warp[warp];
  }
  return value;
}

// Reads the bins, leaves zeros, and returns the one in which what is wanted is reached; cut.wanted
// is set where the scan is the first of its kind.
__device__ CutBin find_bin(Count* bins, const Job& job, CutScan scan, DrawCut& cut) {
  constexpr int kEach = kCutBins / kBlockThreads;  // a thread, the first one has the highest
  __shared__ CutBin found;
  Count* mine = bins + kCutBins - (static_cast<int>(threadIdx.x) + 1) * kEach;
  Count values[kEach];
  Count sum = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    values[i] = __ldcg(mine + i);
    mine[i] = 0;
    sum += values[i];
  }
  if (threadIdx.x == 0) found = {};
  Count total = 0;
  const Count end = sum_up_to(sum, total);
  if (scan.digit == 0)
    cut.wanted = scan.mass ? wanted_mass(job.top_p, total) : wanted_count(job.top_k, total);
  Count above = end - sum;
  if (above < cut.wanted && cut.wanted <= end) {
#pragma unroll
    for (int i = kEach - 1; i >= 0; --i) {
      if (above < cut.wanted && cut.wanted <= above + values[i])
        found = {static_cast<std::uint32_t>(mine + i - bins), above, values[i]};
      above += values[i];
    }
  }
  __syncthreads();
  return found;
}

// One digit of the cut of a row. Block (part, row).
__global__ void __launch_bounds__(kBlockThreads)
    select_kernel(const DrawArgs args, const bool report, const CutScan scan) {
  __shared__ BlockBins bins;
  const int row = blockIdx.y;
  const StepLogits how = args.inputs.logits[args.first + row];
  const Job job(how, report);
  dependents_may_start();
  dependency_wait();
  DrawCut cut = scan.first() ? DrawCut{} : args.cuts[row];
  if (!job.takes_part(cut, scan)) return;
  const bool adds = scan.mass || job.top_k > 0;
  const Ids ids(args, how, row, report);
  DrawScratch& scratch = args.scratch[row];
  if (adds) bins.clear();
  __syncthreads();
  unsigned best = 0;
  ids.each_of_part([&](std::uint32_t order, int id) {
    best = max(best, order);
    const std::uint64_t value = adds ? cut_value(cut, scan, order, id, job.scale) : 0;
    if (value != 0) bins.add(cut_digit(order, scan.digit), value);
  });
  if (scan.first()) {
    for (int distance = kWarp / 2; distance > 0; distance /= 2)
      best = max(best, from_lane_xor(best, distance));
    if (lane_id() == 0) atomicMax(&scratch.best, best);
  }
  __syncthreads();
  if (adds) bins.add_to(scratch.bins);
  if (!last_of_row(scratch)) return;

  if (scan.first()) {
    cut.best = __ldcg(&scratch.best);
    __syncthreads();
    if (threadIdx.x == 0) scratch.best = 0;
    if (!report && has_candidates(cut)) cut.order = lowest_in_reach(cut.best, job.scale, job.reach);
  }
  if (adds) {
    const CutBin bin = find_bin(scratch.bins, job, scan, cut);
    take_digit(cut, bin);
    if (scan.last_digit()) {
      const std::uint64_t kept = kept_equals(cut, scan, bin, job.scale);
      narrow(cut, cut.digits, kept == 0 ? kEveryId : ids.nth_of(cut.digits, kept));
      cut.digits = 0;
    }
  }
  if (threadIdx.x == 0) args.cuts[row] = cut;
}

__device__ float changed(float logit, const StepChange& change) {
  logit += change.bias;
  logit = logit > 0.0F ? logit / change.repetition : logit * change.repetition;
  logit -= change.frequency;
  return logit - change.presence;
}

// Blocks (share, row).
__global__ void __launch_bounds__(kBlockThreads)
    change_kernel(const DrawArgs args, const bool back) {
  const StepLogits how = args.inputs.logits[args.first + static_cast<int>(blockIdx.y)];
  dependents_may_start();
  dependency_wait();
  float* logits = args.logits + static_cast<std::size_t>(blockIdx.y) * args.vocab;
  for (int i = blockIdx.x * kBlockThreads + threadIdx.x; i < how.num_changes;
       i += static_cast<int>(gridDim.x) * kBlockThreads) {
    const StepChange change = args.inputs.changes[how.first_change + i];
    float& raw = args.raw_logits[how.first_change + i];
    float& logit = logits[change.id];
    if (!back) raw = logit;
    logit = back ? raw : changed(logit, change);
  }
}

// Adds the block's values up in an order that does not change; thread 0 gets the sum.
__device__ double sum_of_block(double value) {
  __shared__ double of_warp[kBlockWarps];
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value += from_lane_xor(value, distance);
  if (lane_id() == 0) of_warp[warp_id()] = value;
  __syncthreads();
  double sum = 0.0;
  for (const double each : of_warp) sum += each;
  __syncthreads();
  return sum;
}

// Block (part, row); the best ids were selected, with raw logits.
__global__ void __launch_bounds__(kBlockThreads) report_kernel(const DrawArgs args) {
  const int row = blockIdx.y;
  const StepLogits how = args.inputs.logits[args.first + row];
  dependents_may_start();
  dependency_wait();
  if (how.top_n < 0) return;
  const int token = how.draw == DrawKind::kNone ? how.asked : args.out[row].id;
  if (token < 0) return;
  const float* logits = args.logits + static_cast<std::size_t>(row) * args.vocab;
  const DrawCut cut = args.cuts[row];
  const float best = cut.best == 0 ? -INFINITY : logit_of(cut.best);
  const float own = logits[token];
  DrawReport& report = args.reports[row];
  DrawScratch& scratch = args.scratch[row];
  double sum = 0.0;
  int better = 0;
#pragma unroll 4
  for (int id = blockIdx.x * kBlockThreads + threadIdx.x; id < args.vocab;
       id += kDrawParts * kBlockThreads) {
    const float logit = logits[id];
    sum += exp(static_cast<double>(logit) - static_cast<double>(best));
    if (logit > own || (logit == own && id < token)) ++better;
    const std::uint32_t order = order_of(logit);
    if (how.top_n == 0 || order == 0 || !keeps(cut, order, id)) continue;
    const unsigned place = atomicAdd(&scratch.collected, 1U);
    report.top_id[place] = id;
    report.top_logit[place] = logit;
  }
  DrawPart* parts = args.parts + static_cast<std::size_t>(row) * kDrawParts;
  sum = sum_of_block(sum);
  better = static_cast<int>(sum_of_block(better));
  if (threadIdx.x == 0) parts[blockIdx.x] = {sum, better};
  if (!last_of_row(scratch)) return;

  static_assert(kDrawParts <= kBlockThreads);
  DrawPart part{0.0, 0};
  if (threadIdx.x < kDrawParts)
    part = {__ldcg(&parts[threadIdx.x].score), __ldcg(&parts[threadIdx.x].id)};
  sum = sum_of_block(part.score);
  better = static_cast<int>(sum_of_block(part.id));
  if (threadIdx.x != 0) return;
  report.sum = sum;
  report.best = best;
  report.own = own;
  report.rank = better + 1;
  report.num_top = static_cast<std::int32_t>(__ldcg(&scratch.collected));
  scratch.collected = 0;
}

}  // namespace

void launch_changes(cudaStream_t stream, const DrawArgs& args, bool back) {
  constexpr unsigned kShares = 4;
  launch_early(stream, {dim3(kShares, static_cast<unsigned>(args.count))}, change_kernel, args,
               back);
}

void launch_select(cudaStream_t stream, const DrawArgs& args, bool report, const CutScan& scan) {
  launch_early(stream, {dim3(kDrawParts, static_cast<unsigned>(args.count))}, select_kernel, args,
               report, scan);
}

void launch_report(cudaStream_t stream, const DrawArgs& args) {
  launch_early(stream, {dim3(kDrawParts, static_cast<unsigned>(args.count))}, report_kernel, args);
}

}  // namespace strata::kernels::cuda
