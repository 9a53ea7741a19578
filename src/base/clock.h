// The one clock: monotonic nanoseconds. Tests inject a ManualClock.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace strata {

using Nanos = std::int64_t;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Nanos now() const {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
};

class ManualClock final : public Clock {
 public:
  Nanos now() const override { return now_.load(); }
  void advance(Nanos delta) { now_ += delta; }

 private:
  std::atomic<Nanos> now_{1'000'000'000};
};

inline double to_seconds(Nanos nanos) { return static_cast<double>(nanos) * 1e-9; }

}  // namespace strata
