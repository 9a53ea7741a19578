// MXFP4 experts of 3 to 64 rows on cards with bulk copies (compute capability 9.0 and newer) and
// shared memory for the ring: the experts of batched decodes, bound by reading the weights.
//
// One block a multiprocessor stays for a whole product. Its work is a share of all units; a unit is
// 16 rows of one expert's matrix for one tile of its pairs. The rows lie behind each other, so one
// copy brings their weights and one their scales to a stage of a ring in shared memory. Fifteen
// warps cut K between them: a warp keeps its part of the inputs of the tile in registers from unit
// to unit, turns its part of the weights into bfloat16 operands and multiplies. Two more warps add
// up the parts, in the order of K whatever the tile holds, each for every second column, and finish
// the outputs; the first of them asks for the unit that takes the stage's place.
//
// Shared memory: [Barriers][parts: float2 [kBuffers][kMostBlocksN][2][kParts][kWarp]][stages].
#include <algorithm>

#include "kernels/cuda/bulk.cuh"
#include "kernels/cuda/experts.cuh"
#include "kernels/cuda/formats.cuh"
#include "kernels/cuda/launch.cuh"

namespace strata::kernels::cuda {
namespace {

constexpr int kParts = 15;     // of K: warps that multiply
constexpr int kFinishers = 2;  // warps, one for each column of a lane
constexpr int kThreads = (kParts + kFinishers) * kWarp;
constexpr int kLine = 64;  // values of a row that a lane's 16 are a quarter of
constexpr int kLines = 3;  // of a part, at most
constexpr int kMostK = kParts * kLines * kLine;
constexpr int kUnitRows = 16;
constexpr int kMostBlocksN = kBatchTokens / 8;
constexpr int kBuffers = 4;
constexpr int kMostStages = 12;

struct Barriers {
  PhaseBarrier full[kMostStages];  // a stage's unit is there
  PhaseBarrier parts[kBuffers];    // all parts are
  PhaseBarrier taken[kBuffers];    // and have been added up
};
constexpr int kPartsBytes = kBuffers * kMostBlocksN * kFinishers * kParts * kWarp * 8;
constexpr int kBarrierBytes = (sizeof(Barriers) + 127) / 128 * 128;

using Format = Mxfp4Format<kLine>;

// Bytes of a unit: its weights, then its scales.
__host__ __device__ constexpr int weight_bytes(int k) { return kUnitRows * k / 2; }
__host__ __device__ constexpr int unit_bytes(int k) { return weight_bytes(k) + kUnitRows * k / 32; }

struct Memory {
  Barriers& barriers;
  float2* parts;
  std::byte* stages;

  __device__ Memory()
      : barriers(*reinterpret_cast<Barriers*>(block_memory())),
        parts(reinterpret_cast<float2*>(block_memory() + kBarrierBytes)),
        stages(block_memory() + kBarrierBytes + kPartsBytes) {}
  // The lane's sums of column `column` of two for a block of eight.
  __device__ float2* part(int buffer, int n, int column, int part) const {
    return parts + (((buffer * kMostBlocksN + n) * kFinishers + column) * kParts + part) * kWarp +
           lane_id();
  }
};

// One matrix of each expert.
template <bool kDown>
struct Product {
  const ExpertsArgs& args;
  int k;
  int units;  // of a tile

  __device__ explicit Product(const ExpertsArgs& given)
      : args(given),
        k(kDown ? given.slab.intermediate : given.slab.hidden),
        units((kDown ? given.slab.hidden : 2 * given.slab.intermediate) / kUnitRows) {}
  __device__ const std::uint16_t* input(int pair) const {
    return kDown ? args.inner16 + static_cast<std::size_t>(pair) * k
                 : args.x16 + static_cast<std::size_t>(pair / args.routing.top_k) * k;
  }
  // Which of a unit's rows the lane holds as row lane / 4 + 8 * half of the operand. Of gate and up
  // those of one output, and so that eight lanes' rows lie in all banks; see swaps().
  __device__ static int row(int half) {
    const int group = lane_id() / 4;
    return kDown ? group + 8 * half : 2 * group + (half ^ (group / 2 & 1));
  }
  // Whether the lane's first row is an up and its second the gate.
  __device__ static bool swaps() { return !kDown && (lane_id() / 8 & 1) != 0; }
};

// The units of a block, as runs of one tile each.
struct Run {
  int tile;
  int first, end;  // units of the tile
};
template <class Fn>
__device__ void each_run(int units, int begin, int end, Fn&& fn) {
  while (begin < end) {
    const int tile = begin / units;
    const int last = min(end, (tile + 1) * units);
    fn(Run{tile, begin - tile * units, last - tile * units});
    begin = last;
  }
}

// Counts what a block did: which stage, buffer and parity are next.
struct Place {
  int stages;
  int stage = 0, stage_parity = 0;
  int buffer = 0, buffer_parity = 0;

