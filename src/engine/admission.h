// What admission knows of the load without asking the engine thread.
#pragma once

#include <atomic>
#include <cstdint>

namespace strata {

// What was accepted and has not started, and what has no end yet: counted up by whoever submits,
// down by the engine.
struct AdmissionCounters {
  std::atomic<std::int64_t> waiting_requests{0};
  std::atomic<std::int64_t> waiting_tokens{0};
  std::atomic<std::int64_t> live{0};
  std::atomic<std::int64_t> ended{0};
};

}  // namespace strata
