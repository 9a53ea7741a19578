// Dense weights of the CPU backend: matrices in bfloat16 as in the checkpoint or in int8 tiles,
// vectors in float32. Read once at start-up, on all workers; const afterwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/memory.h"
#include "base/tensor_view.h"
#include "base/thread_pool.h"
#include "kernels/stages.h"

namespace strata::kernels::cpu {

class DenseWeight {
 public:
  // `format` is of a matrix: kBf16 or kI8g32. int8 groups are 32 along K, symmetric, with a bf16
  // scale, in the tiles of primitives.h; they replace the source, which is read row by row.
  // Throws StartupError naming the tensor when it is neither bf16 nor f32, and what
  // view.source->read throws. Float32 matrices are rounded to bfloat16, or quantised as they are.
  DenseWeight(const TensorView& view, const Shard& shard, WeightFormat format, ThreadPool& pool);

  std::int32_t rows() const { return rows_; }  // 1 for a vector
  std::int32_t cols() const { return cols_; }
  std::int64_t first_row() const { return first_row_; }  // of the whole tensor
  std::size_t bytes() const { return data_.size(); }
  WeightFormat format() const { return format_; }  // kF32 for a vector

  const std::byte* row(std::int64_t index) const {  // kBf16: [cols]
    return data_.data() + static_cast<std::size_t>(index) * static_cast<std::size_t>(cols_) * 2;
  }
  const std::byte* tile(std::int64_t index) const;         // kI8g32
  const std::byte* tile_scales(std::int64_t index) const;  // kI8g32
  const float* vector() const { return reinterpret_cast<const float*>(data_.data()); }

 private:
  struct Part;
  void read_rows(const TensorView& view, const Part& part, std::int64_t begin, std::int64_t end);
  void store_row(std::int64_t row, std::span<const float> values);
  void quantise_row(std::int64_t row, std::span<const float> values);
  std::int64_t num_tiles() const;

  WeightFormat format_;
  std::int32_t rows_ = 0;
  std::int32_t cols_ = 0;
  std::int64_t first_row_ = 0;
  HostBuffer data_;  // site "weights.dense"; kI8g32: all tiles, then all scales
};

// Bytes of an int8 matrix.
std::size_t i8_matrix_bytes(std::int64_t rows, std::int64_t cols);

}  // namespace strata::kernels::cpu
