// Queries, keys and values of few rows from int8 weights by integer products.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/planes.cuh"
#include "kernels/cuda/qkv.cuh"

namespace strata::kernels::cuda {
namespace {

constexpr int kRows = 2;  // of a group: a rotary pair
constexpr int kAhead = 3;
constexpr int kWarps = 8;  // of a block

// A warp makes a rotary pair.
template <int kColumns, class Kv, bool kNormed, bool kFixed>
__global__ void __launch_bounds__(kWarps* kWarp, 3) qkv_planes_kernel(const QkvArgs args) {
  extern __shared__ uint4 shared[];
  __shared__ float factors[kColumns];
  auto* planes = reinterpret_cast<std::byte*>(shared);
  const int half = args.kv.head_dim / 2;
  const int pairs = (args.q_heads + 2 * args.kv.heads) * half;
  const int index = blockIdx.x * kWarps + warp_id();
  const int mine = min(index, pairs - 1);
  HeadTile tile = head_tile(args, mine / half * (args.kv.head_dim / kTileRows));
  tile.pair = mine % half;
  const Matrix& matrix = args.weight[tile.source];
  const int groups = index < pairs ? 1 : 0;
  const int first = tile.head * args.kv.head_dim + tile.pair;
  auto stream = [&] {
    if constexpr (kFixed)
      return FixedStream<Int8Pieces, kRows, 32, kAhead, 2880>(Int8Pieces(matrix), first, groups);
    else
      return RowStream<Int8Pieces, kRows, kAhead>(Int8Pieces(matrix),
                                                  {first, 0, half, groups, matrix.rows});
  }();
  dependents_may_start();
  stream.start_reading();
  constexpr int kSums = kRows * kColumns;
  const int column = sum_of_lane<kSums>() % kColumns;
  const PairPlace<Kv> place(args, tile, min(column, args.rows - 1), tile.pair);
  dependency_wait();
  if constexpr (kNormed) {
    stage_normed_planes<kWarps>(planes, factors, args.rows, args.norm, [](int c) { return c; });
  } else {
    stage_planes<kWarps>(planes, args.rows, matrix.cols, [&](int c, int at, float(&values)[8]) {
      load8(args.x + static_cast<std::size_t>(c) * matrix.cols + at, values);
    });
    __syncthreads();
  }
  const float* bias = args.bias[tile.source] + tile.head * args.kv.head_dim + tile.pair;
  int places[kColumns];
  place_columns(places, args.rows, matrix.cols);
  const auto done = [&](int, float value) {
    const bool is_second = sum_of_lane<kSums>() >= kColumns;
    if constexpr (kNormed) value *= factors[column];
    value += bias[is_second ? half : 0];
    const float other = from_lane_xor(value, kWarp / 2);
    if (owns_sum<kSums>() && column < args.rows) place.store(is_second, half, value, other);
  };
  if constexpr (kFixed) stream.template multiply<kColumns>(planes, places, groups, done);
  else stream.template multiply<kColumns>(planes, places, done);
}

template <int kColumns, class Kv, bool kNormed>
void launch_rows(cudaStream_t stream, const QkvArgs& args) {
  const std::size_t planes = static_cast<std::size_t>(args.rows) *
                             static_cast<std::size_t>(plane_bytes(args.weight[0].cols));
  const int pairs = (args.q_heads + 2 * args.kv.heads) * (args.kv.head_dim / 2);
  launch_early(stream, {dim3(divide_up(pairs, kWarps)), planes, kWarps * kWarp},
               args.weight[0].cols == 2880 && args.kv.head_dim == 64
                   ? qkv_planes_kernel<kColumns, Kv, kNormed, true>
                   : qkv_planes_kernel<kColumns, Kv, kNormed, false>,
               args);
}

template <class Kv>
void launch_kv(cudaStream_t stream, const QkvArgs& args) {
  const auto launch_columns = [&]<int kColumns>() {
    if (args.x == nullptr) launch_rows<kColumns, Kv, true>(stream, args);
    else launch_rows<kColumns, Kv, false>(stream, args);
  };
  if (args.rows == 1) launch_columns.template operator()<1>();
  else launch_columns.template operator()<kPlaneRows>();
}

}  // namespace

void launch_qkv_planes(cudaStream_t stream, const QkvArgs& args) {
  if (args.kv.bf16) launch_kv<std::uint16_t>(stream, args);
  else launch_kv<float>(stream, args);
}

}  // namespace strata::kernels::cuda
