#include "engine/breaker.h"

#include <algorithm>

namespace strata {
namespace {

constexpr Nanos kSecond = 1'000'000'000;
constexpr int kFailuresToTrip = 3;
constexpr Nanos kFirstQuiet = 60 * kSecond;
constexpr Nanos kLongestQuiet = 3600 * kSecond;
constexpr int kLongestPauseLog2 = 5;
// Below this a step gains nothing: weights are read once for all rows of it.
constexpr std::int32_t kLeastRows = 16;

}  // namespace

bool Breaker::on_memory_failure(Nanos now) {
  const bool fresh = failures_ > 0 && now - last_failure_ >= kLongestQuiet;
  if (fresh) quiet_ = 0;  // trips long ago do not count
  if (now - last_failure_ >= std::max(quiet_, kFirstQuiet)) in_row_ = 0;
  ++failures_;
  ++in_row_;
  last_failure_ = now;
  if (in_row_ % kFailuresToTrip != 0) return false;
  ++trips_;
  quiet_ = quiet_ == 0 ? kFirstQuiet : std::min(2 * quiet_, kLongestQuiet);
  const StepLimits before = limits();
  ++level_;
  if (limits() == before && level_ > 1) --level_;  // at the floor
  return true;
}

bool Breaker::recover(Nanos now) {
  if (level_ == 0 || now - last_failure_ < quiet_) return false;
  level_ = 0;
  in_row_ = 0;
  return true;
}

Nanos Breaker::pause() const {
  if (in_row_ <= kFailuresToTrip) return 0;
  return kSecond << std::min(in_row_ - kFailuresToTrip - 1, kLongestPauseLog2);
}

std::optional<Nanos> Breaker::quiet_ends() const {
  if (level_ == 0) return std::nullopt;
  return last_failure_ + quiet_;
}

StepLimits Breaker::limits() const {
  StepLimits out = full_;
  out.max_num_seqs = std::max(full_.max_num_seqs >> level_, 1);
  const std::int32_t least = std::min(full_.max_num_batched_tokens, kLeastRows);
  out.max_num_batched_tokens =
      std::max({full_.max_num_batched_tokens >> level_, least, out.max_num_seqs});
  return out;
}

}  // namespace strata
