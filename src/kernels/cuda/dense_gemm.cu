// Dense products on tensor cores.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor.cuh"

namespace strata::kernels::cuda {
namespace {

// A warp makes kTensorRows outputs of 8 N rows.
template <int N>
__global__ void __launch_bounds__(kBlockThreads, kLeastBlocks)
    dense_tensor_kernel(const DenseArgs args) {
  const int first = (blockIdx.y * kBlockWarps + warp_id()) * kTensorRows;
  if (first >= args.weight.rows) return;
  const int token = blockIdx.x * 8 * N;
  const auto row_of = [&](int pair, int h) { return first + pair / 8 * 16 + h * 8 + pair % 8; };
  int rows[2][2];
  for (int m = 0; m < 2; ++m)
    for (int h = 0; h < 2; ++h)
      rows[m][h] = min(row_of(8 * m + tensor_pair(), h), args.weight.rows - 1);
  std::uint32_t input[N];
#pragma unroll
  for (int n = 0; n < N; ++n)
    input[n] = static_cast<std::uint32_t>(min(token + 8 * n + lane_id() / 4, args.count - 1)) *
               args.weight.cols;
  float sums[2][N][4] = {};
  multiply_tensor<N>(Bf16Weights{args.weight}, rows, args.x16, input, sums);
  const auto store = [&](int row, int at, float value) {
    if (row >= args.weight.rows || at >= args.count) return;
    args.out[static_cast<std::size_t>(at) * args.weight.rows + row] =
        args.bias == nullptr ? value : value + args.bias[row];
  };
  each_result<N>(sums, [&](int pair, int t, float a, float b) {
    store(row_of(pair, 0), token + t, a);
    store(row_of(pair, 1), token + t, b);
  });
}

__global__ void round_kernel(const float* from, std::uint16_t* to, std::int64_t count) {
  const std::int64_t i =
      (static_cast<std::int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x) * kLaneValues;
  if (i >= count) return;
  float values[8];
  load8(from + i, values);
  for (int j = 0; j < kLaneValues; ++j) to[i + j] = to_bf16(values[j]);
}

}  // namespace

void launch_round(cudaStream_t stream, const float* from, std::uint16_t* to, std::int64_t count) {
  launch(stream, dim3(divide_up(count, std::int64_t{kBlockThreads} * kLaneValues)), round_kernel,
         from, to, count);
}

void launch_dense_gemm(cudaStream_t stream, const DenseArgs& args) {
  launch_round(stream, args.x, args.x16, std::int64_t{args.count} * args.weight.cols);
  with_tensor_tokens(args.count, [&](auto n) {
    const dim3 grid(divide_up(args.count, 8 * n),
                    divide_up(args.weight.rows, kBlockWarps * kTensorRows));
    launch(stream, grid, dense_tensor_kernel<n>, args);
  });
}

}  // namespace strata::kernels::cuda
