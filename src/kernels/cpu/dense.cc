#include "kernels/cpu/dense.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <mutex>
#include <vector>

#include "base/bf16.h"
#include "base/check.h"
#include "base/result.h"
#include "kernels/cpu/work_share.h"

namespace strata::kernels::cpu {
namespace {

constexpr std::int64_t kReadBytes = std::int64_t{4} << 20;  // of one call of a source

float value_at(const std::byte* data, std::size_t index, DType dtype) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, data + index * sizeof value, sizeof value);
    return value;
  }
  Bf16 value;
  std::memcpy(&value, data + index * sizeof value, sizeof value);
  return to_float(value);
}

}  // namespace

// The part of the tensor this rank holds: columns [first_col, first_col + cols) of its rows.
struct DenseWeight::Part {
  std::int64_t full_cols = 0;
  std::int64_t first_col = 0;
};

DenseWeight::DenseWeight(const TensorView& view, const Shard& shard, ThreadPool& pool)
    : is_vector_(view.shape.size() == 1) {
  if (view.dtype != DType::kBf16 && view.dtype != DType::kF32)
    throw StartupError(fmt::format("{}: tensor {} is neither bf16 nor f32", view.file, view.name),
                       "convert the dense weights to bfloat16");
  STRATA_CHECK(is_vector_ || view.shape.size() == 2, "{}", view.name);
  const std::int64_t full_rows = is_vector_ ? 1 : view.shape[0];
  Part part{.full_cols = view.shape.back(), .first_col = 0};
  std::int64_t rows = full_rows, cols = part.full_cols;
  const int last_axis = is_vector_ ? 0 : 1;
  if (shard.axis == last_axis) {
    part.first_col = shard.begin;
    cols = shard.end - shard.begin;
  } else if (shard.axis == 0) {
    first_row_ = shard.begin;
    rows = shard.end - shard.begin;
  }
  STRATA_CHECK(part.first_col + cols <= part.full_cols && first_row_ + rows <= full_rows, "{}",
               view.name);
  rows_ = static_cast<std::int32_t>(rows);
  cols_ = static_cast<std::int32_t>(cols);
  const auto count = static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols);
  data_ = HostBuffer("weights.dense", count * (is_vector_ ? sizeof(float) : sizeof(Bf16)));

  const auto row_bytes = part.full_cols * static_cast<std::int64_t>(dtype_size(view.dtype));
  const std::int64_t step = std::max<std::int64_t>(1, kReadBytes / row_bytes);
  std::mutex mutex;
  std::exception_ptr failure;
  share_work(pool, static_cast<int>((rows + step - 1) / step), 1, [&](int, int begin, int end) {
    try {
      for (int i = begin; i < end; ++i)
        read_rows(view, part, i * step, std::min(rows, (i + 1) * step));
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

void DenseWeight::read_rows(const TensorView& view, const Part& part, std::int64_t begin,
                            std::int64_t end) {
  const std::size_t element = dtype_size(view.dtype);
  const auto cols = static_cast<std::size_t>(cols_);
  const auto offset_of = [&](std::int64_t row) {
    return static_cast<std::size_t>((first_row_ + row) * part.full_cols + part.first_col) * element;
  };
  if (view.dtype == DType::kBf16 && !is_vector_ && cols_ == part.full_cols) {
    std::byte* to = data_.data() + static_cast<std::size_t>(begin) * cols * element;
    view.source->read(offset_of(begin),
                      {to, static_cast<std::size_t>(end - begin) * cols * element});
    return;
  }
  std::vector<std::byte> row_data(cols * element);
  for (std::int64_t row = begin; row < end; ++row) {
    view.source->read(offset_of(row), row_data);
    const std::size_t first = static_cast<std::size_t>(row) * cols;
    for (std::size_t i = 0; i < cols; ++i) {
      const float value = value_at(row_data.data(), i, view.dtype);
      if (is_vector_) data_.as<float>()[first + i] = value;
      else data_.as<Bf16>()[first + i] = to_bf16(value);
    }
  }
}

}  // namespace strata::kernels::cpu
