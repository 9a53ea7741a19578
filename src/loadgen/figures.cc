#include "loadgen/figures.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace strata::loadgen {
namespace {

double tpot_of(const Outcome& outcome) {
  if (outcome.output_tokens <= 1) return 0.0;
  return (outcome.latency - outcome.ttft) / static_cast<double>(outcome.output_tokens - 1);
}

bool is_good(const Outcome& outcome, const Goodput& limits) {
  const auto keeps = [](double seconds, const std::optional<double>& limit_ms) {
    return !limit_ms || seconds * 1e3 <= *limit_ms;
  };
  return keeps(outcome.ttft, limits.ttft_ms) && keeps(tpot_of(outcome), limits.tpot_ms) &&
         keeps(outcome.latency, limits.e2el_ms);
}

// Chunks that arrived in the fullest second, counted from the first start.
double peak_tokens_per_second(std::span<const Outcome> outcomes, double begin) {
  std::map<std::int64_t, std::int64_t> seconds;
  for (const Outcome& outcome : outcomes) {
    if (!outcome.success) continue;
    double time = outcome.start + outcome.ttft - begin;
    ++seconds[static_cast<std::int64_t>(time)];
    for (const double gap : outcome.itl) {
      time += gap;
      ++seconds[static_cast<std::int64_t>(time)];
    }
  }
  std::int64_t most = 0;
  for (const auto& [second, count] : seconds) most = std::max(most, count);
  return static_cast<double>(most);
}

// Over half-open intervals: one that ends when another begins does not overlap it.
std::int64_t peak_concurrency(std::span<const Outcome> outcomes) {
  std::vector<std::pair<double, int>> events;
  for (const Outcome& outcome : outcomes) {
    if (!outcome.success) continue;
    events.emplace_back(outcome.start, 1);
    events.emplace_back(outcome.start + outcome.latency, -1);
  }
  std::sort(events.begin(), events.end());
  std::int64_t now = 0;
  std::int64_t most = 0;
  for (const auto& [time, change] : events) most = std::max(most, now += change);
  return most;
}

struct Series {
  std::vector<double> ttft, tpot, itl, e2el, queue, with_queue;
  std::vector<double> rejected_server, rejected_latency, lag;
};

void add(Series& series, Figures& figures, const Outcome& outcome, const Goodput& limits) {
  series.lag.push_back(std::max(0.0, outcome.start - outcome.queue - outcome.due));
  if (!outcome.success) {
    ++figures.failed;
    ++figures.errors[outcome.error];
    if (!outcome.rejected()) return;
    ++figures.rejected;
    series.rejected_latency.push_back(outcome.latency);
    if (outcome.server_time >= 0) series.rejected_server.push_back(outcome.server_time);
    return;
  }
  ++figures.completed;
  figures.total_input += outcome.input_tokens;
  figures.total_output += outcome.output_tokens;
  if (limits.any() && is_good(outcome, limits)) ++figures.good;
  series.ttft.push_back(outcome.ttft);
  if (outcome.output_tokens > 1) series.tpot.push_back(tpot_of(outcome));
  series.itl.insert(series.itl.end(), outcome.itl.begin(), outcome.itl.end());
  series.e2el.push_back(outcome.latency);
  series.queue.push_back(outcome.queue);
  series.with_queue.push_back(outcome.latency + outcome.queue);
}

}  // namespace

double mean(std::span<const double> values) {
  if (values.empty()) return 0.0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double standard_deviation(std::span<const double> values) {
  if (values.empty()) return 0.0;
  const double centre = mean(values);
  double sum = 0.0;
  for (const double value : values) sum += (value - centre) * (value - centre);
  return std::sqrt(sum / static_cast<double>(values.size()));
}

double percentile(std::span<const double> sorted, double p) {
  if (sorted.empty()) return 0.0;
  const double rank = std::clamp(p, 0.0, 100.0) / 100.0 * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<std::size_t>(rank);
  const std::size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (rank - static_cast<double>(low));
}

Spread spread_of(std::vector<double> values, std::span<const double> percentiles) {
  std::sort(values.begin(), values.end());
  Spread out;
  out.mean = mean(values);
  out.median = percentile(values, 50.0);
  out.std = standard_deviation(values);
  for (const double p : percentiles) out.percentiles.emplace_back(p, percentile(values, p));
  return out;
}

Figures figures_of(std::span<const Outcome> outcomes, double duration, const LoadOptions& options) {
  Figures out;
  out.duration = duration;
  Series series;
  double begin = std::numeric_limits<double>::infinity();
  for (const Outcome& outcome : outcomes) {
    add(series, out, outcome, options.goodput);
    if (outcome.success) begin = std::min(begin, outcome.start);
  }
  out.max_output_tokens_per_s = peak_tokens_per_second(outcomes, begin);
  out.max_concurrent_requests = peak_concurrency(outcomes);
  const std::span<const double> wanted = options.percentiles;
  constexpr double kP99[] = {99.0};
  out.ttft = spread_of(std::move(series.ttft), wanted);
  out.tpot = spread_of(std::move(series.tpot), wanted);
  out.itl = spread_of(std::move(series.itl), wanted);
  out.e2el = spread_of(std::move(series.e2el), wanted);
  out.client_queue = spread_of(std::move(series.queue), wanted);
  out.e2el_with_queue = spread_of(std::move(series.with_queue), wanted);
  out.rejected_with_server_time = static_cast<std::int64_t>(series.rejected_server.size());
  out.rejected_server_time = spread_of(std::move(series.rejected_server), kP99);
  out.rejected_latency = spread_of(std::move(series.rejected_latency), kP99);
  out.lag = spread_of(std::move(series.lag), kP99);
  return out;
}

}  // namespace strata::loadgen
