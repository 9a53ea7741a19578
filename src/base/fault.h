// Named fault points: places where tests make the program fail on purpose.
//
// A point is a string literal at the place it guards. Unarmed (always, outside tests and
// --fault-inject) a hit costs one relaxed atomic load. Any thread may hit a point.
//
// Spec syntax, as in the hidden flag --fault-inject: "point=action[:n][,...]" where action is
// error | oom | hang | delay_ms=N | exit, and n is the hit it fires on (default 1; "*" = every).
#pragma once

#include <atomic>
#include <string>
#include <string_view>

#include "base/result.h"

namespace strata::fault {

enum class Action { kNone, kError, kOom, kHang, kDelay, kExit };

namespace internal {
extern std::atomic<bool> armed;
Action hit(const char* point);
}  // namespace internal

// Returns what the caller must do: kNone, kError or kOom. kDelay and kHang are served inside
// (a hang ends when disarm() is called).
inline Action at(const char* point) {
  if (!internal::armed.load(std::memory_order_relaxed)) [[likely]]
    return Action::kNone;
  return internal::hit(point);
}

Result<void> arm(std::string_view spec);
void disarm();

}  // namespace strata::fault
