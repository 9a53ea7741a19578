#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace strata {
namespace {

TEST(ThreadPool, EveryWorkerRunsEveryJobOnce) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    std::vector<std::atomic<int>> hits(static_cast<std::size_t>(threads));
    for (int job = 0; job < 2000; ++job) {
      pool.run([&](int worker) { hits[static_cast<std::size_t>(worker)].fetch_add(1); });
      if (job % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // parks
    }
    for (const auto& hit : hits) EXPECT_EQ(hit.load(), 2000);
  }
}

// How many cores each worker may use; 0 for one that shares its only core with an earlier one.
std::vector<int> cores_of_workers(ThreadPool& pool) {
  std::vector<cpu_set_t> masks(static_cast<std::size_t>(pool.num_threads()));
  pool.run([&](int worker) {
    sched_getaffinity(0, sizeof(cpu_set_t), &masks[static_cast<std::size_t>(worker)]);
  });
  std::vector<int> counts;
  for (std::size_t i = 0; i < masks.size(); ++i) {
    int count = CPU_COUNT(&masks[i]);
    for (std::size_t j = 1; j < i; ++j)
      if (count == 1 && CPU_EQUAL(&masks[i], &masks[j])) count = 0;
    counts.push_back(count);
  }
  return counts;
}

TEST(ThreadPool, PinsWorkersOnlyWhereItHasAllCores) {
  cpu_set_t own;
  ASSERT_EQ(sched_getaffinity(0, sizeof own, &own), 0);
  const int cores = CPU_COUNT(&own);
  for (const int threads : {1, 2, cores, cores + 1}) {
    std::vector<int> expected(static_cast<std::size_t>(threads), cores);
    ThreadPool unpinned(threads);
    EXPECT_EQ(cores_of_workers(unpinned), expected);
    ThreadPool pinned(threads, ThreadPool::Pinning::kCores);
    if (threads == cores) std::fill(expected.begin() + 1, expected.end(), 1);
    EXPECT_EQ(cores_of_workers(pinned), expected);
  }
}

TEST(ThreadPool, SlicesCoverTheRangeOnce) {
  for (const int n : {0, 1, 7, 64, 100}) {
    for (const int grain : {1, 8, 32}) {
      for (const int workers : {1, 2, 3, 16}) {
        int next = 0;
        for (int w = 0; w < workers; ++w) {
          const Slice slice = slice_of(n, grain, w, workers);
          EXPECT_EQ(slice.begin, next);
          EXPECT_LE(slice.begin, slice.end);
          if (slice.begin < n) {
            EXPECT_EQ(slice.begin % grain, 0);
          }
          next = slice.end;
        }
        EXPECT_EQ(next, n);
      }
    }
  }
}

}  // namespace
}  // namespace strata