  __device__ explicit Place(int count) : stages(count) {}
  __device__ void advance() {
    if (++stage == stages) stage = 0, stage_parity ^= 1;
    if (++buffer == kBuffers) buffer = 0, buffer_parity ^= 1;
  }
};

// ---- The warps that multiply.

template <bool kDown, int kBlocksN>
__device__ void multiply_run(const Product<kDown>& product, const Memory& memory, const Run& run,
                             const ExpertTile& tile, Place& place) {
  const int lines = product.k / kLine;
  const int first_line = warp_id() * kLines;
  const int quarter = lane_id() % 4;
  uint4 inputs[kLines][kBlocksN][2];
#pragma unroll
  for (int n = 0; n < kBlocksN; ++n) {
    const auto* from = reinterpret_cast<const uint4*>(
        product.input(pair_of(product.args.routing, tile, 8 * n + lane_id() / 4)));
#pragma unroll
    for (int l = 0; l < kLines; ++l) {
      const int at = (min(first_line + l, lines - 1) * kLine + quarter * 16) / 8;
#pragma unroll
      for (int half = 0; half < 2; ++half) inputs[l][n][half] = __ldcg(from + at + half);
    }
  }
  const int row_bytes = product.k / 2;
  const int row_scales = product.k / 32;
  const int weights_at = first_line * (kLine / 2) + quarter * 8;
  const int scales_at = weight_bytes(product.k) + first_line * 2 + quarter / 2;
  int rows_at[2], row_scales_at[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    rows_at[h] = weights_at + product.row(h) * row_bytes;
    row_scales_at[h] = scales_at + product.row(h) * row_scales;
  }
  for (int unit = run.first; unit < run.end; ++unit) {
    float sums[kBlocksN][4] = {};
    memory.barriers.full[place.stage].wait(place.stage_parity);
    const std::byte* const stage = memory.stages + place.stage * unit_bytes(product.k);
#pragma unroll
    for (int l = 0; l < kLines; ++l) {
      if (first_line + l >= lines) break;
      Format::Values weights[2];
#pragma unroll
      for (int h = 0; h < 2; ++h)
        weights[h] =
            Format::values(*reinterpret_cast<const uint2*>(stage + rows_at[h] + l * (kLine / 2)),
                           static_cast<std::uint32_t>(stage[row_scales_at[h] + l * 2]));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint4 first = Format::pairs(weights[0], half);
        const uint4 second = Format::pairs(weights[1], half);
#pragma unroll
        for (int n = 0; n < kBlocksN; ++n) {
          const uint4& b = inputs[l][n][half];
          mma(sums[n], first.x, second.x, first.y, second.y, b.x, b.y);
          mma(sums[n], first.z, second.z, first.w, second.w, b.z, b.w);
        }
      }
    }
    memory.barriers.taken[place.buffer].wait(place.buffer_parity ^ 1);
#pragma unroll
    for (int n = 0; n < kBlocksN; ++n) {
#pragma unroll
      for (int c = 0; c < kFinishers; ++c)
        *memory.part(place.buffer, n, c, warp_id()) = make_float2(sums[n][c], sums[n][2 + c]);
    }
    __syncwarp();
    if (lane_id() == 0) memory.barriers.parts[place.buffer].arrive();
    place.advance();
  }
}

// ---- The warps that finish outputs, and bring weights.

// Asks for a block's units in their order.
template <bool kDown>
class Source {
 public:
  __device__ Source(const Product<kDown>& product, const Memory& memory, int begin, int end)
      : product_(product), memory_(memory), next_(begin), end_(end) {}

