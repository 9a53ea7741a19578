#include "kernels/ref/ref_math.h"

#include <algorithm>
#include <cmath>

namespace strata::kernels::ref {

void rms_norm(std::span<const float> x, std::span<const float> weight, float eps,
              std::span<float> out) {
  double squares = 0.0;
  for (const float value : x) squares += static_cast<double>(value) * static_cast<double>(value);
  const double mean = squares / static_cast<double>(x.size());
  const double factor = 1.0 / std::sqrt(mean + static_cast<double>(eps));
  for (std::size_t i = 0; i < x.size(); ++i)
    out[i] =
        static_cast<float>(static_cast<double>(x[i]) * factor * static_cast<double>(weight[i]));
}

void rotate_head(const RopeTable& rope, std::int32_t position, std::span<float> head) {
  const std::size_t half = head.size() / 2;
  for (std::size_t i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * rope.inv_freq[i];
    const double cosine = std::cos(angle) * rope.concentration;
    const double sine = std::sin(angle) * rope.concentration;
    const double first = head[i];
    const double second = head[i + half];
    head[i] = static_cast<float>(first * cosine - second * sine);
    head[i + half] = static_cast<float>(second * cosine + first * sine);
  }
}

double swiglu(double gate, double up, const ModelConfig& config) {
  const double limit = config.swiglu_limit;
  gate = std::min(gate, limit);
  up = std::clamp(up, -limit, limit);
  const double sigmoid = 1.0 / (1.0 + std::exp(-static_cast<double>(config.swiglu_alpha) * gate));
  return gate * sigmoid * (up + 1.0);
}

void choose_experts(std::span<const float> logits, std::int32_t k, std::vector<Choice>& out) {
  out.clear();
  for (std::size_t i = 0; i < logits.size(); ++i)
    out.push_back({static_cast<ExpertId>(i), logits[i]});
  std::stable_sort(out.begin(), out.end(),
                   [](const Choice& a, const Choice& b) { return a.weight > b.weight; });
  out.resize(static_cast<std::size_t>(k));
  const double best = out.front().weight;
  double total = 0.0;
  for (const Choice& choice : out) total += std::exp(static_cast<double>(choice.weight) - best);
  for (Choice& choice : out)
    choice.weight = static_cast<float>(std::exp(static_cast<double>(choice.weight) - best) / total);
}

}  // namespace strata::kernels::ref
