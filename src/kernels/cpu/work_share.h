// share_work: hands out [0, units) to whichever workers are free, in contiguous pieces that shrink
// towards the end, so that a worker slowed down by another program does not hold up the rest.
// Results must not depend on who gets what.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "base/thread_pool.h"

namespace strata::kernels::cpu {

// Units a piece has at least when a unit takes so many multiply-adds: a piece must be worth several
// times the few microseconds of a fork, or it runs on the caller alone.
inline int grain_of(std::int64_t multiply_adds) {
  constexpr std::int64_t kLeast = 64 * 1024;
  return static_cast<int>(
      std::max<std::int64_t>(1, kLeast / std::max<std::int64_t>(1, multiply_adds)));
}

// Calls fn(worker, begin, end) for pieces of at least `grain` units; fn must not throw.
template <typename Fn>
void share_work(ThreadPool& pool, int units, int grain, const Fn& fn) {
  const int workers = pool.num_threads();
  if (units <= grain || workers == 1) {
    if (units > 0) fn(0, 0, units);
    return;
  }
  std::atomic<int> next{0};
  pool.run([&](int worker) {
    for (;;) {
      int begin = next.load(std::memory_order_relaxed);
      int end = begin;
      do {
        if (begin >= units) return;
        end = std::min(units, begin + std::max(grain, (units - begin) / (3 * workers)));
      } while (!next.compare_exchange_weak(begin, end, std::memory_order_relaxed));
      fn(worker, begin, end);
    }
  });
}

}  // namespace strata::kernels::cpu