  // The next unit, into a stage that is free. One lane calls it.
  __device__ void ask(int stage) {
    if (next_ == end_) return;
    const SlabLayout& layout = product_.args.slab;
    if (left_ == 0) {
      const int tile = next_ / product_.units;
      const int unit = next_ - tile * product_.units;
      const std::byte* slab = product_.args.slabs[product_.args.routing.tiles[tile].expert];
      left_ = product_.units - unit;
      weights_ = slab + (kDown ? layout.down_blocks : layout.gate_up_blocks) +
                 static_cast<std::size_t>(unit) * weight_bytes(product_.k);
      scales_ = slab + (kDown ? layout.down_scales : layout.gate_up_scales) +
                static_cast<std::size_t>(unit) * scale_bytes();
    }
    PhaseBarrier& full = memory_.barriers.full[stage];
    std::byte* const to = memory_.stages + stage * unit_bytes(product_.k);
    full.arrive_and_expect(unit_bytes(product_.k));
    copy_bulk(to, weights_, weight_bytes(product_.k), full);
    copy_bulk(to + weight_bytes(product_.k), scales_, scale_bytes(), full);
    weights_ += weight_bytes(product_.k);
    scales_ += scale_bytes();
    --left_;
    ++next_;
  }

 private:
  __device__ int scale_bytes() const { return unit_bytes(product_.k) - weight_bytes(product_.k); }

