// Experts on tensor cores. A block takes rows of one matrix of an expert for a tile of its pairs;
// which size of tile it multiplies depends on how many pairs the tile has.
#include "kernels/cuda/experts.cuh"
#include "kernels/cuda/gemm.cuh"

namespace strata::kernels::cuda {
namespace {

constexpr int kExpertM = 128;

// Where output `i` lies as an input of the next product.
template <InputOrder kOrder>
__device__ int input_place(int i) {
  return kOrder == InputOrder::kPlain ? i : four_apart_place(i);
}

// Row i is a gate and row i + 8 its up.
template <InputOrder kOrder>
struct GateUpJob {
  const ExpertsArgs& args;
  const Slab& slab;
  const ExpertTile& tile;
  int first_output;
  int tokens;

  struct Row {
    int output;
    float gate_bias, up_bias;
  };
  struct Token {
    std::uint16_t* inner;
  };
  __device__ int row_at(int i) const { return i / 16 * 16 + i % 8 * 2 + i / 8 % 2; }
  __device__ std::uint32_t input_at(int i) const {
    return static_cast<std::uint32_t>(pair_of(args.routing, tile, i) / args.routing.top_k);
  }
  __device__ Row row(int i) const {
    const int output = first_output + i / 16 * 8 + i % 8;
    if (output >= args.slab.intermediate) return {-1, 0.0F, 0.0F};
    return {output, slab.bias(args.slab.gate_up_bias, 2 * output),
            slab.bias(args.slab.gate_up_bias, 2 * output + 1)};
  }
  __device__ Token token(int i) const {
    return {args.inner16 +
            static_cast<std::size_t>(pair_of(args.routing, tile, i)) * args.slab.intermediate};
  }
  __device__ void store(const Row& row, const Token& token, float gate, float up) const {
    if (row.output < 0) return;
    token.inner[input_place<kOrder>(row.output)] =
        to_operand(swiglu(gate + row.gate_bias, up + row.up_bias, args.limit, args.alpha));
  }
};

struct DownJob {
  const ExpertsArgs& args;
  const Slab& slab;
  const ExpertTile& tile;
  int first_row;
  int tokens;

