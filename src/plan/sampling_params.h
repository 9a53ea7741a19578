// How one sequence's tokens are drawn. Plain values: made and range-checked in api/, copied into a
// slot of the device by a SlotUpdate, read by the `sample` stage. Documented ranges are REQUIRED.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/ids.h"

namespace strata {

struct SamplingParams {
  float temperature = 1.0F;         // 0: greedy (ties go to the lower id); else (0, 100]
  std::int32_t top_k = 0;           // 0: off
  float top_p = 1.0F;               // (0, 1]
  float min_p = 0.0F;               // [0, 1]: drop tokens under min_p * max probability
  float presence_penalty = 0.0F;    // [-2, 2], over generated tokens
  float frequency_penalty = 0.0F;   // [-2, 2], over generated tokens
  float repetition_penalty = 1.0F;  // (0, 10], over prompt and generated tokens
  std::vector<std::pair<TokenId, float>> logit_bias;  // at most 4096, each in [-100, 100]
  std::uint64_t seed = 0;          // draws are f(seed, position): see kernels/stages.h
  std::int32_t min_tokens = 0;     // stop ids are masked until so many tokens were generated
  bool ignore_eos = false;         // stop ids are masked for the whole answer
  std::vector<TokenId> stop_ids;   // sampling one of these finishes the sequence
  std::int32_t top_logprobs = -1;  // -1: no logprobs; n: the chosen token's and the n best

  bool greedy() const { return temperature == 0.0F; }
  bool needs_history() const {
    return presence_penalty != 0.0F || frequency_penalty != 0.0F || repetition_penalty != 1.0F;
  }
};

}  // namespace strata
