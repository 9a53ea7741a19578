#include "serve/rate_limiter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace strata::serve {
namespace {

constexpr double kMinute = 60.0;

Unexpected refused(std::string message, double wait_s) {
  Error error{ErrorCode::kRateLimited, std::move(message), {}, "rate_limit_exceeded", 0};
  error.retry_after_s = static_cast<int>(std::clamp(std::ceil(wait_s), 1.0, 3600.0));
  return Unexpected(std::move(error));
}

double seconds_until(double level, double wanted, std::int64_t limit) {
  return std::max(wanted - level, 0.0) * kMinute / static_cast<double>(limit);
}

}  // namespace

std::size_t RateLimiter::DigestHash::operator()(const Sha256Digest& digest) const {
  std::size_t out = 0;
  std::memcpy(&out, digest.data(), sizeof out);
  return out;
}

RateLimiter::RateLimiter(const RateLimits& limits, const Clock& clock)
    : limits_(limits), clock_(clock) {}

RateLimiter::Lease::~Lease() { limiter_->release(client_); }
Result<void> RateLimiter::Lease::take_prompt(std::int64_t tokens) {
  return limiter_->take_prompt(client_, tokens);
}
void RateLimiter::Lease::take_answer(std::int64_t tokens) {
  limiter_->take_answer(client_, tokens);
}

void RateLimiter::fill(Bucket& bucket, std::int64_t limit) const {
  const auto most = static_cast<double>(limit);
  const Nanos now = clock_.now();
  if (bucket.filled == 0) {
    bucket.level = most;
  } else {
    const double gained = to_seconds(now - bucket.filled) * most / kMinute;
    bucket.level = std::min(most, bucket.level + gained);
  }
  bucket.filled = now;
}

RateLimiter::Client& RateLimiter::client_of(const Sha256Digest& client) {
  Client& found = clients_[client];
  if (limits_.requests_per_minute > 0) fill(found.requests, limits_.requests_per_minute);
  if (limits_.tokens_per_minute > 0) fill(found.tokens, limits_.tokens_per_minute);
  return found;
}

Result<std::unique_ptr<RateLimiter::Lease>> RateLimiter::admit(const Sha256Digest& client) {
  const std::lock_guard lock(mutex_);
  Client& found = client_of(client);
  if (limits_.concurrent_requests > 0 && found.running >= limits_.concurrent_requests)
    return refused(
        fmt::format("this key already has {} requests running, which is its limit", found.running),
        1.0);
  if (limits_.requests_per_minute > 0 && found.requests.level < 1.0)
    return refused(fmt::format("the limit of {} requests a minute of this key is reached",
                               limits_.requests_per_minute),
                   seconds_until(found.requests.level, 1.0, limits_.requests_per_minute));
  // In debt nothing fits: refused before the prompt is even read.
  if (limits_.tokens_per_minute > 0 && found.tokens.level < 1.0)
    return refused(fmt::format("the limit of {} tokens a minute of this key is reached",
                               limits_.tokens_per_minute),
                   seconds_until(found.tokens.level, 1.0, limits_.tokens_per_minute));
  if (limits_.requests_per_minute > 0) found.requests.level -= 1.0;
  ++found.running;
  return std::make_unique<Lease>(*this, client);
}

void RateLimiter::release(const Sha256Digest& client) {
  const std::lock_guard lock(mutex_);
  --clients_[client].running;
}

Result<void> RateLimiter::take_prompt(const Sha256Digest& client, std::int64_t tokens) {
  const auto limit = limits_.tokens_per_minute;
  if (limit <= 0) return {};
  if (tokens > limit) {
    // Waiting does not help: no Retry-After.
    return fail(
        ErrorCode::kRateLimited,
        fmt::format("the prompt has {} tokens, and this key may use {} a minute", tokens, limit),
        {}, "rate_limit_exceeded");
  }
  const std::lock_guard lock(mutex_);
  Client& found = client_of(client);
  const auto wanted = static_cast<double>(tokens);
  if (found.tokens.level < wanted)
    return refused(
        fmt::format("the prompt has {} tokens, and of the {} a minute of this key {} "
                    "are left",
                    tokens, limit, static_cast<std::int64_t>(std::max(found.tokens.level, 0.0))),
        seconds_until(found.tokens.level, wanted, limit));
  found.tokens.level -= wanted;
  return {};
}

void RateLimiter::take_answer(const Sha256Digest& client, std::int64_t tokens) {
  if (limits_.tokens_per_minute <= 0) return;
  const std::lock_guard lock(mutex_);
  client_of(client).tokens.level -= static_cast<double>(tokens);
}

RateLimiter::Headers RateLimiter::headers(const Sha256Digest& client) {
  Headers out;
  if (limits_.requests_per_minute <= 0 && limits_.tokens_per_minute <= 0) return out;
  const std::lock_guard lock(mutex_);
  const Client& found = client_of(client);
  const auto add = [&out](const char* what, std::int64_t limit, const Bucket& bucket) {
    if (limit <= 0) return;
    const auto left = static_cast<std::int64_t>(std::max(bucket.level, 0.0));
    const double wait = seconds_until(bucket.level, static_cast<double>(limit), limit);
    out.emplace_back(fmt::format("x-ratelimit-limit-{}", what), std::to_string(limit));
    out.emplace_back(fmt::format("x-ratelimit-remaining-{}", what), std::to_string(left));
    out.emplace_back(fmt::format("x-ratelimit-reset-{}", what), reset_text(wait));
  };
  add("requests", limits_.requests_per_minute, found.requests);
  add("tokens", limits_.tokens_per_minute, found.tokens);
  return out;
}

std::string reset_text(double seconds) {
  const auto ms = static_cast<std::int64_t>(std::ceil(seconds * 1e3));
  if (ms < 1000) return fmt::format("{}ms", ms);
  if (ms < 60'000) return fmt::format("{}s", static_cast<double>(ms) / 1e3);
  return fmt::format("{}m{}s", ms / 60'000, ms % 60'000 / 1000);
}

}  // namespace strata::serve
