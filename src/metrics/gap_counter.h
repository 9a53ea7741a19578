// Times between tokens, counted once each and told to several histograms when a scrape comes: on
// the token path a histogram costs as much as writing the token. Internal to metrics/.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "metrics/series.h"

namespace strata::metrics {

class GapCounter {
 public:
  // `boundaries`: those of every histogram that will be told.
  explicit GapCounter(std::vector<double> boundaries);

  // Any thread.
  void add(std::int64_t count, double gap);

  // One scrape at a time: what came since the last call, to all `targets`.
  struct Target {
    prometheus::Histogram* histogram;
    std::span<const double> boundaries;
  };
  void tell(std::span<const Target> targets);

 private:
  std::vector<double> boundaries_;  // of all, sorted
  // Counts by the first boundary that is not below the gap; the last is above all.
  std::unique_ptr<std::atomic<std::uint64_t>[]> counts_;
  std::atomic<double> sum_{0};
  std::vector<std::uint64_t> told_;
  double told_sum_ = 0;
};

}  // namespace strata::metrics
