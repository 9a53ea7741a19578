#include "metrics/gap_counter.h"

#include <algorithm>

namespace strata::metrics {

GapCounter::GapCounter(std::vector<double> boundaries) : boundaries_(std::move(boundaries)) {
  std::sort(boundaries_.begin(), boundaries_.end());
  boundaries_.erase(std::unique(boundaries_.begin(), boundaries_.end()), boundaries_.end());
  counts_ = std::make_unique<std::atomic<std::uint64_t>[]>(boundaries_.size() + 1);
  told_.resize(boundaries_.size() + 1);
}

void GapCounter::add(std::int64_t count, double gap) {
  const auto place = std::lower_bound(boundaries_.begin(), boundaries_.end(), gap);
  const auto index = static_cast<std::size_t>(place - boundaries_.begin());
  counts_[index].fetch_add(static_cast<std::uint64_t>(count), std::memory_order_relaxed);
  sum_.fetch_add(gap * static_cast<double>(count), std::memory_order_relaxed);
}

void GapCounter::tell(std::span<const Target> targets) {
  std::vector<double> fresh(told_.size());
  for (std::size_t i = 0; i < fresh.size(); ++i) {
    const auto total = counts_[i].load(std::memory_order_relaxed);
    fresh[i] = static_cast<double>(total - told_[i]);
    told_[i] = total;
  }
  const double sum = sum_.load(std::memory_order_relaxed);
  for (const auto& target : targets) {
    std::vector<double> buckets(target.boundaries.size() + 1);
    for (std::size_t i = 0; i < fresh.size(); ++i) {
      const auto bucket = i < boundaries_.size()
                              ? std::lower_bound(target.boundaries.begin(), target.boundaries.end(),
                                                 boundaries_[i]) -
                                    target.boundaries.begin()
                              : static_cast<std::ptrdiff_t>(target.boundaries.size());
      buckets[static_cast<std::size_t>(bucket)] += fresh[i];
    }
    target.histogram->ObserveMultiple(buckets, sum - told_sum_);
  }
  told_sum_ = sum;
}

}  // namespace strata::metrics
