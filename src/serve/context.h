// What every request of a Service shares; internal to serve/. Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "api/sampling_fields.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "metrics/server_metrics.h"
#include "serve/access.h"
#include "serve/service.h"
#include "tokenizer/tokenizer.h"

namespace strata::serve {

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
  const std::int64_t created;  // Unix time of the models
  const std::string fingerprint;
  std::atomic<bool> draining{false};
  std::atomic<int> active{0};

  // Unpredictable unless ServiceOptions::id_seed is set.
  std::uint64_t random() const;
  // "chatcmpl-" and 24 hexadecimal digits.
  std::string make_id(std::string_view prefix) const;
  api::RequestLimits limits() const;
  // YYYY-MM-DD for the system message.
  std::string current_date() const;
  // The name an answer carries. Any name is served by the one model there is.
  const std::string& shown_model(const std::string& asked) const;

 private:
  const std::uint64_t random_key_;
  mutable std::atomic<std::uint64_t> random_counter_{0};
};

std::int64_t unix_time();

}  // namespace strata::serve
