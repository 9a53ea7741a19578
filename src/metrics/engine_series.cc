#include "metrics/engine_series.h"

#include <algorithm>
#include <vector>

#include "metrics/process_stats.h"

namespace strata::metrics {
namespace {

// The engine counts; a scrape only brings the series up to it.
void catch_up(prometheus::Counter& counter, double total) {
  const double missing = total - counter.Value();
  if (missing > 0) counter.Increment(missing);
}

void catch_up(prometheus::Counter& counter, std::uint64_t total) {
  catch_up(counter, static_cast<double>(total));
}

}  // namespace

EngineSeries::EngineSeries(SeriesMaker& make) : make_(make) {}

void EngineSeries::update(const EngineGauges& engine) {
  running_.Set(static_cast<double>(engine.running));
  waiting_.Set(static_cast<double>(engine.waiting));
  waiting_for_capacity_.Set(static_cast<double>(engine.waiting));
  for (auto* gauge : {&kv_usage_, &old_kv_usage_, &ratio_kv_usage_}) gauge->Set(engine.kv_usage);
  catch_up(preemptions_, engine.preemptions);
  catch_up(preempted_swapped_, engine.preemptions_swapped);
  catch_up(preempted_recomputed_, engine.preemptions_recomputed);
  awake_.Set(engine.sleeping ? 0 : 1);
  asleep_.Set(engine.sleeping ? 1 : 0);
  catch_up(unloads_, engine.unloads);
  catch_up(rebuilds_, engine.rebuilds);
  safe_mode_.Set(engine.safe_mode ? 1 : 0);
  catch_up(breaker_trips_, engine.breaker_trips);
  catch_up(memory_failures_, engine.memory_failures);
  catch_up(steps_, engine.steps);
  catch_up(swapped_out_, engine.pages_swapped_out);
  catch_up(swapped_in_, engine.pages_swapped_in);
  update_prefix_cache(engine);
  update_steps(engine);
  last_ = engine;
}

void EngineSeries::update_steps(const EngineGauges& engine) {
  catch_up(schedule_, engine.step_seconds.schedule);
  catch_up(compute_, engine.step_seconds.compute);
  catch_up(sample_, engine.step_seconds.sample);
  catch_up(host_, engine.step_seconds.host);
  // One element a bucket, the last for what is above all boundaries.
  std::vector<double> steps(kStepBuckets.size() + 1);
  for (std::size_t power = 0; power < engine.step_rows.size(); ++power) {
    const auto most = static_cast<double>(std::uint64_t{1} << power);
    const auto* bucket = std::lower_bound(kStepBuckets.begin(), kStepBuckets.end(), most);
    steps[static_cast<std::size_t>(bucket - kStepBuckets.begin())] +=
        static_cast<double>(engine.step_rows[power] - last_.step_rows[power]);
  }
  step_rows_.ObserveMultiple(steps, static_cast<double>(engine.rows - last_.rows));
}

void EngineSeries::update_prefix_cache(const EngineGauges& engine) {
  for (auto* counter : {&prefix_queries_, &old_prefix_queries_})
    catch_up(*counter, engine.prefix_query_tokens);
  for (auto* counter : {&prefix_hits_, &old_prefix_hits_})
    catch_up(*counter, engine.prefix_hit_tokens);
  if (engine.prefix_query_tokens > 0)
    old_hit_rate_.Set(static_cast<double>(engine.prefix_hit_tokens) /
                      static_cast<double>(engine.prefix_query_tokens));
}

void ProcessSeries::update() {
  const auto stats = read_process_stats();
  catch_up(cpu_, stats.cpu_seconds);
  start_.Set(stats.start_time_seconds);
  resident_.Set(static_cast<double>(stats.resident_bytes));
  virtual_.Set(static_cast<double>(stats.virtual_bytes));
  open_fds_.Set(static_cast<double>(stats.open_fds));
  max_fds_.Set(static_cast<double>(stats.max_fds));
}

}  // namespace strata::metrics
