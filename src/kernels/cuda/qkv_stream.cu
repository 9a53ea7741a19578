// Queries, keys and values of few rows from bfloat16 weights on tensor cores.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/qkv.cuh"
#include "kernels/cuda/stream.cuh"

namespace strata::kernels::cuda {
namespace {

constexpr int kStages = 3;

// A block makes eight rotary pairs of one head.
template <class Kv, bool kNormed>
__global__ void __launch_bounds__(kBlockThreads, stream_blocks(kStages))
    qkv_stream_kernel(const QkvArgs args) {
  extern __shared__ uint4 shared[];
  __shared__ StreamSums<kBlockWarps> all;
  __shared__ float factors[kStreamColumns];
  auto* rings = reinterpret_cast<std::byte*>(shared);
  std::byte* inputs = rings + ring_bytes<kStages>();
  const int half = args.kv.head_dim / 2;
  const int tiles_a_head = half / kStreamPairs;
  HeadTile tile = head_tile(args, blockIdx.x / tiles_a_head * (args.kv.head_dim / kTileRows));
  tile.pair = blockIdx.x % tiles_a_head * kStreamPairs;
  const int first = tile.head * args.kv.head_dim + tile.pair;
  const Bf16Weights weights(args.weight[tile.source]);
  WarpStream<kBlockWarps, kStages> stream(weights, rings,
                                          {first, 1, half, args.weight[tile.source].rows});
  dependents_may_start();
  stream.start_reading();
  // Of the thread's result: see each_stream_result.
  HeadTile of_thread = tile;
  of_thread.pair += static_cast<int>(threadIdx.x) / kStreamColumns % kStreamPairs;
  const PairPlace<Kv> place(args, of_thread,
                            min(static_cast<int>(threadIdx.x) % kStreamColumns, args.rows - 1),
                            of_thread.pair);
  dependency_wait();
  if constexpr (kNormed) {
    stage_normed_inputs(inputs, factors, args.rows, args.norm, [](int c) { return c; });
  } else {
    stage_inputs(inputs, args.rows, weights.k,
                 [&](int c) { return args.x + static_cast<std::size_t>(c) * weights.k; });
    __syncthreads();
  }
  float sums[4] = {};
  stream.multiply(inputs, args.rows, sums);
  put_sums<kBlockWarps>(all, sums);
  __syncthreads();
  const float* bias = args.bias[tile.source] + tile.head * args.kv.head_dim;
  each_stream_result<kBlockWarps>(all, args.rows, [&](int, int p, int c, float a, float b) {
    if constexpr (kNormed) a *= factors[c], b *= factors[c];
    const int i = tile.pair + p;
    a += bias[i];
    b += bias[i + half];
    place.store(false, half, a, b);
    place.store(true, half, b, a);
  });
}

template <class Kv>
void launch_rows(cudaStream_t stream, const QkvArgs& args) {
  const Grid grid{dim3((args.q_heads + 2 * args.kv.heads) * (args.kv.head_dim / kStreamRows)),
                  ring_bytes<kStages>() + input_bytes(args.rows, args.weight[0].cols)};
  if (args.x == nullptr) launch_early(stream, grid, qkv_stream_kernel<Kv, true>, args);
  else launch_early(stream, grid, qkv_stream_kernel<Kv, false>, args);
}

}  // namespace

void launch_qkv_stream(cudaStream_t stream, const QkvArgs& args) {
  if (args.kv.bf16) launch_rows<std::uint16_t>(stream, args);
  else launch_rows<float>(stream, args);
}

}  // namespace strata::kernels::cuda
