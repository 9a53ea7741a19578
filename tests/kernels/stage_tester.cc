#include "tests/kernels/stage_tester.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "base/bf16.h"
#include "base/check.h"
#include "base/random.h"

namespace strata::test {

StageTester::StageTester(const TestBackend& backend, std::unique_ptr<MemoryCheckpoint> checkpoint,
                         const kernels::BackendOptions& options)
    : description_(backend),
      checkpoint_(std::move(checkpoint)),
      options_(options),
      runner_(backend, *checkpoint_, options) {}

StageTester::StageTester(const TestBackend& backend, const ModelConfig& config,
                         const kernels::BackendOptions& options)
    : StageTester(backend, make_micro_checkpoint(config, 17), options) {}

void StageTester::add(SlotId slot, std::int32_t position, std::int32_t rows, Want want,
                      std::int32_t top_n) {
  if (std::find(admitted_.begin(), admitted_.end(), slot) == admitted_.end()) {
    SamplingParams greedy;
    greedy.temperature = 0.0F;
    Admission admission;
    admission.position = position;
    builder().admit(slot, greedy, admission);
    admitted_.push_back(slot);
  }
  STRATA_CHECK(builder().position(slot) == position);
  std::vector<TokenId> tokens;
  for (std::int32_t i = 0; i < rows; ++i) tokens.push_back(i % config().vocab);
  builder().prefill(slot, tokens, want, top_n);
}

void StageTester::begin() {
  plan_ = builder().take();
  const auto rows = static_cast<std::size_t>(options_.max_rows);
  const auto hidden = static_cast<std::size_t>(config().hidden);
  const auto q_dim = static_cast<std::size_t>(config().q_dim());
  for (const kernels::Buffer buffer : {act().x, act().delta_attn, act().delta_moe})
    write(buffer, nans(rows * hidden));
  for (const kernels::Buffer buffer : {act().q, act().attn}) write(buffer, nans(rows * q_dim));
  backend().begin_step(*plan_);
}

StepResult StageTester::end() {
  StepResult result = backend().end_step();
  builder().confirm(result);
  return result;
}

void StageTester::write(kernels::Buffer buffer, const Floats& values) {
  backend().write_f32(buffer, values);
}

Floats StageTester::read(kernels::Buffer buffer, std::size_t count) {
  Floats values(count);
  backend().read_f32(buffer, values);
  return values;
}

std::size_t StageTester::attn_position(std::size_t i) const {
  const auto width = static_cast<std::size_t>(config().q_dim());
  const int within = description_.attn_index(static_cast<int>(i % width));
  return i / width * width + static_cast<std::size_t>(within);
}

void StageTester::write_attn(const Floats& values) {
  Floats placed(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) placed[attn_position(i)] = values[i];
  write(act().attn, placed);
}

Floats StageTester::read_attn(std::size_t count) {
  const Floats placed = read(act().attn, count);
  Floats values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = placed[attn_position(i)];
  return values;
}

Doubles StageTester::tensor(const std::string& name) const {
  const std::vector<std::byte>& bytes = checkpoint_->bytes(name);
  Doubles values(bytes.size() / 2);
  for (std::size_t i = 0; i < values.size(); ++i) {
    Bf16 value{};
    std::memcpy(&value, bytes.data() + 2 * i, 2);
    values[i] = static_cast<double>(to_float(value));
  }
  return values;
}

Doubles StageTester::mxfp4(const std::string& name) const {
  const std::vector<std::byte>& blocks = checkpoint_->bytes(name + "_blocks");
  const std::vector<std::byte>& scales = checkpoint_->bytes(name + "_scales");
  Doubles values(blocks.size() * 2);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto byte = std::to_integer<unsigned>(blocks[i / 2]);
    const unsigned bits = i % 2 == 0 ? byte & 15U : byte >> 4U;
    // E2M1: exponent 0 is 0 or 0.5, otherwise (2 + mantissa) * 2^(exponent - 2).
    const int exponent = static_cast<int>((bits >> 1U) & 3U);
    const int mantissa = static_cast<int>(bits & 1U);
    const double magnitude =
        exponent == 0 ? 0.5 * mantissa : std::ldexp(2.0 + mantissa, exponent - 2);
    const double scale = std::ldexp(1.0, std::to_integer<int>(scales[i / 32]) - 127);
    values[i] = ((bits & 8U) != 0 ? -magnitude : magnitude) * scale;
  }
  return values;
}

bool StageTest::within(double got, double expected, double tolerance) {
  const double error = std::abs(got - expected);
  const double share = tolerance > 0.0 ? error / tolerance : error;
  if (share > worst_share_) {
    worst_share_ = share;
    error_ = error;
    tolerance_ = tolerance;
  }
  return error <= tolerance;
}

void StageTest::TearDown() {
  if (worst_share_ >= 0.0)
    std::printf("error %.2g beside a tolerance of %.2g (%.0f %%)\n", error_, tolerance_,
                100.0 * worst_share_);
}

void set_tensor(MemoryCheckpoint& checkpoint, const std::string& name, const Floats& values) {
  std::vector<std::byte>& bytes = checkpoint.bytes(name);
  STRATA_CHECK(bytes.size() == values.size() * 2, "{}", name);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Bf16 value = to_bf16(values[i]);
    STRATA_CHECK(to_float(value) == values[i], "{} is not exact in bf16", values[i]);
    std::memcpy(bytes.data() + 2 * i, &value, 2);
  }
}

Floats random_floats(std::size_t count, std::uint64_t key, double amplitude) {
  Floats values(count);
  for (std::size_t i = 0; i < count; ++i)
    values[i] =
        static_cast<float>(amplitude * (2.0 * uniform_double(random_at(mix64(key), i)) - 1.0));
  return values;
}

Floats nans(std::size_t count) { return Floats(count, std::numeric_limits<float>::quiet_NaN()); }

Bounded dot(const Doubles& matrix, std::size_t row, const Doubles& x, double bias) {
  Bounded sum{bias, std::abs(bias)};
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double product = matrix[row * x.size() + i] * x[i];
    sum.value += product;
    sum.magnitude += std::abs(product);
  }
  return sum;
}

Doubles rms_norm(const Doubles& x, const Doubles& weight, double eps) {
  double squares = 0.0;
  for (const double value : x) squares += value * value;
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
  Doubles out(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) out[i] = x[i] * scale * weight[i];
  return out;
}

Floats add_rounded(const Floats& x, const Floats& a, const Floats& b) {
  Floats sum = x;
  for (std::size_t i = 0; i < sum.size(); ++i) {
    if (!a.empty()) sum[i] += a[i];
    if (!b.empty()) sum[i] += b[i];
  }
  return sum;
}

Doubles row_of(const Floats& values, std::size_t row, std::size_t width) {
  const auto first = values.begin() + static_cast<std::ptrdiff_t>(row * width);
  return {first, first + static_cast<std::ptrdiff_t>(width)};
}

}  // namespace strata::test
