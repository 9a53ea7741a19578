// What every request of a Service shares; internal to serve/. Any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "api/sampling_fields.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "metrics/server_metrics.h"
#include "serve/access.h"
#include "serve/rate_limiter.h"
#include "serve/service.h"
#include "serve/stream_registry.h"
#include "serve/turn_memory.h"
#include "tokenizer/tokenizer.h"

namespace strata::serve {

// Lets something be said now and then only. Any thread.
class Throttle {
 public:
  explicit Throttle(Nanos interval) : interval_(interval) {}
  // How often it was due and not said since the last time; empty: not yet.
  std::optional<std::int64_t> due(Nanos now);

 private:
  const Nanos interval_;
  std::atomic<Nanos> next_{0};
  std::atomic<std::int64_t> unsaid_{0};
};

struct Context {
  Context(ServiceOptions given, const tokenizer::Tokenizer& tok, Engine& eng,
          metrics::ServerMetrics& met, const Clock* clk);

  const ServiceOptions options;
  const tokenizer::Tokenizer& tokenizer;
  Engine& engine;
  metrics::ServerMetrics& metrics;
  const Clock own_clock{};
  const Clock& clock;
  const Access access;
  RateLimiter limiter;
  StreamRegistry streams;
  mutable TurnMemory turns;
  mutable Throttle length_warnings{1'000'000'000};
  const std::int64_t created;  // Unix time of the models
  const std::string fingerprint;
  std::atomic<bool> draining{false};
  std::atomic<int> active{0};

  // A seed for a request that names none; unpredictable unless ServiceOptions::seed is set.
  std::uint64_t random_seed() const;
  // "chatcmpl-" and 24 hexadecimal digits nobody can guess: an id is the right to a stream.
  std::string make_id(std::string_view prefix) const;
  api::RequestLimits limits() const;
  // YYYY-MM-DD for the system message.
  std::string current_date() const;
  // The name an answer carries. Any name is served by the one model there is.
  const std::string& shown_model(const std::string& asked) const;

 private:
  const std::uint64_t seed_key_;
  mutable std::atomic<std::uint64_t> seed_counter_{0};
  const std::array<std::uint32_t, 8> id_secret_;
  mutable std::atomic<std::uint64_t> id_counter_{0};
};

std::int64_t unix_time();

}  // namespace strata::serve
