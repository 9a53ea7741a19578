// Dense products: the output projection of attention, and the unembedding.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/products.cuh"

namespace strata::kernels::cuda {
namespace {

// A warp makes kTileRows outputs of T rows. Tiles of tokens are neighbours in the grid, so that the
// weights of one come from the cache for the next.
template <int T, class Weights>
__global__ void __launch_bounds__(kBlockThreads, kLeastBlocks) dense_kernel(const DenseArgs args) {
  const int first = (blockIdx.y * kBlockWarps + warp_id()) * kTileRows;
  if (first >= args.weight.rows) return;
  const int token = blockIdx.x * T;
  int rows[kTileRows];
  for (int r = 0; r < kTileRows; ++r) rows[r] = min(first + r, args.weight.rows - 1);
  std::uint32_t input[T];
#pragma unroll
  for (int t = 0; t < T; ++t)
    input[t] = static_cast<std::uint32_t>(min(token + t, args.count - 1)) * args.weight.cols;
  const float value = multiply<T>(Weights{args.weight}, rows, args.x, input);
  const LaneOutput<T> lane;
  const int row = first + lane.row;
  if (!lane.owned || row >= args.weight.rows || token + lane.token >= args.count) return;
  args.out[static_cast<std::size_t>(token + lane.token) * args.weight.rows + row] =
      args.bias == nullptr ? value : value + args.bias[row];
}

}  // namespace

void launch_dense(cudaStream_t stream, const DenseArgs& args) {
  if (args.products == Products::kGemm) return launch_dense_gemm(stream, args);
  if (args.products == Products::kStream)
    return args.weight.scales != nullptr ? launch_dense_planes(stream, args)
                                         : launch_dense_stream(stream, args);
  with_tile_tokens(args.count, [&](auto tokens) {
    const dim3 grid(divide_up(args.count, tokens),
                    divide_up(args.weight.rows, kBlockWarps * kTileRows));
    if (args.weight.scales != nullptr)
      launch(stream, grid, dense_kernel<tokens, Int8Weights>, args);
    else launch(stream, grid, dense_kernel<tokens, Bf16Weights>, args);
  });
}

void launch_normed_head(cudaStream_t stream, std::int32_t first, const NormArgs& norm,
                        const DenseArgs& args) {
  if (args.weight.scales != nullptr) launch_normed_head_planes(stream, first, norm, args);
  else launch_normed_head_stream(stream, first, norm, args);
}

}  // namespace strata::kernels::cuda
