// Dense products of bfloat16 weights and few rows on tensor cores: the output projection and the
// unembedding of decodes.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/stream.cuh"

namespace strata::kernels::cuda {
namespace {

// Rows that are normed on the way: which of the step's they are.
struct NormedRows {
  NormArgs norm;
  std::int32_t first;  // logits row
};

template <int kSplit, int kStages, bool kNormed>
__global__ void __launch_bounds__(kBlockThreads, stream_blocks(kStages))
    dense_stream_kernel(const DenseArgs args, const NormedRows normed) {
  extern __shared__ uint4 shared[];
  __shared__ StreamSums<kBlockWarps> all;
  __shared__ float factors[kStreamColumns];
  auto* rings = reinterpret_cast<std::byte*>(shared);
  std::byte* inputs = rings + ring_bytes<kStages>();
  const Bf16Weights weights(args.weight);
  const int rows = args.weight.rows;
  const int first_tile = blockIdx.x * (kBlockWarps / kSplit);
  const auto row_of = [&](int tile, int pair, int half) {
    return (first_tile + tile) * kStreamRows + half * kStreamPairs + pair;
  };
  WarpStream<kSplit, kStages> stream(weights, rings,
                                     {row_of(warp_id() / kSplit, 0, 0), 1, kStreamPairs, rows});
  dependents_may_start();
  stream.start_reading();
  dependency_wait();
  if constexpr (kNormed) {
    stage_normed_inputs(inputs, factors, args.count, normed.norm,
                        [&](int c) { return normed.norm.inputs.logits[normed.first + c].row; });
  } else {
    stage_inputs(inputs, args.count, weights.k,
                 [&](int c) { return args.x + static_cast<std::size_t>(c) * weights.k; });
    __syncthreads();
  }
  float sums[4] = {};
  stream.multiply(inputs, args.count, sums);
  put_sums<kBlockWarps>(all, sums);
  __syncthreads();
  each_stream_result<kSplit>(all, args.count, [&](int t, int p, int c, float a, float b) {
    if constexpr (kNormed) a *= factors[c], b *= factors[c];
    const int results[2] = {row_of(t, p, 0), row_of(t, p, 1)};
    const float values[2] = {a, b};
    for (int h = 0; h < 2; ++h) {
      if (results[h] >= rows) continue;
      args.out[static_cast<std::size_t>(c) * rows + results[h]] =
          args.bias == nullptr ? values[h] : values[h] + args.bias[results[h]];
    }
  });
}

// Many tiles fill a card with fewer warps a tile, and blocks that leave each other room.
template <bool kNormed>
void launch_weights(cudaStream_t stream, const DenseArgs& args, const NormedRows& normed) {
  constexpr unsigned kManyTiles = 2048;
  const unsigned tiles = divide_up(args.weight.rows, kStreamRows);
  const std::size_t inputs = input_bytes(args.count, args.weight.cols);
  if (tiles >= kManyTiles)
    launch_early(stream, {dim3(divide_up(tiles, kBlockWarps / 4)), ring_bytes<3>() + inputs},
                 dense_stream_kernel<4, 3, kNormed>, args, normed);
  else
    launch_early(stream, {dim3(tiles), ring_bytes<4>() + inputs},
                 dense_stream_kernel<kBlockWarps, 4, kNormed>, args, normed);
}

}  // namespace

bool has_streams(std::int32_t rows, std::int32_t k) {
  constexpr std::size_t kStatic = sizeof(StreamSums<kBlockWarps>) + 512;  // and what norms need
  return has_code(80) && ring_bytes<4>() + input_bytes(rows, k) + kStatic <=
                             static_cast<std::size_t>(most_block_memory());
}

void launch_dense_stream(cudaStream_t stream, const DenseArgs& args) {
  launch_weights<false>(stream, args, {});
}

void launch_normed_head_stream(cudaStream_t stream, std::int32_t first, const NormArgs& norm,
                               const DenseArgs& args) {
  launch_weights<true>(stream, args, {norm, first});
}

}  // namespace strata::kernels::cuda
