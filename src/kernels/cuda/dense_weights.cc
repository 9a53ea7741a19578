#include "kernels/cuda/dense_weights.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/bf16.h"
#include "base/check.h"
#include "base/log.h"
#include "base/result.h"

namespace strata::kernels::cuda {
namespace {

constexpr std::int64_t kStagingBytes = std::int64_t{16} << 20;

bool may_be_int8(Role role) {
  return role == Role::kQWeight || role == Role::kKWeight || role == Role::kVWeight ||
         role == Role::kOutWeight || role == Role::kUnembedding;
}

// The part of the tensor this rank holds.
struct Part {
  std::int64_t first_row = 0, rows = 0;
  std::int64_t first_col = 0, cols = 0;
  std::int64_t full_cols = 0;
};

Part part_of(const TensorView& view, const Shard& shard) {
  const bool is_vector = view.shape.size() == 1;
  const int last_axis = is_vector ? 0 : 1;
  Part part;
  part.rows = is_vector ? 1 : view.shape[0];
  part.full_cols = view.shape.back();
  part.cols = part.full_cols;
  const std::int64_t full_rows = part.rows;
  if (shard.axis == last_axis) {
    part.first_col = shard.begin;
    part.cols = shard.end - shard.begin;
  } else if (shard.axis == 0) {
    part.first_row = shard.begin;
    part.rows = shard.end - shard.begin;
  }
  STRATA_CHECK(
      part.first_col + part.cols <= part.full_cols && part.first_row + part.rows <= full_rows, "{}",
      view.name);
  return part;
}

// Rows [begin, end) of the part as they lie in the file, packed.
std::vector<std::byte> read_rows(const TensorView& view, const Part& part, std::int64_t begin,
                                 std::int64_t end) {
  const std::size_t element = dtype_size(view.dtype);
  const auto row_bytes = static_cast<std::size_t>(part.cols) * element;
  std::vector<std::byte> data(static_cast<std::size_t>(end - begin) * row_bytes);
  const auto offset_of = [&](std::int64_t row) {
    return static_cast<std::size_t>((part.first_row + row) * part.full_cols + part.first_col) *
           element;
  };
  if (part.cols == part.full_cols) {
    view.source->read(offset_of(begin), data);
    return data;
  }
  for (std::int64_t row = begin; row < end; ++row)
    view.source->read(
        offset_of(row),
        std::span(data).subspan(static_cast<std::size_t>(row - begin) * row_bytes, row_bytes));
  return data;
}

std::vector<std::byte> widened(const std::vector<std::byte>& bf16) {
  std::vector<std::byte> out(bf16.size() * 2);
  for (std::size_t i = 0; i < bf16.size() / 2; ++i) {
    Bf16 value;
    std::memcpy(&value, bf16.data() + i * sizeof value, sizeof value);
    const float wide = to_float(value);
    std::memcpy(out.data() + i * sizeof wide, &wide, sizeof wide);
  }
  return out;
}

std::vector<std::byte> rounded(const std::vector<std::byte>& f32) {
  std::vector<std::byte> out(f32.size() / 2);
  for (std::size_t i = 0; i < f32.size() / 4; ++i) {
    float value;
    std::memcpy(&value, f32.data() + i * sizeof value, sizeof value);
    const Bf16 narrow = to_bf16(value);
    std::memcpy(out.data() + i * sizeof narrow, &narrow, sizeof narrow);
  }
  return out;
}

}  // namespace

DenseWeights::DenseWeights(const ModelConfig& config, WeightFormat format, const Stream& stream)
    : format_(format),
      stream_(stream),
      arena_("weights.dense", dense_weight_bytes(config, format)),
      embedding_("weights.embedding", embedding_bytes(config)) {}

WeightHandle DenseWeights::adopt(const TensorView& view, Role role, const Shard& shard) {
  if (view.dtype != DType::kBf16 && view.dtype != DType::kF32)
    throw StartupError(fmt::format("{}: tensor {} is neither bf16 nor f32", view.file, view.name),
                       "convert the dense weights to bfloat16");
  STRATA_CHECK(view.shape.size() == 1 || view.shape.size() == 2, "{}", view.name);
  const bool is_vector = view.shape.size() == 1;
  if (view.dtype == DType::kF32 && !is_vector)
    log_warn("{} is float32: rounded to bfloat16 for the card", view.name);
  const Part part = part_of(view, shard);
  const std::int64_t count = part.rows * part.cols;
  const bool int8 = format_ == WeightFormat::kI8g32 && may_be_int8(role);
  const std::size_t element = int8 ? 1 : (is_vector ? sizeof(float) : sizeof(Bf16));
  DenseWeight weight;
  weight.rows = static_cast<std::int32_t>(part.rows);
  weight.cols = static_cast<std::int32_t>(part.cols);
  weight.first_row = part.first_row;
  weight.bytes = static_cast<std::size_t>(count) * element;
  weight.data = role == Role::kEmbedding ? embedding_.data() : arena_.take(weight.bytes);
  const std::int64_t source_row = part.cols * static_cast<std::int64_t>(dtype_size(view.dtype));
  const std::int64_t step = std::max<std::int64_t>(1, kStagingBytes / source_row);
  std::optional<DeviceArena> staging;
  if (int8) {
    const std::size_t scale_bytes = static_cast<std::size_t>(count / kInt8Group) * sizeof(Bf16);
    weight.scales = reinterpret_cast<std::uint16_t*>(arena_.take(scale_bytes));
    weight.bytes += scale_bytes;
    staging.emplace("weights.dense",
                    static_cast<std::size_t>(std::min(step, part.rows) * part.cols) * sizeof(Bf16));
  }
  for (std::int64_t begin = 0; begin < part.rows; begin += step) {
    const std::int64_t first = begin * part.cols;
    std::vector<std::byte> data = read_rows(view, part, begin, std::min(part.rows, begin + step));
    if (is_vector && view.dtype == DType::kBf16) data = widened(data);
    if (!is_vector && view.dtype == DType::kF32) data = rounded(data);
    std::byte* to = weight.data + static_cast<std::size_t>(first) * element;
    copy_and_wait(stream_, int8 ? staging->data() : to, data.data(), data.size());
    if (int8)
      launch_quantise(stream_.get(), reinterpret_cast<const std::uint16_t*>(staging->data()),
                      reinterpret_cast<std::int8_t*>(to), weight.scales + first / kInt8Group,
                      static_cast<std::int64_t>(data.size() / sizeof(Bf16)));
  }
  if (int8) stream_.synchronize();  // before the staging goes
  weights_.push_back(weight);
  return {static_cast<std::uint32_t>(weights_.size())};
}

}  // namespace strata::kernels::cuda
