// Rows of logits and ways to draw from them, for tests of who draws what.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "base/random.h"
#include "kernels/host/host_step.h"
#include "kernels/host/sampler.h"

namespace strata::test {

enum class LogitsCase { kTrained, kFlat, kTies, kHoles, kEqual, kFewFinite, kZeros, kNone, kInf };
inline constexpr LogitsCase kDrawable[] = {
    LogitsCase::kTrained, LogitsCase::kFlat,      LogitsCase::kTies, LogitsCase::kHoles,
    LogitsCase::kEqual,   LogitsCase::kFewFinite, LogitsCase::kZeros};

inline std::vector<float> made_logits(LogitsCase kind, std::int32_t vocab, std::uint64_t key) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  std::vector<float> logits(static_cast<std::size_t>(vocab));
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const auto random = [&](std::uint64_t n) { return uniform_double(random_at(key, 8 * i + n)); };
    // A bulk around -2, and one id of a thousand up to 14 above it.
    double value = 4.0 * (random(0) + random(1) + random(2)) - 8.0;
    if (random(3) < 1e-3) value += 14.0 * random(4);
    switch (kind) {
      case LogitsCase::kTrained: break;
      case LogitsCase::kFlat: value = 0.2 * random(0); break;
      case LogitsCase::kTies: value = std::round(value); break;
      case LogitsCase::kHoles:
        if (i % 3 == 0) value = std::nan("");
        if (i % 5 == 0) value = static_cast<double>(-kInf);
        break;
      case LogitsCase::kEqual: value = -1.25; break;
      case LogitsCase::kFewFinite:
        if (i % (logits.size() / 5 + 1) != logits.size() / 5) value = static_cast<double>(-kInf);
        break;
      case LogitsCase::kZeros: value = i % 2 == 0 ? -0.0 : (i % 7 == 0 ? -1e-44 : 0.0); break;
      case LogitsCase::kNone: value = i % 2 == 0 ? std::nan("") : static_cast<double>(-kInf); break;
      case LogitsCase::kInf:
        if (i == logits.size() / 2) value = static_cast<double>(kInf);
        break;
    }
    logits[i] = static_cast<float>(value);
  }
  return logits;
}

inline SamplingParams filtered(float temperature, std::int32_t top_k, float top_p, float min_p) {
  SamplingParams sampling;
  sampling.temperature = temperature;
  sampling.top_k = top_k;
  sampling.top_p = top_p;
  sampling.min_p = min_p;
  return sampling;
}
inline std::vector<SamplingParams> made_filters() {
  return {filtered(1.0F, 40, 1.0F, 0.0F),    filtered(1.0F, 0, 0.95F, 0.0F),
          filtered(1.0F, 0, 1.0F, 0.05F),    filtered(0.7F, 40, 0.95F, 0.05F),
          filtered(1.0F, 1, 1.0F, 0.0F),     filtered(1.0F, 0, 1e-6F, 0.0F),
          filtered(1.0F, 0, 1.0F, 1.0F),     filtered(2.0F, 1 << 20, 0.9F, 0.0F),
          filtered(5.0F, 3000, 0.5F, 0.0F),  filtered(0.2F, 0, 0.999F, 1e-9F),
          filtered(1.0F, 2, 0.5F, 0.0F),     filtered(0.01F, 0, 0.99F, 0.0F),
          filtered(100.0F, 0, 0.25F, 0.0F),  filtered(1.0F, 500, 1.0F, 0.3F),
          filtered(1e-20F, 3, 0.99F, 0.001F)};
}

// What HostSampler draws for one row.
inline RowResult host_draw(std::vector<float> logits, const SamplingParams& sampling,
                           std::int32_t position) {
  kernels::BackendOptions options;
  options.max_rows = 1;
  options.max_slots = 1;
  kernels::HostStep step(options);
  kernels::HostSampler sampler(static_cast<std::int32_t>(logits.size()), {});
  StepPlan plan;
  SlotUpdate update;
  update.slot = 0;
  update.sampling = sampling;
  update.position = position;
  update.max_new_tokens = 1 << 30;
  plan.slots = {update};
  plan.shape = {.rows = 1, .seqs = 1, .logits_rows = 1};
  plan.rows = {{.slot = 0, .token = {0}, .pos_offset = 0}};
  SeqSpan span;
  span.slot = 0;
  span.n_rows = 1;
  plan.seqs = {span};
  plan.logits = {LogitsRow{}};
  step.begin(plan);
  sampler.process(step, 0, logits);
  return step.end().rows.at(0);
}

}  // namespace strata::test
