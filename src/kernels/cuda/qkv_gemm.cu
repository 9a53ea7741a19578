// Queries, keys and values on tensor cores.
#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/qkv.cuh"

namespace strata::kernels::cuda {
namespace {

// A tile holds whole heads of one source; its row i and row i + 8 are the two of a rotary pair.
struct QkvJob {
  const QkvArgs& args;
  int source;
  int first_head;
  int half;  // of a head: a power of two
  int first_token;
  int tokens;

  struct Row {
    HeadTile tile;  // of the pair
    int dim;        // the first one's, in the head
    float bias[2];
  };
  struct Token {
    int at;
    StepRow row;
  };
  __device__ int pair_at(int i) const { return i / 16 * 8 + i % 8; }
  __device__ int row_at(int i) const {
    const int pair = pair_at(i);
    return pair / half * (2 * half) + pair % half + i / 8 % 2 * half;
  }
  __device__ std::uint32_t input_at(int i) const {
    return static_cast<std::uint32_t>(first_token + min(i, tokens - 1));
  }
  __device__ Row row(int i) const {
    const int pair = pair_at(i);
    Row row{{source, first_head + pair / half, pair % half}, pair % half, {}};
    if (row.tile.head >= (source == 0 ? args.q_heads : args.kv.heads)) {
      row.tile.head = -1;
      return row;
    }
    const float* bias = args.bias[source] + row.tile.head * 2 * half;
    row.bias[0] = bias[row.dim];
    row.bias[1] = bias[row.dim + half];
    return row;
  }
  __device__ Token token(int i) const {
    return {first_token + i, args.inputs.rows[first_token + i]};
  }
  __device__ void store(const Row& row, const Token& token, float a, float b) const {
    if (row.tile.head < 0 || token.row.seq < 0) return;
    a += row.bias[0];
    b += row.bias[1];
    if (source != 2) {
      const Rotation rotation(
          __ldg(args.rotations + static_cast<std::size_t>(token.at) * half + row.dim));
      const float first = rotation.first(a, b);
      b = rotation.second(b, a);
      a = first;
    }
    if (source == 0) {
      float* q =
          args.q + (static_cast<std::size_t>(token.at) * args.q_heads + row.tile.head) * 2 * half;
      q[row.dim] = a;
      q[row.dim + half] = b;
    } else if (args.kv.bf16) {
      put(kv_values<std::uint16_t>(args, token.row, row.tile) + row.dim, a, b);
    } else {
      put(kv_values<float>(args, token.row, row.tile) + row.dim, a, b);
    }
  }
  template <class Kv>
  __device__ void put(Kv* to, float a, float b) const {
    store_rounded(to, a);
    store_rounded(to + half, b);
  }
};

template <class T>
__global__ void __launch_bounds__(T::kThreads, dense_blocks<T>())
    qkv_gemm_kernel(const QkvArgs args, const int memory) {
  dependents_may_start();
  int source = 0;
  int tile = blockIdx.y;
  for (; source < 2; ++source) {
    const int tiles = (args.weight[source].rows + T::kM - 1) / T::kM;
    if (tile < tiles) break;
    tile -= tiles;
  }
  const Matrix& matrix = args.weight[source];
  const int head_dim = args.kv.head_dim;
  const int first = tile * T::kM;
  const int token = blockIdx.x * T::kN;
  const QkvJob job{args,         source, first / head_dim,
                   head_dim / 2, token,  min(T::kN, args.rows - token)};
  typename T::Sums sums = {};
  multiply_tile<T, true>(panel_of<typename T::Format>(matrix, first), args.x16, job,
                         steps_of<typename T::Format>(matrix.cols, blockIdx.z, gridDim.z), memory,
                         sums);
  if (add_parts<T>(args.partials, blockIdx.y * gridDim.x + blockIdx.x, blockIdx.z, gridDim.z, sums))
    store_tile<T>(job, sums);
}

template <class T>
void launch_tile(cudaStream_t stream, const QkvArgs& args, int row_tiles) {
  const std::int32_t k = args.weight[0].cols;
  const int tiles = static_cast<int>(divide_up(args.rows, T::kN)) * row_tiles;
  const dim3 grid(divide_up(args.rows, T::kN), row_tiles, parts_of<T>(k, tiles, args.partials));
  const int memory = tile_memory<T>(k, dense_blocks<T>());
  launch_tiles(stream, grid, T::kThreads, memory, qkv_gemm_kernel<T>, args, memory);
}

template <class Dense>
void launch_format(cudaStream_t stream, const QkvArgs& args) {
  const auto row_tiles = [&](int m) {
    unsigned tiles = 0;
    for (const Matrix& matrix : args.weight) tiles += divide_up(matrix.rows, m);
    return static_cast<int>(tiles);
  };
  if (args.kv.head_dim > 64)
    return launch_tile<Tile<typename Dense::Many, 128, 64, 2>>(stream, args, row_tiles(128));
  const auto tiles = [&](int m, int n) { return divide_up(args.rows, n) * row_tiles(m); };
  with_dense_tile<Dense>(args.weight[0].cols, args.rows, tiles, [&](auto tile) {
    using T = decltype(tile);
    launch_tile<T>(stream, args, row_tiles(T::kM));
  });
}

}  // namespace

void launch_qkv_gemm(cudaStream_t stream, const QkvArgs& args) {
  if (args.rows == 0) return;
  if (args.weight[0].scales == nullptr) launch_format<Bf16Dense>(stream, args);
  else launch_format<Int8Dense>(stream, args);
}

}  // namespace strata::kernels::cuda
