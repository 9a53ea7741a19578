// Dense weights of the CPU backend: matrices in bfloat16 as in the checkpoint, vectors in float32.
// Read once at start-up, on all workers, straight into their place; const afterwards.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/memory.h"
#include "base/tensor_view.h"
#include "base/thread_pool.h"
#include "kernels/stages.h"

namespace strata::kernels::cpu {

class DenseWeight {
 public:
  // Throws StartupError naming the tensor when it is neither bf16 nor f32, and what
  // view.source->read throws. Float32 matrices are rounded to bfloat16.
  DenseWeight(const TensorView& view, const Shard& shard, ThreadPool& pool);

  std::int32_t rows() const { return rows_; }  // 1 for a vector
  std::int32_t cols() const { return cols_; }
  std::int64_t first_row() const { return first_row_; }  // of the whole tensor
  std::size_t bytes() const { return data_.size(); }

  const std::byte* row(std::int64_t index) const {  // a matrix's, bf16 [cols]
    return data_.data() + static_cast<std::size_t>(index) * static_cast<std::size_t>(cols_) * 2;
  }
  const float* vector() const { return reinterpret_cast<const float*>(data_.data()); }

 private:
  struct Part;
  void read_rows(const TensorView& view, const Part& part, std::int64_t begin, std::int64_t end);

  bool is_vector_ = false;
  std::int32_t rows_ = 0;
  std::int32_t cols_ = 0;
  std::int64_t first_row_ = 0;
  HostBuffer data_;  // site "weights.dense"
};

}  // namespace strata::kernels::cpu
