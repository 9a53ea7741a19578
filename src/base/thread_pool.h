// ThreadPool: a fork-join pool for CPU kernels. One caller at a time (the compute thread, or the
// loader); the caller is worker 0. Workers spin briefly between jobs, then park, so an idle server
// uses no CPU. Jobs split work by (worker, num_workers): results must not depend on that split.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace strata {

class ThreadPool {
 public:
  // kCores: a pool of as many threads as the process may use cores binds each of its workers to
  // one. The caller keeps its mask: threads it starts would inherit a single core.
  enum class Pinning : std::uint8_t { kNone, kCores };

  // num_threads >= 1 includes the caller.
  explicit ThreadPool(int num_threads, Pinning pinning = Pinning::kNone);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Runs fn(worker) on every worker, returns when all are done. fn must not throw.
  template <typename Fn>
  void run(Fn&& fn) {
    using Callable = std::remove_reference_t<Fn>;
    run_raw([](void* context, int worker) { (*static_cast<Callable*>(context))(worker); },
            const_cast<void*>(static_cast<const void*>(&fn)));
  }

 private:
  using RawFn = void (*)(void*, int);
  void run_raw(RawFn fn, void* context);
  struct Shared;
  std::unique_ptr<Shared> shared_;
  int num_threads_;
};

// The part of [0, n) that `worker` of `num_workers` takes, in multiples of `grain`.
struct Slice {
  int begin;
  int end;
};
inline Slice slice_of(int n, int grain, int worker, int num_workers) {
  const long blocks = (static_cast<long>(n) + grain - 1) / grain;
  const long first = blocks * worker / num_workers;
  const long last = blocks * (worker + 1) / num_workers;
  const long begin = first * grain;
  const long end = last * grain;
  return {static_cast<int>(begin < n ? begin : n), static_cast<int>(end < n ? end : n)};
}

}  // namespace strata
