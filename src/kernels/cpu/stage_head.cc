// head and sample of the CPU backend.
#include <algorithm>

#include "base/check.h"
#include "kernels/cpu/cpu_stages.h"

namespace strata::kernels::cpu {

void CpuBackend::head(const StepShape&, const ModelWeights& weights, Buffer x, const Deltas& deltas,
                      std::int32_t first, std::int32_t count) {
  Timer timer(*this, Stage::kHead);
  InputRows& inputs = head_rows_;
  std::vector<std::int32_t>& indices = head_indices_;
  inputs.clear();
  indices.clear();
  for (std::int32_t index = first; index < first + count; ++index) {
    if (!step_->wants_logits(index)) continue;
    NormRow norm = norm_row(x, deltas, weights.final_norm, step_->logits_row(index)->row);
    norm.out = head_input_.float_row(index - first);
    primitives_.norm(norm);
    if (dense_is_int8()) quantise(norm.out, config_.hidden, 0, head_input_.quad_row(index - first));
    inputs.add(head_input_, static_cast<std::size_t>(index - first));
    indices.push_back(index - first);
  }
  if (indices.empty()) return;
  const DenseWeight& matrix = weight(weights.unembedding);
  STRATA_CHECK(matrix.rows() == config_.vocab, "{} of {} ids", matrix.rows(), config_.vocab);
  const std::int32_t unit = unit_rows(static_cast<std::int32_t>(indices.size()));
  const int grain =
      grain_of(std::int64_t{unit} * matrix.cols() * static_cast<std::int64_t>(indices.size()));
  share_work(pool_, (matrix.rows() + unit - 1) / unit, grain, [&](int worker, int begin, int end) {
    const Worker& memory = workers_[static_cast<std::size_t>(worker)];
    for (std::int32_t row = begin * unit; row < std::min(end * unit, matrix.rows()); row += unit) {
      const std::int32_t rows = std::min(unit, matrix.rows() - row);
      multiply(matrix, row, rows, inputs, memory.y, memory);
      for (std::size_t i = 0; i < indices.size(); ++i)
        std::copy_n(memory.y + static_cast<std::ptrdiff_t>(i) * rows, rows,
                    row_of({logits_}, indices[i], config_.vocab) + row);
    }
  });
  timer.multiply(matrix, static_cast<std::int64_t>(indices.size()));
}

void CpuBackend::sample(const StepShape&, std::int32_t first, std::int32_t count) {
  Timer timer(*this, Stage::kSample);
  for (std::int32_t index = first; index < first + count; ++index)
    sampler_.process(
        *step_, index,
        {row_of({logits_}, index - first, config_.vocab), static_cast<std::size_t>(config_.vocab)});
}

}  // namespace strata::kernels::cpu