  const Product<kDown>& product_;
  const Memory& memory_;
  int next_, end_;
  int left_ = 0;  // units of the tile from next_ on
  const std::byte* weights_ = nullptr;
  const std::byte* scales_ = nullptr;
};

// The outputs of a unit's two rows of the lane for one pair.
template <bool kDown>
__device__ void store_sums(const Product<kDown>& product, int unit, const float (&values)[2],
                           int at) {
  const ExpertsArgs& args = product.args;
  const auto pair = static_cast<std::size_t>(at);
  if constexpr (kDown) {
    float* const to = args.outer + pair * args.slab.hidden + unit * kUnitRows;
    to[product.row(0)] = values[0];
    to[product.row(1)] = values[1];
  } else {
    const bool swaps = product.swaps();
    args.inner16[pair * args.slab.intermediate + unit * (kUnitRows / 2) +
                 four_apart_place(lane_id() / 4)] =
        to_operand(swiglu(values[swaps ? 1 : 0], values[swaps ? 0 : 1], args.limit, args.alpha));
  }
}

template <bool kDown, int kBlocksN>
__device__ void finish_run(const Product<kDown>& product, const Memory& memory, const Run& run,
                           const ExpertTile& tile, Source<kDown>& source, Place& place) {
  const ExpertsArgs& args = product.args;
  const Slab slab{args.slabs[tile.expert], args.slab};
  const int finisher = warp_id() - kParts;
  const int column = lane_id() % 4 * 2 + finisher;
  int pairs[kBlocksN];
#pragma unroll
  for (int n = 0; n < kBlocksN; ++n) pairs[n] = pair_of(args.routing, tile, 8 * n + column);
  for (int unit = run.first; unit < run.end; ++unit) {
    float biases[2] = {};
    if (!kDown || args.add_bias) {
#pragma unroll
      for (int h = 0; h < 2; ++h)
        biases[h] = slab.bias(kDown ? args.slab.down_bias : args.slab.gate_up_bias,
                              unit * kUnitRows + product.row(h));
    }
    memory.barriers.parts[place.buffer].wait(place.buffer_parity);
    // Whose parts are there has read the stage.
    if (finisher == 0 && lane_id() == 0) source.ask(place.stage);
    float2 sums[kBlocksN];
#pragma unroll
    for (int n = 0; n < kBlocksN; ++n) {
      sums[n] = *memory.part(place.buffer, n, finisher, 0);
#pragma unroll
      for (int part = 1; part < kParts; ++part) {
        const float2 more = *memory.part(place.buffer, n, finisher, part);
        sums[n].x += more.x, sums[n].y += more.y;
      }
    }
    __syncwarp();
    if (lane_id() == 0) memory.barriers.taken[place.buffer].arrive();
#pragma unroll
    for (int n = 0; n < kBlocksN; ++n)
      if (8 * n + column < tile.count)
        store_sums(product, unit,
                   {sums[n].x * Format::kUnit + biases[0], sums[n].y * Format::kUnit + biases[1]},
                   pairs[n]);
    place.advance();
  }
}

template <bool kDown>
__global__ void __launch_bounds__(kThreads, 1)
    batch_kernel(const ExpertsArgs args, const int stages) {
  const Memory memory;
  if (threadIdx.x == 0) {
    for (int i = 0; i < stages; ++i) memory.barriers.full[i].init(1);
    for (int i = 0; i < kBuffers; ++i) {
      memory.barriers.parts[i].init(kParts);
      memory.barriers.taken[i].init(kFinishers);
    }
    PhaseBarrier::publish();
  }
  __syncthreads();
  // gate_up lets down start when it has waited for route: down knows the tiles before its wait.
  if constexpr (!kDown) dependency_wait();
  dependents_may_start();
  const Product<kDown> product(args);
  const Routing& routing = args.routing;
  const int total = *routing.num_tiles * product.units;
  const auto share = [&](unsigned block) {
    return static_cast<int>(static_cast<std::int64_t>(total) * block / gridDim.x);
  };
  const int begin = share(blockIdx.x);
  const int end = share(blockIdx.x + 1);
  Place place(stages);
  if (warp_id() < kParts) {
    if constexpr (kDown) dependency_wait();
    each_run(product.units, begin, end, [&](const Run& run) {
      const ExpertTile tile = routing.tiles[run.tile];
      if (tile.count <= 8) multiply_run<kDown, 1>(product, memory, run, tile, place);
      else multiply_run<kDown, kMostBlocksN>(product, memory, run, tile, place);
    });
    return;
  }
  Source<kDown> source(product, memory, begin, end);
  if (warp_id() == kParts && lane_id() == 0)
    for (int i = 0; i < stages; ++i) source.ask(i);
  if constexpr (kDown) dependency_wait();
  each_run(product.units, begin, end, [&](const Run& run) {
    const ExpertTile tile = routing.tiles[run.tile];
    if (tile.count <= 8) finish_run<kDown, 1>(product, memory, run, tile, source, place);
    else finish_run<kDown, kMostBlocksN>(product, memory, run, tile, source, place);
  });
}

// Of the ring, as many as a block has room for.
int stages_of(int k) {
  const int room = most_block_memory() - kBarrierBytes - kPartsBytes;
  return std::min(kMostStages, room / unit_bytes(k));
}

template <bool kDown>
void launch_product(cudaStream_t stream, const ExpertsArgs& args, int k) {
  const int stages = stages_of(k);
  const auto blocks = static_cast<unsigned>(device_attribute(cudaDevAttrMultiProcessorCount));
  const int memory = kBarrierBytes + kPartsBytes + stages * unit_bytes(k);
  launch_early(stream, {dim3(blocks), static_cast<std::size_t>(memory), kThreads, true},
               batch_kernel<kDown>, args, stages);
}

}  // namespace

bool is_batch(std::int32_t rows, const SlabLayout& slab) {
  constexpr std::int32_t kMostRows = 64;
  constexpr int kLeastStages = 4;  // some cards have less room: memory would wait
  const auto fits = [](std::int32_t k) {
    return k % kLine == 0 && k <= kMostK && stages_of(k) >= kLeastStages;
  };
  return rows > kPlaneRows && rows <= kMostRows && slab.format == ExpertFormat::kMxfp4 &&
         has_code(90) && early_launches() && fits(slab.hidden) && fits(slab.intermediate);
}

void launch_experts_batch(cudaStream_t stream, const ExpertsArgs& args) {
  launch_product<false>(stream, args, args.slab.hidden);
  launch_product<true>(stream, args, args.slab.intermediate);
}

}  // namespace strata::kernels::cuda
