// Series of the engine's and the process's state: brought up to date when a scrape comes; internal
// to metrics/.
#pragma once

#include "metrics/buckets.h"
#include "metrics/series.h"
#include "metrics/server_metrics.h"

namespace strata::metrics {

class EngineSeries {
 public:
  explicit EngineSeries(SeriesMaker& make);
  // One scrape at a time.
  void update(const EngineGauges& engine);

 private:
  void update_prefix_cache(const EngineGauges& engine);
  void update_steps(const EngineGauges& engine);

  SeriesMaker& make_;
  EngineGauges last_;  // as of the scrape before
  GaugeFamily& waiting_reasons_ =
      make_.gauges("vllm:num_requests_waiting_by_reason", "Requests waiting to start, by reason.");
  prometheus::Gauge& running_ =
      make_.gauge("vllm:num_requests_running", "Requests being computed.");
  prometheus::Gauge& waiting_ =
      make_.gauge("vllm:num_requests_waiting", "Requests waiting to start.");
  prometheus::Gauge& waiting_for_capacity_ = waiting_reasons_.Add(make_.with("reason", "capacity"));
  prometheus::Gauge& kv_usage_ = make_.gauge("vllm:kv_cache_usage_perc", "Used KV pages, 0 to 1.");
  prometheus::Gauge& old_kv_usage_ =
      make_.gauge("vllm:gpu_cache_usage_perc", "Older name of vllm:kv_cache_usage_perc.");
  prometheus::Gauge& ratio_kv_usage_ =
      make_.gauge("vllm:gpu_cache_usage_ratio", "Another name of vllm:kv_cache_usage_perc.");
  prometheus::Gauge& old_hit_rate_ =
      make_.gauge("vllm:gpu_prefix_cache_hit_rate", "Prefix cache hits per queried token.");
  prometheus::Counter& prefix_queries_ = make_.counter(
      "vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.");
  prometheus::Counter& prefix_hits_ =
      make_.counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.");
  prometheus::Counter& old_prefix_queries_ = make_.counter(
      "vllm:gpu_prefix_cache_queries_total", "Older name of vllm:prefix_cache_queries_total.");
  prometheus::Counter& old_prefix_hits_ = make_.counter(
      "vllm:gpu_prefix_cache_hits_total", "Older name of vllm:prefix_cache_hits_total.");
  prometheus::Counter& preemptions_ = make_.counter(
      "vllm:num_preemptions_total", "Sequences that lost their KV pages and start again.");
  CounterFamily& preemption_kinds_ =
      make_.counters("strata:preemptions_total", "Preemptions by what becomes of the KV pages.");
  prometheus::Counter& preempted_swapped_ = preemption_kinds_.Add(make_.with("kind", "swapped"));
  prometheus::Counter& preempted_recomputed_ =
      preemption_kinds_.Add(make_.with("kind", "recomputed"));
  GaugeFamily& sleep_states_ =
      make_.gauges("vllm:engine_sleep_state", "1 for the state the engine is in.");
  prometheus::Gauge& awake_ = sleep_states_.Add(make_.with("sleep_state", "awake"));
  prometheus::Gauge& asleep_ = sleep_states_.Add(make_.with("sleep_state", "discard_all"));
  prometheus::Counter& unloads_ =
      make_.counter("strata:unloads_total", "Times the model was unloaded: by /sleep, or idle.");
  prometheus::Counter& rebuilds_ =
      make_.counter("strata:rebuilds_total", "Times the model was rebuilt after a failure.");
  prometheus::Gauge& safe_mode_ =
      make_.gauge("strata:safe_mode", "1 while fewer sequences run, after failed allocations.");
  prometheus::Counter& breaker_trips_ =
      make_.counter("strata:breaker_trips_total", "Times safe mode was entered or tightened.");
  prometheus::Counter& memory_failures_ =
      make_.counter("strata:memory_failures_total", "Allocations that failed in a step or load.");
  prometheus::Counter& steps_ =
      make_.counter("strata:steps_total", "Steps the engine gave to the model.");
  // A histogram despite its name, which is vLLM's.
  prometheus::Histogram& step_rows_ = make_.histogram(
      "vllm:iteration_tokens_total", "Rows of a step: prompt and answer tokens.", kStepBuckets);
  CounterFamily& step_seconds_ = make_.counters("strata:step_seconds_total",
                                                "Time of the engine's steps by what it went into.");
  prometheus::Counter& schedule_ = step_seconds_.Add(make_.with("part", "schedule"));
  prometheus::Counter& compute_ = step_seconds_.Add(make_.with("part", "compute"));
  prometheus::Counter& sample_ = step_seconds_.Add(make_.with("part", "sample"));
  prometheus::Counter& host_ = step_seconds_.Add(make_.with("part", "host"));
  CounterFamily& swapped_ = make_.counters("strata:kv_pages_swapped_total",
                                           "KV pages moved to host memory and found there again.");
  prometheus::Counter& swapped_out_ = swapped_.Add(make_.with("direction", "out"));
  prometheus::Counter& swapped_in_ = swapped_.Add(make_.with("direction", "in"));
};

// process_*, as every client library of Prometheus exports them; without labels.
class ProcessSeries {
 public:
  explicit ProcessSeries(prometheus::Registry& registry) : make_(registry, {}) {}
  void update();

 private:
  SeriesMaker make_;
  prometheus::Counter& cpu_ =
      make_.counter("process_cpu_seconds_total", "Processor time of the program, user and system.");
  prometheus::Gauge& start_ =
      make_.gauge("process_start_time_seconds", "Unix time of the program's start.");
  prometheus::Gauge& resident_ =
      make_.gauge("process_resident_memory_bytes", "Memory of the program that is resident.");
  prometheus::Gauge& virtual_ =
      make_.gauge("process_virtual_memory_bytes", "Address space of the program.");
  prometheus::Gauge& open_fds_ = make_.gauge("process_open_fds", "Open file descriptors.");
  prometheus::Gauge& max_fds_ =
      make_.gauge("process_max_fds", "Most file descriptors that may be open.");
};

}  // namespace strata::metrics
