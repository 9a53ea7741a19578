#include "kernels/cpu/dense.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <mutex>
#include <vector>

#include "base/bf16.h"
#include "base/check.h"
#include "base/result.h"
#include "kernels/cpu/primitives.h"
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

DenseWeight::DenseWeight(const TensorView& view, const Shard& shard, WeightFormat format,
                         ThreadPool& pool)
    : format_(view.shape.size() == 1 ? WeightFormat::kF32 : format) {
  if (view.dtype != DType::kBf16 && view.dtype != DType::kF32)
    throw StartupError(fmt::format("{}: tensor {} is neither bf16 nor f32", view.file, view.name),
                       "convert the dense weights to bfloat16");
  const bool is_vector = view.shape.size() == 1;
  STRATA_CHECK(is_vector || view.shape.size() == 2, "{}", view.name);
  const std::int64_t full_rows = is_vector ? 1 : view.shape[0];
  Part part{.full_cols = view.shape.back(), .first_col = 0};
  std::int64_t rows = full_rows, cols = part.full_cols;
  const int last_axis = is_vector ? 0 : 1;
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
  data_ = HostBuffer("weights.dense", format_ == WeightFormat::kI8g32 ? i8_matrix_bytes(rows, cols)
                                      : is_vector                     ? count * sizeof(float)
                                                                      : count * sizeof(Bf16));

  // Pieces of whole tiles, so that no two workers write into one.
  const auto row_bytes = part.full_cols * static_cast<std::int64_t>(dtype_size(view.dtype));
  const std::int64_t step =
      std::max<std::int64_t>(kTileRows, kReadBytes / row_bytes / kTileRows * kTileRows);
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
  if (view.dtype == DType::kBf16 && format_ == WeightFormat::kBf16 && cols_ == part.full_cols) {
    std::byte* to = data_.data() + static_cast<std::size_t>(begin) * cols * element;
    view.source->read(offset_of(begin),
                      {to, static_cast<std::size_t>(end - begin) * cols * element});
    return;
  }
  std::vector<std::byte> row_data(cols * element);
  std::vector<float> values(cols);
  for (std::int64_t row = begin; row < end; ++row) {
    view.source->read(offset_of(row), row_data);
    for (std::size_t i = 0; i < cols; ++i) values[i] = value_at(row_data.data(), i, view.dtype);
    store_row(row, values);
  }
}

void DenseWeight::store_row(std::int64_t row, std::span<const float> values) {
  const std::size_t first = static_cast<std::size_t>(row) * values.size();
  if (format_ == WeightFormat::kI8g32) quantise_row(row, values);
  else if (format_ == WeightFormat::kF32)
    std::copy(values.begin(), values.end(), data_.as<float>().data() + first);
  else std::transform(values.begin(), values.end(), data_.as<Bf16>().data() + first, to_bf16);
}

std::int64_t DenseWeight::num_tiles() const { return (rows_ + kTileRows - 1) / kTileRows; }

const std::byte* DenseWeight::tile(std::int64_t index) const {
  return data_.data() + index * (cols_ / kBlock) * kTileBlockBytes;
}

const std::byte* DenseWeight::tile_scales(std::int64_t index) const {
  return tile(num_tiles()) + index * (cols_ / kBlock) * kTileRows * 2;
}

void DenseWeight::quantise_row(std::int64_t row, std::span<const float> values) {
  const std::int64_t index = row / kTileRows;
  const int row_in_tile = static_cast<int>(row % kTileRows);
  auto* bytes = const_cast<std::byte*>(tile(index));
  auto* scales = reinterpret_cast<Bf16*>(const_cast<std::byte*>(tile_scales(index)));
  for (std::size_t first = 0; first < values.size();
       first += kBlock, bytes += kTileBlockBytes, scales += kTileRows) {
    const std::span<const float> group = values.subspan(first, kBlock);
    float largest = 0.0F;
    for (const float value : group) largest = std::max(largest, std::fabs(value));
    Bf16 scale = to_bf16(largest / 127.0F);
    if (to_float(scale) * 127.0F < largest) ++scale.bits;  // the next one: no weight exceeds 127
    scales[row_in_tile] = scale;
    const float inverse = to_float(scale) > 0.0F ? 1.0F / to_float(scale) : 0.0F;
    for (int i = 0; i < kBlock; ++i) {
      const float q = std::nearbyint(group[static_cast<std::size_t>(i)] * inverse);
      bytes[i8_index(row_in_tile, i)] =
          static_cast<std::byte>(static_cast<int>(std::clamp(q, -127.0F, 127.0F)) + 128);
    }
  }
}

std::size_t i8_matrix_bytes(std::int64_t rows, std::int64_t cols) {
  const std::int64_t blocks = (rows + kTileRows - 1) / kTileRows * (cols / kBlock);
  return static_cast<std::size_t>(blocks * (kTileBlockBytes + kTileRows * 2));
}

}  // namespace strata::kernels::cpu
