// Weights as the reference backend keeps them: the checkpoint's own numbers, exactly.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/memory.h"
#include "base/tensor_view.h"
#include "kernels/slab.h"
#include "kernels/stages.h"

namespace strata::kernels::ref {

// A dense matrix [rows, cols] (a vector is one row), float32 or bfloat16 as in the file. Of a
// sharded tensor only [shard.begin, shard.end) along shard.axis is kept.
class DenseTensor {
 public:
  // Throws StartupError naming the tensor when it is neither bf16 nor f32.
  DenseTensor(const TensorView& view, Role role, const Shard& shard);

  Role role() const { return role_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  std::int64_t first_row() const { return first_row_; }  // of the whole tensor
  std::size_t bytes() const { return data_.size(); }

  float at(std::int64_t row, std::int64_t col) const;
  // Row `row` times `x` [cols], accumulated in double.
  double dot(std::int64_t row, std::span<const float> x) const;

 private:
  void read_columns(const TensorView& view, std::int64_t full_cols, std::int64_t first_col);

  Role role_;
  DType dtype_;
  std::int64_t rows_ = 0;
  std::int64_t cols_ = 0;
  std::int64_t first_row_ = 0;
  HostBuffer data_;
};

// One matrix of an expert's slab.
struct ExpertMatrix {
  const std::byte* weights = nullptr;  // MXFP4 blocks, or bf16
  const std::byte* scales = nullptr;   // MXFP4 only
  const std::byte* bias = nullptr;     // bf16 [rows]
  std::int32_t k = 0;
  ExpertFormat format = ExpertFormat::kMxfp4;

  double bias_at(std::int32_t row) const;
  double dot(std::int32_t row, std::span<const float> x) const;  // without the bias
};

ExpertMatrix gate_up_of(const SlabLayout& layout, const std::byte* slab);
ExpertMatrix down_of(const SlabLayout& layout, const std::byte* slab);

}  // namespace strata::kernels::ref
