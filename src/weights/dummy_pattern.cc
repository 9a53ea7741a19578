#include "weights/dummy_pattern.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/bf16.h"
#include "base/check.h"
#include "base/random.h"

namespace strata::weights {
namespace {

static_assert(std::endian::native == std::endian::little, "words are stored as they are in memory");

constexpr std::uint64_t kRepeatByte = 0x0101010101010101;
constexpr std::uint64_t kRepeatHalf = 0x0001000100010001;
constexpr std::uint64_t kOne = 0x3f80;       // 1.0 in bf16
constexpr std::uint64_t kMinusOne = 0xbf80;  // -1.0
constexpr std::uint64_t kLeastScale = 118;   // E8M0: scales are 2^-9 .. 2^-6

// Powers of two that shrink the normal values (standard deviation 104.5 before).
constexpr int kWeightShift = 13;
constexpr int kBiasShift = 12;
constexpr int kHeadShift = 11;
constexpr int kUnitShift = 7;  // embedding and sinks
// By hidden dimension modulo 4. Two dimensions of each four are finer, so that the logits of two
// experts almost never tie.
constexpr std::array<int, 4> kProjectionShift = {8, 8, 15, 21};

// About log2 of sqrt(2 L), rounded: what writes to the residual stream is smaller by that.
int residual_shift(std::int32_t num_layers) {
  int shift = 0;
  while ((std::int64_t{1} << (2 * shift)) < num_layers) ++shift;
  return shift;
}

// Triangular distribution over -255 .. 255 from 16 random bits.
int centred(std::uint64_t bits16) {
  return static_cast<int>(bits16 & 0xff) + static_cast<int>(bits16 >> 8 & 0xff) - 255;
}

std::uint16_t scaled_bf16(int value, int shift) {
  return to_bf16(std::ldexp(static_cast<float>(value), -shift)).bits;
}

}  // namespace

std::int32_t passthrough_dims(const ModelConfig& config) { return std::min(64, config.hidden / 4); }

DummyPattern::DummyPattern(const TensorSpec& spec, const ModelConfig& config, std::uint64_t seed)
    : key_(random_at(fnv1a64(spec.name), seed)) {
  set_rule(spec, config);
}

void DummyPattern::set_rule(const TensorSpec& spec, const ModelConfig& config) {
  const std::int64_t pass = passthrough_dims(config);
  const std::int64_t hidden = config.hidden;
  const std::int64_t out_row = config.q_dim() / 4;         // words of a row of o_proj
  const std::int64_t down_row = config.intermediate / 16;  // words of a row of down blocks
  const int shrink = residual_shift(config.num_layers);
  switch (spec.kind) {
    case TensorKind::kEmbedding:
      make_normal(kUnitShift);
      return set_head(Head::kCode, pass / 4, hidden / 4);
    case TensorKind::kUnembedding: return make_normal(kHeadShift);
    case TensorKind::kFinalNorm:
    case TensorKind::kAttnNorm:
    case TensorKind::kMlpNorm: body_ = Body::kOnes; return;
    case TensorKind::kQWeight:
    case TensorKind::kKWeight:
    case TensorKind::kVWeight: return make_normal(kWeightShift);
    case TensorKind::kQBias:
    case TensorKind::kKBias:
    case TensorKind::kVBias:
    case TensorKind::kGateUpBias: return make_normal(kBiasShift);
    case TensorKind::kSinks: return make_normal(kUnitShift);
    case TensorKind::kOutWeight:
      make_normal(kWeightShift + shrink);
      return set_head(Head::kZero, pass * out_row, hidden * out_row);
    case TensorKind::kOutBias:
    case TensorKind::kDownBias:
      make_normal(kBiasShift);
      return set_head(Head::kZero, pass / 4, hidden / 4);
    case TensorKind::kRouterWeight:
      body_ = Body::kZero;
      return set_head(Head::kProjection, pass / 4, hidden / 4);
    case TensorKind::kRouterBias: body_ = Body::kZero; return;
    case TensorKind::kGateUpBlocks: body_ = Body::kBytes; return;
    case TensorKind::kDownBlocks:
      body_ = Body::kBytes;
      return set_head(Head::kZero, pass * down_row, hidden * down_row);
    case TensorKind::kGateUpScales:
    case TensorKind::kDownScales:
      body_ = Body::kScales;
      scale_base_ = kLeastScale * kRepeatByte;
      if (spec.kind == TensorKind::kDownScales)
        scale_base_ -= static_cast<std::uint64_t>(shrink) * kRepeatByte;
      return;
    case TensorKind::kGateUpWeight:
    case TensorKind::kDownWeight: break;
  }
  STRATA_CHECK(false, "{}: dummy experts are MXFP4", spec.name);
}

void DummyPattern::set_head(Head head, std::int64_t words, std::int64_t period) {
  head_ = head;
  head_words_ = static_cast<std::uint64_t>(words);
  period_ = static_cast<std::uint64_t>(period);
}

void DummyPattern::make_normal(int shift) {
  body_ = Body::kNormal;
  for (int sum = 0; sum < static_cast<int>(normal_.size()); ++sum)
    normal_[static_cast<std::size_t>(sum)] = scaled_bf16(sum - 255, shift);
}

void DummyPattern::fill(std::uint64_t first, std::span<std::uint64_t> out) const {
  if (head_ == Head::kSame) return fill_body(first, out);
  while (!out.empty()) {
    const std::uint64_t at = first % period_;
    const bool in_head = at < head_words_;
    const std::uint64_t left = (in_head ? head_words_ : period_) - at;
    const std::size_t count = std::min<std::uint64_t>(left, out.size());
    if (in_head) fill_head(first, out.first(count));
    else fill_body(first, out.first(count));
    first += count;
    out = out.subspan(count);
  }
}

void DummyPattern::fill_body(std::uint64_t first, std::span<std::uint64_t> out) const {
  std::uint64_t word = first;
  switch (body_) {
    case Body::kBytes:
      for (std::uint64_t& value : out) value = random_at(key_, word++);
      return;
    case Body::kScales:
      for (std::uint64_t& value : out)
        value = scale_base_ + (random_at(key_, word++) & 3 * kRepeatByte);
      return;
    case Body::kNormal:
      for (std::uint64_t& value : out) {
        const std::uint64_t bits = random_at(key_, word++);
        const std::uint64_t low = bits & 0x00ff00ff00ff00ff;
        const std::uint64_t sum = low + (bits >> 8 & 0x00ff00ff00ff00ff);  // four sums of two bytes
        value = static_cast<std::uint64_t>(normal_[sum & 0xffff]) |
                static_cast<std::uint64_t>(normal_[sum >> 16 & 0xffff]) << 16 |
                static_cast<std::uint64_t>(normal_[sum >> 32 & 0xffff]) << 32 |
                static_cast<std::uint64_t>(normal_[sum >> 48]) << 48;
      }
      return;
    case Body::kOnes: std::fill(out.begin(), out.end(), kOne * kRepeatHalf); return;
    case Body::kZero: std::fill(out.begin(), out.end(), 0); return;
  }
}

void DummyPattern::fill_head(std::uint64_t first, std::span<std::uint64_t> out) const {
  if (head_ == Head::kZero) {
    std::fill(out.begin(), out.end(), 0);
    return;
  }
  for (std::uint64_t& value : out) {
    const std::uint64_t word = first++;
    if (head_ == Head::kProjection) {
      value = projection_word(word);
      continue;
    }
    // Bit p of the token's code is the sign of hidden dimension p.
    const std::uint64_t code = random_at(mix64(key_), word / period_);
    const std::uint64_t signs = code >> (4 * (word % period_));
    value = 0;
    for (int i = 0; i < 4; ++i) value |= ((signs >> i & 1) != 0 ? kOne : kMinusOne) << (16 * i);
  }
}

std::uint64_t DummyPattern::projection_word(std::uint64_t word) const {
  const std::uint64_t bits = random_at(key_, word);
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    const int centre = centred(bits >> (16 * i) & 0xffff);
    value |= static_cast<std::uint64_t>(scaled_bf16(centre, kProjectionShift[i])) << (16 * i);
  }
  return value;
}

}  // namespace strata::weights
