// A random gpt-oss model made from a seed, small enough for exhaustive tests, with weights scaled
// so that everything a trained model may hide shows: pre-activations pass the SwiGLU limit, sinks
// and every bias matter, attention is sharp, the router decides clearly.
//
// The numbers are simple enough to be made again elsewhere: element i of the tensor `name` comes
// from bits = random_at(fnv1a64(name) ^ mix64(seed), i) (base/random.h).
//   dense, bf16:  round(center + amplitude * (2 * uniform_double(bits) - 1)) to bf16
//   blocks, u8:   bits & 255
//   scales, u8:   base + bits % 3
#pragma once

#include <cstdint>
#include <memory>

#include "base/model_config.h"
#include "tests/support/memory_checkpoint.h"

namespace strata::test {

// 4 layers, H=64, I=96, 16/2 heads of 64, 8 experts top-4, window 8, vocabulary 384, and a YaRN
// ramp that falls on frequencies which matter within 100 positions.
ModelConfig micro_config();

std::unique_ptr<MemoryCheckpoint> make_micro_checkpoint(const ModelConfig& config,
                                                        std::uint64_t seed);

}  // namespace strata::test
