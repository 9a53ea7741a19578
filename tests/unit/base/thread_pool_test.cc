#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
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
