// Reading tensors for the oracle: bf16, f32 and MXFP4, and the rotary frequencies.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numbers>
#include <utility>

#include "base/check.h"
#include "tests/oracle/oracle.h"

namespace strata::oracle {
namespace {

constexpr std::pair<Mutation, std::string_view> kNames[] = {
    {Mutation::kSinksOff, "sinks off"},
    {Mutation::kSinksWrongHead, "sinks of the next head"},
    {Mutation::kWindowMinusOne, "window - 1"},
    {Mutation::kWindowPlusOne, "window + 1"},
    {Mutation::kWindowOff, "window off"},
    {Mutation::kWindowOnOddLayers, "window on the other layers"},
    {Mutation::kYarnFactorOne, "YaRN factor 1"},
    {Mutation::kMscaleDropped, "mscale dropped"},
    {Mutation::kRampRounded, "YaRN ramp ends rounded"},
    {Mutation::kRopeInterleaved, "rope in interleaved pairs"},
    {Mutation::kSoftmaxBeforeTopK, "softmax before top-k"},
    {Mutation::kTopKMinusOne, "top-(k-1)"},
    {Mutation::kPlusOneDropped, "up + 1 dropped"},
    {Mutation::kAlphaOne, "alpha 1"},
    {Mutation::kClampOff, "clamp off"},
    {Mutation::kGateUpHalves, "gate and up as halves"},
    {Mutation::kNibblesSwapped, "nibbles swapped"},
    {Mutation::kScaleOffByOne, "scale off by one"},
    {Mutation::kEpsSmall, "norm eps 1e-6"},
    {Mutation::kKvHeadModulo, "kv head by modulo"},
    {Mutation::kNoQueryBias, "no query bias"},
    {Mutation::kNoKeyBias, "no key bias"},
    {Mutation::kNoValueBias, "no value bias"},
    {Mutation::kNoOutBias, "no attention output bias"},
    {Mutation::kNoRouterBias, "no router bias"},
    {Mutation::kNoGateUpBias, "no gate and up bias"},
    {Mutation::kNoDownBias, "no down bias"},
};

constexpr auto kMutations = [] {
  std::array<Mutation, std::size(kNames)> list{};
  for (std::size_t i = 0; i < list.size(); ++i) list[i] = kNames[i].first;
  return list;
}();

float bf16_value(std::uint8_t low, std::uint8_t high) {
  const std::uint32_t bits = (std::uint32_t{high} << 24) | (std::uint32_t{low} << 16);
  return std::bit_cast<float>(bits);
}

float fp4_value(unsigned bits) {
  static constexpr float kMagnitudes[] = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};
  const float magnitude = kMagnitudes[bits & 7U];
  return (bits & 8U) != 0 ? -magnitude : magnitude;
}

std::string without_suffix(const std::string& name, std::string_view suffix) {
  return name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : std::string();
}

}  // namespace

std::span<const Mutation> all_mutations() { return kMutations; }

std::string_view mutation_name(Mutation mutation) {
  for (const auto& [each, name] : kNames)
    if (each == mutation) return name;
  return "none";
}

Oracle::Oracle(const weights::Checkpoint& checkpoint, Mutation mutation)
    : config_(checkpoint.config()), mutation_(mutation), rope_(make_rope()) {
  checkpoint.stream([this](const TensorView& view) { read(view); });
  std::vector<std::string> quantised;
  for (const auto& [name, bytes] : packed_)
    if (const std::string base = without_suffix(name, "_blocks"); !base.empty())
      quantised.push_back(base);
  for (const std::string& name : quantised) dequantise(name);
  packed_.clear();
  if (!quantised.empty()) return;
  for (auto& [name, values] : tensors_) {  // bf16 experts lie as [E, K, rows] in the file
    if (name.ends_with("experts.gate_up_proj")) transpose(name, config_.hidden);
    if (name.ends_with("experts.down_proj")) transpose(name, config_.intermediate);
  }
}

const Oracle::Tensor& Oracle::tensor(const std::string& name) const {
  const auto found = tensors_.find(name);
  STRATA_CHECK(found != tensors_.end(), "no tensor {}", name);
  return found->second;
}