  struct Row {
    int at;
    float bias[2];
  };
  struct Token {
    float* outer;
  };
  __device__ int row_at(int i) const { return i; }
  __device__ std::uint32_t input_at(int i) const {
    return static_cast<std::uint32_t>(pair_of(args.routing, tile, i));
  }
  __device__ Row row(int i) const {
    Row row{first_row + i, {}};
    for (int h = 0; h < 2; ++h)
      if (args.add_bias && row.at + 8 * h < args.slab.hidden)
        row.bias[h] = slab.bias(args.slab.down_bias, row.at + 8 * h);
    return row;
  }
  __device__ Token token(int i) const {
    return {args.outer +
            static_cast<std::size_t>(pair_of(args.routing, tile, i)) * args.slab.hidden};
  }
  __device__ void store(const Row& row, const Token& token, float a, float b) const {
    if (row.at < args.slab.hidden) token.outer[row.at] = a + row.bias[0];
    if (row.at + 8 < args.slab.hidden) token.outer[row.at + 8] = b + row.bias[1];
  }
};

// Rows of a slab's matrix from `first` on.
template <class Format>
__device__ Panel slab_panel(const Slab& slab, std::size_t blocks, std::size_t scales, int first,
                            int rows, int k) {
  const auto skipped = static_cast<std::size_t>(first);
  return {slab.data + blocks + skipped * RowBytes<Format>::of(k),
          slab.data + scales + skipped * RowBytes<Format>::scales(k), rows - first, k};
}

template <class T>
__device__ void gate_up(const ExpertsArgs& args, const Slab& slab, const ExpertTile& tile,
                        int memory) {
  using Format = typename T::Format;
  const SlabLayout& layout = args.slab;
  const int first = blockIdx.y * T::kM;
  const GateUpJob<Format::kInputOrder> job{args, slab, tile, first / 2, tile.count};
  typename T::Sums sums = {};
  multiply_tile<T, false>(slab_panel<Format>(slab, layout.gate_up_blocks, layout.gate_up_scales,
                                             first, 2 * layout.intermediate, layout.hidden),
                          args.x16, job, steps_of<Format>(layout.hidden, 0, 1), memory, sums);
  store_tile<T>(job, sums);
}

template <class T>
__device__ void down(const ExpertsArgs& args, const Slab& slab, const ExpertTile& tile,
                     int memory) {
  using Format = typename T::Format;
  const SlabLayout& layout = args.slab;
  const int first = blockIdx.y * T::kM;
  const DownJob job{args, slab, tile, first, tile.count};
  typename T::Sums sums = {};
  multiply_tile<T, true>(slab_panel<Format>(slab, layout.down_blocks, layout.down_scales, first,
                                            layout.hidden, layout.intermediate),
                         args.inner16, job, steps_of<Format>(layout.intermediate, 0, 1), memory,
                         sums);
  store_tile<T>(job, sums);
}

// Ts: tiles in ascending order of tokens; the last one holds any tile of the step.
template <bool kDown, class T, class... Ts>
__device__ void multiply_pairs(const ExpertsArgs& args, const Slab& slab, const ExpertTile& tile,
                               int memory) {
  if constexpr (sizeof...(Ts) > 0) {
    if (tile.count > T::kN) return multiply_pairs<kDown, Ts...>(args, slab, tile, memory);
  }
  if constexpr (kDown) down<T>(args, slab, tile, memory);
  else gate_up<T>(args, slab, tile, memory);
}

template <bool kDown, int kBlocks, class... Ts>
__global__ void __launch_bounds__(kGemmThreads, kBlocks)
    expert_gemm_kernel(const ExpertsArgs args, const int memory) {
  // gate_up lets down start when it has waited for route: down knows the tiles before its wait.
  if constexpr (!kDown) dependency_wait();
  dependents_may_start();
  const auto [tile, there] = TakenTile(args.routing, blockIdx.x);
  if (!there) {
    if constexpr (kDown) dependency_wait();
    return;
  }
  const Slab slab{args.slabs[tile.expert], args.slab};
  multiply_pairs<kDown, Ts...>(args, slab, tile, memory);
}

template <int kBlocks, class... Ts>
void launch_both(cudaStream_t stream, const ExpertsArgs& args) {
  const unsigned tiles = most_tiles(args);
  const SlabLayout& slab = args.slab;
  int memory = tile_memory<Ts...>(slab.hidden, kBlocks);
  launch_tiles(stream, dim3(tiles, divide_up(2 * slab.intermediate, kExpertM)), kGemmThreads,
               memory, expert_gemm_kernel<false, kBlocks, Ts...>, args, memory);
  memory = tile_memory<Ts...>(slab.intermediate, kBlocks);
  launch_tiles(stream, dim3(tiles, divide_up(slab.hidden, kExpertM)), kGemmThreads, memory,
               expert_gemm_kernel<true, kBlocks, Ts...>, args, memory);
}

template <class Format, int N, int WarpsM = 4>
using ExpertsTile = Tile<Format, kExpertM, N, WarpsM>;

}  // namespace

void launch_experts_gemm(cudaStream_t stream, const ExpertsArgs& args) {
  if (args.rows == 0) return;
  // Few pairs an expert: longer pieces of a row at a time stream better.
  using Long = Mxfp4Format<192>;
  using Short = Mxfp4Format<64>;
  using Plain = Bf16Format<64>;
  if (args.slab.format != ExpertFormat::kMxfp4)
    launch_both<2, ExpertsTile<Plain, 32>, ExpertsTile<Plain, 128, 2>>(stream, args);
  else if (args.routing.tile_tokens <= 16)
    launch_both<3, ExpertsTile<Long, 8>, ExpertsTile<Long, 16>>(stream, args);
  else if (args.routing.tile_tokens <= 32)
    launch_both<3, ExpertsTile<Long, 8>, ExpertsTile<Long, 16>, ExpertsTile<Long, 32>>(stream,
                                                                                       args);
  else
    launch_both<2, ExpertsTile<Short, 16>, ExpertsTile<Short, 32>, ExpertsTile<Short, 64>,
                ExpertsTile<Short, 128, 2>>(stream, args);
}

}  // namespace strata::kernels::cuda
