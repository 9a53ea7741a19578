#include "serve/stop_matcher.h"

#include <algorithm>

namespace strata::serve {

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop)
    : stops_(std::move(stops)), include_stop_(include_stop) {}

bool StopMatcher::push(std::string_view text, std::string& released) {
  if (matched_) return true;
  if (stops_.empty()) {
    released += text;
    return false;
  }
  held_ += text;
  // The match that is complete first; of several, the one that begins first.
  std::size_t best_end = std::string::npos;
  std::size_t best_start = 0;
  for (const auto& stop : stops_) {
    const auto start = held_.find(stop);
    if (start == std::string::npos) continue;
    const auto end = start + stop.size();
    if (end < best_end || (end == best_end && start < best_start)) {
      best_end = end;
      best_start = start;
      matched_ = stop;
    }
  }
  if (matched_) {
    released.append(held_, 0, include_stop_ ? best_end : best_start);
    held_.clear();
    return true;
  }
  // Longest end of the text that a stop string begins with.
  std::size_t keep = 0;
  for (const auto& stop : stops_)
    for (std::size_t size = std::min(stop.size() - 1, held_.size()); size > keep; --size)
      if (std::string_view(held_).substr(held_.size() - size) ==
          std::string_view(stop).substr(0, size)) {
        keep = size;
        break;
      }
  released.append(held_, 0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return false;
}

void StopMatcher::flush(std::string& released) {
  released += held_;
  held_.clear();
}

}  // namespace strata::serve
