// The figures of a run, with vLLM's definitions: TTFT to the first chunk, TPOT = (latency - TTFT) /
// (output tokens - 1) of a request, ITL between chunks, E2EL to the last chunk. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "loadgen/options.h"
#include "loadgen/outcome.h"
#include "loadgen/spec_decode.h"

namespace strata::loadgen {

double mean(std::span<const double> values);                // 0 of nothing
double standard_deviation(std::span<const double> values);  // of the population
// `p` in [0, 100], with linear interpolation between the closest ranks. REQUIRES sorted values.
double percentile(std::span<const double> sorted, double p);

struct Spread {
  double mean = 0;
  double median = 0;
  double std = 0;
  std::vector<std::pair<double, double>> percentiles;  // (p, value)
};
Spread spread_of(std::vector<double> values, std::span<const double> percentiles);

struct Figures {
  double duration = 0;  // s
  std::int64_t completed = 0;
  std::int64_t failed = 0;    // all others, the rejected among them
  std::int64_t rejected = 0;  // HTTP 429
  std::int64_t total_input = 0;
  std::int64_t total_output = 0;
  std::int64_t good = 0;  // completed within the goodput's limits
  double max_output_tokens_per_s = 0;
  std::int64_t max_concurrent_requests = 0;
  // Seconds.
  Spread ttft, tpot, itl, e2el;
  Spread client_queue, e2el_with_queue;
  Spread rejected_server_time;  // what the server says a refusal took; empty when it does not
  Spread rejected_latency;      // until the client had it
  std::int64_t rejected_with_server_time = 0;
  Spread
      lag;  // how late requests were sent: the generator's own fault, unless concurrency is bound
  std::map<std::string, std::int64_t> errors;  // kind -> count
  std::optional<SpecDecode> spec_decode;       // set by whoever asked the server

  double per_second(std::int64_t count) const {
    return duration > 0 ? static_cast<double>(count) / duration : 0.0;
  }
};

Figures figures_of(std::span<const Outcome> outcomes, double duration, const LoadOptions& options);

}  // namespace strata::loadgen
