// The arithmetic of the stages, one row at a time: double inside, float32 in and out.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/model_config.h"

namespace strata::kernels::ref {

// out = x / sqrt(mean(x^2) + eps) * weight.
void rms_norm(std::span<const float> x, std::span<const float> weight, float eps,
              std::span<float> out);

// Rotates the pairs (i, i + half) of one head by the angles of `position`. Angles, cosine and sine
// are float32, as in the model's reference implementations.
void rotate_head(const RopeTable& rope, std::int32_t position, std::span<float> head);

// The clamped SwiGLU of one gate and up value.
double swiglu(double gate, double up, const ModelConfig& config);

struct Choice {
  ExpertId expert = 0;
  float weight = 0.0F;
};
// The k largest logits in descending order (ties to the lower id), with the softmax over them.
void choose_experts(std::span<const float> logits, std::int32_t k, std::vector<Choice>& out);

}  // namespace strata::kernels::ref
