#include "kernels/ref/ref_weights.h"

#include <fmt/core.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/bf16.h"
#include "base/check.h"
#include "base/result.h"

namespace strata::kernels::ref {
namespace {

template <typename T>
T load(const std::byte* base, std::size_t index) {
  T value;
  std::memcpy(&value, base + index * sizeof(T), sizeof(T));
  return value;
}

float load_bf16(const std::byte* base, std::size_t index) {
  return to_float(load<Bf16>(base, index));
}

// Sum of weight(i) * x[i] in four interleaved partial sums, which lets the processor overlap them.
template <typename Weight>
double dot_double(const Weight& weight, std::span<const float> x) {
  std::array<double, 4> sums{};
  for (std::size_t i = 0; i < x.size(); ++i)
    sums[i % 4] += static_cast<double>(weight(i)) * static_cast<double>(x[i]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// E2M1 values by their 4 bits: sign, two exponent bits, one mantissa bit.
constexpr std::array<double, 16> kFp4 = {0.0,  0.5,  1.0,  1.5,  2.0,  3.0,  4.0,  6.0,
                                         -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0};

// E8M0: a power of two; 255 is NaN.
double scale_value(std::byte scale) {
  const int exponent = std::to_integer<int>(scale);
  if (exponent == 255) return std::numeric_limits<double>::quiet_NaN();
  return std::ldexp(1.0, exponent - 127);
}

}  // namespace

DenseTensor::DenseTensor(const TensorView& view, Role role, const Shard& shard)
    : role_(role), dtype_(view.dtype) {
  if (dtype_ != DType::kBf16 && dtype_ != DType::kF32)
    throw StartupError(fmt::format("{}: dense tensors must be bf16 or f32", view.name));
  STRATA_CHECK(view.shape.size() == 1 || view.shape.size() == 2, "{}", view.name);
  const bool vector = view.shape.size() == 1;
  const std::int64_t full_rows = vector ? 1 : view.shape[0];
  const std::int64_t full_cols = vector ? view.shape[0] : view.shape[1];
  const int last_axis = vector ? 0 : 1;
  const bool by_column = shard.axis == last_axis;
  const bool by_row = shard.axis >= 0 && !by_column;
  first_row_ = by_row ? shard.begin : 0;
  rows_ = by_row ? shard.end - shard.begin : full_rows;
  cols_ = by_column ? shard.end - shard.begin : full_cols;
  const std::int64_t first_col = by_column ? shard.begin : 0;
  STRATA_CHECK(first_row_ >= 0 && first_row_ + rows_ <= full_rows && first_col >= 0 &&
                   first_col + cols_ <= full_cols,
               "shard of {} is outside the tensor", view.name);
  data_ = HostBuffer("weights.dense", static_cast<std::size_t>(rows_ * cols_) * dtype_size(dtype_));
  read_columns(view, full_cols, first_col);
}

void DenseTensor::read_columns(const TensorView& view, std::int64_t full_cols,
                               std::int64_t first_col) {
  const std::size_t size = dtype_size(dtype_);
  const auto first = static_cast<std::size_t>(first_row_ * full_cols + first_col) * size;
  if (cols_ == full_cols) {
    view.source->read(first, {data_.data(), data_.size()});
    return;
  }
  const std::size_t row_bytes = static_cast<std::size_t>(cols_) * size;
  for (std::int64_t row = 0; row < rows_; ++row) {
    const std::size_t offset = first + static_cast<std::size_t>(row * full_cols) * size;
    view.source->read(offset,
                      {data_.data() + static_cast<std::size_t>(row) * row_bytes, row_bytes});
  }
}

float DenseTensor::at(std::int64_t row, std::int64_t col) const {
  const auto index = static_cast<std::size_t>(row * cols_ + col);
  return dtype_ == DType::kF32 ? load<float>(data_.data(), index) : load_bf16(data_.data(), index);
}

double DenseTensor::dot(std::int64_t row, std::span<const float> x) const {
  STRATA_DCHECK(static_cast<std::int64_t>(x.size()) == cols_);
  const std::byte* first =
      data_.data() + static_cast<std::size_t>(row * cols_) * dtype_size(dtype_);
  if (dtype_ == DType::kF32)
    return dot_double([first](std::size_t i) { return load<float>(first, i); }, x);
  return dot_double([first](std::size_t i) { return load_bf16(first, i); }, x);
}

double ExpertMatrix::bias_at(std::int32_t row) const {
  return load_bf16(bias, static_cast<std::size_t>(row));
}

double ExpertMatrix::dot(std::int32_t row, std::span<const float> x) const {
  STRATA_DCHECK(static_cast<std::int32_t>(x.size()) == k);
  if (format == ExpertFormat::kBf16) {
    const std::byte* first = weights + std::ptrdiff_t{row} * k * 2;
    return dot_double([first](std::size_t i) { return load_bf16(first, i); }, x);
  }
  const auto groups = static_cast<std::size_t>(k / 32);
  double sum = 0.0;
  for (std::size_t group = 0; group < groups; ++group) {
    const std::size_t block = static_cast<std::size_t>(row) * groups + group;
    const std::byte* pairs = weights + block * 16;
    const auto value = [pairs](std::size_t i) {
      const auto pair = std::to_integer<unsigned>(pairs[i / 2]);
      return kFp4[i % 2 == 0 ? pair & 15U : pair >> 4U];
    };
    sum += dot_double(value, x.subspan(group * 32, 32)) * scale_value(scales[block]);
  }
  return sum;
}

ExpertMatrix gate_up_of(const SlabLayout& layout, const std::byte* slab) {
  return {slab + layout.gate_up_blocks, slab + layout.gate_up_scales, slab + layout.gate_up_bias,
          layout.hidden, layout.format};
}

ExpertMatrix down_of(const SlabLayout& layout, const std::byte* slab) {
  return {slab + layout.down_blocks, slab + layout.down_scales, slab + layout.down_bias,
          layout.intermediate, layout.format};
}

}  // namespace strata::kernels::ref
