// PreemptionCosts: what it takes to give a preempted sequence its KV back, by the steps measured so
// far: copying pages out and in again, or computing its tokens once more. Engine thread only.
#pragma once

#include <cstdint>

#include "engine/engine.h"
#include "plan/step_result.h"

namespace strata {

class PreemptionCosts {
 public:
  explicit PreemptionCosts(Preemption choice) : choice_(choice) {}

  // A step of `prompt_rows` rows of prompts among `rows`, with `copies` page copies.
  void note(std::int32_t prompt_rows, std::int32_t rows, std::size_t copies,
            const StepTimings& timings);

  // Whether `pages` are worth keeping rather than computing `tokens` again. What was not measured
  // yet costs nothing; a copy is then preferred.
  bool swap_is_cheaper(std::int32_t pages, std::int32_t tokens) const;

 private:
  const Preemption choice_;
  double nanos_per_token_ = 0;
  double nanos_per_copy_ = 0;
};

}  // namespace strata
