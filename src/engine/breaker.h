// Breaker: what repeated memory failures do to the limits of a step. Three in a row switch to safe
// mode, which halves sequences and rows; three more halve them again, down to a floor. A quiet time
// without a failure leads back to the full limits; it doubles with every trip. Engine thread only.
#pragma once

#include <cstdint>
#include <optional>

#include "base/clock.h"

namespace strata {

// What a step may hold.
struct StepLimits {
  std::int32_t max_num_seqs = 1;
  std::int32_t max_num_batched_tokens = 1;
  bool operator==(const StepLimits&) const = default;
};

class Breaker {
 public:
  explicit Breaker(const StepLimits& full) : full_(full) {}

  // Failures are in a row when no quiet time lies between them. True: this one tripped.
  bool on_memory_failure(Nanos now);
  // True: the quiet time is over, the full limits hold again.
  bool recover(Nanos now);

  // How long to keep the model unloaded before it is tried again: none for the first three
  // failures in a row, then doubling from a second to about half a minute.
  Nanos pause() const;
  std::optional<Nanos> quiet_ends() const;  // in safe mode

  StepLimits limits() const;
  bool safe_mode() const { return level_ > 0; }
  std::uint64_t trips() const { return trips_; }
  std::uint64_t failures() const { return failures_; }
  Nanos quiet() const { return quiet_; }

 private:
  const StepLimits full_;
  int level_ = 0;   // limits are halved so often
  int in_row_ = 0;  // failures
  std::uint64_t trips_ = 0;
  std::uint64_t failures_ = 0;
  Nanos last_failure_ = 0;
  Nanos quiet_ = 0;  // 0: has not tripped lately
};

}  // namespace strata
