#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace strata {
namespace {

// About 50 us of polling: longer than the gap between two stages, far shorter than one between
// requests. The pool must not starve HTTP threads of a small machine.
constexpr int kSpins = 2000;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// The cores this thread may use, in order.
std::vector<int> allowed_cores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &allowed)) cores.push_back(core);
  return cores;
}

void pin(std::thread& thread, int core) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  pthread_setaffinity_np(thread.native_handle(), sizeof one, &one);
}

}  // namespace

// `generation` counts jobs; workers run job g once they see generation == g, then count
// themselves into `done`. The release store of `generation` publishes fn and context.
struct ThreadPool::Shared {
  RawFn fn = nullptr;
  void* context = nullptr;
  alignas(64) std::atomic<std::uint64_t> generation{0};
  alignas(64) std::atomic<int> done{0};
  std::atomic<bool> stop{false};
  std::atomic<int> parked{0};
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> threads;

  void wait_for_generation(std::uint64_t seen) {
    for (int i = 0; i < kSpins; ++i) {
      if (generation.load(std::memory_order_acquire) != seen) return;
      pause();
    }
    std::unique_lock lock(mutex);
    parked.fetch_add(1);
    wake.wait(lock, [&] { return generation.load() != seen; });
    parked.fetch_sub(1);
  }

  void work(int worker) {
    std::uint64_t seen = 0;
    for (;;) {
      wait_for_generation(seen);
      ++seen;
      if (stop.load(std::memory_order_acquire)) return;
      fn(context, worker);
      done.fetch_add(1, std::memory_order_release);
    }
  }

  // seq_cst on `generation` and `parked`: either the worker sees the new generation before it
  // sleeps, or we see it parked and notify under the mutex.
  void publish() {
    generation.fetch_add(1);
    if (parked.load() > 0) {
      const std::lock_guard lock(mutex);
      wake.notify_all();
    }
  }
};

ThreadPool::ThreadPool(int num_threads, Pinning pinning)
    : shared_(std::make_unique<Shared>()), num_threads_(num_threads < 1 ? 1 : num_threads) {
  std::vector<int> cores;
  if (pinning == Pinning::kCores) cores = allowed_cores();
  const bool pinned = static_cast<int>(cores.size()) == num_threads_;
  for (int worker = 1; worker < num_threads_; ++worker) {
    shared_->threads.emplace_back([this, worker] { shared_->work(worker); });
    if (pinned) pin(shared_->threads.back(), cores[static_cast<std::size_t>(worker)]);
  }
}

ThreadPool::~ThreadPool() {
  shared_->stop.store(true);
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->generation.fetch_add(1);
    shared_->wake.notify_all();
  }
  for (std::thread& thread : shared_->threads) thread.join();
}

void ThreadPool::run_raw(RawFn fn, void* context) {
  const int helpers = num_threads_ - 1;
  if (helpers == 0) {
    fn(context, 0);
    return;
  }
  shared_->fn = fn;
  shared_->context = context;
  shared_->done.store(0, std::memory_order_relaxed);
  shared_->publish();
  fn(context, 0);
  for (int spins = 0; shared_->done.load(std::memory_order_acquire) != helpers; ++spins) {
    if (spins < kSpins) pause();
    else std::this_thread::yield();
  }
}

}  // namespace strata
