// embed, and the norms before qkv and head.
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/numbers.cuh"

namespace strata::kernels::cuda {
namespace {

__global__ void embed_kernel(const EmbedArgs args) {
  const StepRow row = args.inputs.rows[blockIdx.x];
  const int hidden = args.table.cols;
  float* out = args.x + static_cast<std::size_t>(blockIdx.x) * hidden;
  const std::int64_t id = row.token - args.first_row;
  const bool mine = row.seq >= 0 && id >= 0 && id < args.table.rows;
  const std::uint16_t* values =
      static_cast<const std::uint16_t*>(args.table.data) + (mine ? id : 0) * hidden;
  for (int i = static_cast<int>(threadIdx.x) * 8; i < hidden; i += kBlockThreads * 8) {
    float eight[8] = {};
    if (mine) load8(values + i, eight);
    store8(out + i, eight);
  }
}

// Stores to row `row` of out.
__device__ auto to_row(const NormArgs& args, std::int32_t row) {
  float* out = args.out + static_cast<std::size_t>(row) * args.hidden;
  return [out](int i, const float(&values)[8]) { store8(out + i, values); };
}

__global__ void __launch_bounds__(kBlockThreads) norm_kernel(const NormArgs args) {
  const auto row = static_cast<std::int32_t>(blockIdx.x);
  dependents_may_start();
  dependency_wait();
  if (args.inputs.rows[row].seq < 0) return;
  if (args.out16 == nullptr) return norm_row<true, kBlockWarps>(args, row, to_row(args, row));
  std::uint16_t* out = args.out16 + static_cast<std::size_t>(row) * args.hidden;
  norm_row<true, kBlockWarps>(args, row, [&](int i, const float(&values)[8]) {
    store8_operands(out + i, values, args.order16);
  });
}

// Rows without logits are left as they are; nobody reads what the head makes of them.
__global__ void __launch_bounds__(kBlockThreads)
    head_norm_kernel(const NormArgs args, std::int32_t first) {
  dependents_may_start();
  dependency_wait();
  const std::int32_t row = args.inputs.logits[first + blockIdx.x].row;
  if (row < 0) return;
  norm_row<false, kBlockWarps>(args, row, to_row(args, static_cast<std::int32_t>(blockIdx.x)));
}

}  // namespace

void launch_embed(cudaStream_t stream, std::int32_t rows, const EmbedArgs& args) {
  launch(stream, dim3(rows), embed_kernel, args);
}

void launch_norm(cudaStream_t stream, std::int32_t rows, const NormArgs& args) {
  launch_early(stream, {dim3(rows)}, norm_kernel, args);
}

void launch_head_norm(cudaStream_t stream, std::int32_t first, std::int32_t count,
                      const NormArgs& args) {
  launch_early(stream, {dim3(count)}, head_norm_kernel, args, first);
}

}  // namespace strata::kernels::cuda
