// Dense int8 products of few rows by integer products: the output projection and the unembedding of
// decodes.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/planes.cuh"

namespace strata::kernels::cuda {
namespace {

constexpr int kRows = 2;  // of a group
constexpr int kAhead = 3;

// Rows that are normed on the way: which of the step's they are.
struct NormedRows {
  NormArgs norm;
  std::int32_t first;  // logits row
};

template <int kColumns, int kGroups, bool kNormed>
__global__ void __launch_bounds__(kBlockThreads, 3)
    dense_planes_kernel(const DenseArgs args, const NormedRows normed) {
  extern __shared__ uint4 shared[];
  __shared__ float factors[kColumns];
  auto* planes = reinterpret_cast<std::byte*>(shared);
  const int k = args.weight.cols;
  const int rows = args.weight.rows;
  const int first = (blockIdx.x * kBlockWarps + warp_id()) * kGroups * kRows;
  RowStream<Int8Pieces, kRows, kAhead> stream(Int8Pieces(args.weight),
                                              {first, kRows, 1, kGroups, rows});
  dependents_may_start();
  stream.start_reading();
  dependency_wait();
  if constexpr (kNormed) {
    stage_normed_planes<kBlockWarps>(planes, factors, args.count, normed.norm, [&](int c) {
      return normed.norm.inputs.logits[normed.first + c].row;
    });
  } else {
    stage_planes<kBlockWarps>(planes, args.count, k, [&](int c, int at, float(&values)[8]) {
      load8(args.x + static_cast<std::size_t>(c) * k + at, values);
    });
    __syncthreads();
  }
  int places[kColumns];
  place_columns(places, args.count, k);
  stream.template multiply<kColumns>(planes, places, [&](int group, float value) {
    constexpr int kSums = kRows * kColumns;
    const int row = first + group * kRows + sum_of_lane<kSums>() / kColumns;
    const int column = sum_of_lane<kSums>() % kColumns;
    if (!owns_sum<kSums>() || row >= rows || column >= args.count) return;
    if constexpr (kNormed) value *= factors[column];
    args.out[static_cast<std::size_t>(column) * rows + row] =
        args.bias == nullptr ? value : value + args.bias[row];
  });
}

// Many rows keep a card full with several groups a warp, which share the planes' making.
template <int kColumns, bool kNormed>
void launch_columns(cudaStream_t stream, const DenseArgs& args, const NormedRows& normed) {
  constexpr int kManyRows = 32768;
  const std::size_t planes = static_cast<std::size_t>(args.count) *
                             static_cast<std::size_t>(plane_bytes(args.weight.cols));
  const auto blocks = [&](int groups) {
    return dim3(divide_up(args.weight.rows, kBlockWarps * groups * kRows));
  };
  if (args.weight.rows >= kManyRows)
    launch_early(stream, {blocks(8), planes}, dense_planes_kernel<kColumns, 8, kNormed>, args,
                 normed);
  else
    launch_early(stream, {blocks(1), planes}, dense_planes_kernel<kColumns, 1, kNormed>, args,
                 normed);
}

}  // namespace

void launch_dense_planes(cudaStream_t stream, const DenseArgs& args) {
  if (args.count == 1) launch_columns<1, false>(stream, args, {});
  else launch_columns<kPlaneRows, false>(stream, args, {});
}

void launch_normed_head_planes(cudaStream_t stream, std::int32_t first, const NormArgs& norm,
                               const DenseArgs& args) {
  if (args.count == 1) launch_columns<1, true>(stream, args, {norm, first});
  else launch_columns<kPlaneRows, true>(stream, args, {norm, first});
}

}  // namespace strata::kernels::cuda