void Oracle::read(const TensorView& view) {
  std::vector<std::uint8_t> bytes(view.num_bytes());
  view.source->read(0, std::as_writable_bytes(std::span(bytes)));
  if (view.dtype == DType::kU8) {
    packed_[view.name] = std::move(bytes);
    return;
  }
  Tensor& out = tensors_[view.name];
  out.cols = view.shape.back();
  out.values.resize(view.num_elements());
  for (std::size_t i = 0; i < out.values.size(); ++i) {
    if (view.dtype == DType::kBf16) {
      out.values[i] = bf16_value(bytes[2 * i], bytes[2 * i + 1]);
    } else {
      STRATA_CHECK(view.dtype == DType::kF32, "{}", view.name);
      const std::uint32_t low = bytes[4 * i] | (std::uint32_t{bytes[4 * i + 1]} << 8);
      const std::uint32_t high = bytes[4 * i + 2] | (std::uint32_t{bytes[4 * i + 3]} << 8);
      out.values[i] = std::bit_cast<float>(low | (high << 16));
    }
  }
}

// name_blocks [E, rows, K/32, 16] and name_scales [E, rows, K/32] -> name [E * rows, K].
void Oracle::dequantise(const std::string& name) {
  const std::vector<std::uint8_t>& blocks = packed_.at(name + "_blocks");
  const std::vector<std::uint8_t>& scales = packed_.at(name + "_scales");
  Tensor& out = tensors_[name];
  out.cols = name.ends_with("gate_up_proj") ? config_.hidden : config_.intermediate;
  out.values.reserve(blocks.size() * 2);
  for (std::size_t byte = 0; byte < blocks.size(); ++byte) {
    const int shift = is(Mutation::kScaleOffByOne) ? 126 : 127;
    const float scale = std::ldexp(1.0F, scales[byte / 16] - shift);
    const unsigned low = blocks[byte] & 15U;
    const unsigned high = blocks[byte] >> 4U;
    const bool swapped = is(Mutation::kNibblesSwapped);
    out.values.push_back(fp4_value(swapped ? high : low) * scale);
    out.values.push_back(fp4_value(swapped ? low : high) * scale);
  }
}

// [E, K, rows] -> [E * rows, K].
void Oracle::transpose(const std::string& name, std::int64_t k) {
  Tensor& tensor = tensors_.at(name);
  const auto rows = static_cast<std::size_t>(tensor.cols);
  const auto inputs = static_cast<std::size_t>(k);
  std::vector<float> turned(tensor.values.size());
  for (std::size_t i = 0; i < turned.size(); ++i) {
    const std::size_t expert = i / (inputs * rows);
    const std::size_t row = i % rows;
    const std::size_t input = i / rows % inputs;
    turned[(expert * rows + row) * inputs + input] = tensor.values[i];
  }
  tensor.values = std::move(turned);
  tensor.cols = k;
}

// YaRN (arXiv 2309.00071): dimension i turns original_context / (2 pi theta^(2i/d)) times within
// the original context. Above beta_fast turns the frequency stays, below beta_slow it is divided
// by the factor, in between both are mixed linearly in i.
Oracle::Rope Oracle::make_rope() const {
  const RopeConfig& rope = config_.rope;
  const double dim = config_.head_dim;
  const auto dimension_with_turns = [&](double turns) {
    const double wavelength = rope.original_context / turns;
    return dim / 2.0 * std::log(wavelength / (2.0 * std::numbers::pi)) / std::log(rope.theta);
  };
  double fast_end = std::max(dimension_with_turns(rope.beta_fast), 0.0);
  double slow_end = std::min(dimension_with_turns(rope.beta_slow), dim - 1.0);
  if (rope.truncate || is(Mutation::kRampRounded)) {
    fast_end = std::floor(fast_end);
    slow_end = std::ceil(slow_end);
  }
  const double factor = is(Mutation::kYarnFactorOne) ? 1.0 : rope.factor;
  Rope out;
  for (int i = 0; i < config_.head_dim / 2; ++i) {
    const double frequency = 1.0 / std::pow(rope.theta, 2.0 * i / dim);
    const double slow_share = std::clamp((i - fast_end) / (slow_end - fast_end), 0.0, 1.0);
    out.inv_freq.push_back((1.0 - slow_share) * frequency + slow_share * frequency / factor);
  }
  if (factor > 1.0 && !is(Mutation::kMscaleDropped))
    out.concentration = 0.1 * std::log(factor) + 1.0;
  return out;
}

}  // namespace strata::oracle
