#include "engine/preemption_costs.h"

namespace strata {
namespace {

constexpr double kNewest = 0.2;  // weight of the last measurement

void average(double& mean, double value) {
  mean = mean == 0 ? value : (1 - kNewest) * mean + kNewest * value;
}

}  // namespace

void PreemptionCosts::note(std::int32_t prompt_rows, std::int32_t rows, std::size_t copies,
                           const StepTimings& timings) {
  // Steps of mostly answers read all weights for few rows: they do not tell what a chunk costs.
  if (2 * prompt_rows > rows)
    average(nanos_per_token_, static_cast<double>(timings.compute_ns) / rows);
  if (copies > 0)
    average(nanos_per_copy_, static_cast<double>(timings.begin_ns) / static_cast<double>(copies));
}

bool PreemptionCosts::swap_is_cheaper(std::int32_t pages, std::int32_t tokens) const {
  if (choice_ != Preemption::kCheaper) return choice_ == Preemption::kSwap;
  return 2 * nanos_per_copy_ * pages <= nanos_per_token_ * tokens;
}

}  // namespace strata
