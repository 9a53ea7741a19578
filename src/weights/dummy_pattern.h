// The rule that makes one tensor of a dummy checkpoint: a pure function of (tensor, word index).
// docs/formats/dummy.md is the specification; other implementations must agree to the bit.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/model_config.h"
#include "weights/tensor_map.h"

namespace strata::weights {

// Hidden dimensions [0, n) that no layer writes: they carry the token's code to every router.
std::int32_t passthrough_dims(const ModelConfig& config);

// Makes a tensor as 64-bit little-endian words: word w holds bytes [8w, 8w + 8). Immutable.
class DummyPattern {
 public:
  DummyPattern(const TensorSpec& spec, const ModelConfig& config, std::uint64_t seed);
  // Words [first, first + out.size()).
  void fill(std::uint64_t first, std::span<std::uint64_t> out) const;

 private:
  enum class Body : std::uint8_t { kBytes, kScales, kNormal, kOnes, kZero };
  enum class Head : std::uint8_t { kSame, kZero, kCode, kProjection };

  void set_rule(const TensorSpec& spec, const ModelConfig& config);
  void set_head(Head head, std::int64_t words, std::int64_t period);
  void make_normal(int shift);
  void fill_body(std::uint64_t first, std::span<std::uint64_t> out) const;
  void fill_head(std::uint64_t first, std::span<std::uint64_t> out) const;
  std::uint64_t projection_word(std::uint64_t word) const;

  std::uint64_t key_ = 0;
  Body body_ = Body::kBytes;
  Head head_ = Head::kSame;
  // The first head_words_ of every period_ words follow head_, the others body_.
  std::uint64_t head_words_ = 0;
  std::uint64_t period_ = 1;
  std::uint64_t scale_base_ = 0;             // kScales: the byte 0..3 is added to, eight times
  std::array<std::uint16_t, 511> normal_{};  // kNormal: bf16 of (sum of two bytes - 255) 2^-shift
};

}  // namespace strata::weights
