// Dense products on tensor cores.
#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/norm.cuh"

namespace strata::kernels::cuda {
namespace {

struct DenseJob {
  const DenseArgs& args;
  int first_row;
  int first_token;
  int tokens;

  struct Row {
    int at;
    float bias[2];
  };
  struct Token {
    float* out;
  };
  __device__ int row_at(int i) const { return i; }
  __device__ std::uint32_t input_at(int i) const {
    return static_cast<std::uint32_t>(first_token + min(i, tokens - 1));
  }
  __device__ Row row(int i) const {
    Row row{first_row + i, {}};
    for (int h = 0; h < 2; ++h)
      if (args.bias != nullptr && row.at + 8 * h < args.weight.rows)
        row.bias[h] = args.bias[row.at + 8 * h];
    return row;
  }
  __device__ Token token(int i) const {
    return {args.out + static_cast<std::size_t>(first_token + i) * args.weight.rows};
  }
  __device__ void store(const Row& row, const Token& token, float a, float b) const {
    if (row.at < args.weight.rows) token.out[row.at] = a + row.bias[0];
    if (row.at + 8 < args.weight.rows) token.out[row.at + 8] = b + row.bias[1];
  }
};

template <class T>
__global__ void __launch_bounds__(T::kThreads, dense_blocks<T>())
    dense_gemm_kernel(const DenseArgs args, const int memory) {
  dependents_may_start();
  const Matrix& matrix = args.weight;
  const int first = blockIdx.y * T::kM;
  const int token = blockIdx.x * T::kN;
  const DenseJob job{args, first, token, min(T::kN, args.count - token)};
  typename T::Sums sums = {};
  multiply_tile<T, true>(panel_of<typename T::Format>(matrix, first), args.x16, job,
                         steps_of<typename T::Format>(matrix.cols, blockIdx.z, gridDim.z), memory,
                         sums);
  if (add_parts<T>(args.partials, blockIdx.y * gridDim.x + blockIdx.x, blockIdx.z, gridDim.z, sums))
    store_tile<T>(job, sums);
}

template <class Dense>
void launch_format(cudaStream_t stream, const DenseArgs& args) {
  const auto tiles = [&](int m, int n) {
    return divide_up(args.count, n) * divide_up(args.weight.rows, m);
  };
  with_dense_tile<Dense>(args.weight.cols, args.count, tiles, [&](auto tile) {
    using T = decltype(tile);
    const int parts = parts_of<T>(args.weight.cols, tiles(T::kM, T::kN), args.partials);
    const dim3 grid(divide_up(args.count, T::kN), divide_up(args.weight.rows, T::kM), parts);
    const int memory = tile_memory<T>(args.weight.cols, dense_blocks<T>());
    launch_tiles(stream, grid, T::kThreads, memory, dense_gemm_kernel<T>, args, memory);
  });
}

__global__ void round_kernel(const float* from, std::uint16_t* to, std::int64_t count) {
  dependents_may_start();
  dependency_wait();
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x) * 8;
  if (i >= count) return;
  float values[8];
  load8(from + i, values);
  store8_operands(to + i, values, InputOrder::kPlain);
}

}  // namespace

void launch_round(cudaStream_t stream, const float* from, std::uint16_t* to, std::int64_t count) {
  launch_early(stream, {dim3(divide_up(count, std::int64_t{kBlockThreads} * 8))}, round_kernel,
               from, to, count);
}

void launch_dense_gemm(cudaStream_t stream, const DenseArgs& args) {
  if (args.count == 0) return;
  launch_round(stream, args.x, args.x16, std::int64_t{args.count} * args.weight.cols);
  if (args.weight.scales == nullptr) launch_format<Bf16Dense>(stream, args);
  else launch_format<Int8Dense>(stream, args);
}

}  // namespace strata::kernels::cuda
