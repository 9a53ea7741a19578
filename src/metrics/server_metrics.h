// What a scrape of /metrics shows: vLLM's names (so that existing dashboards, autoscalers and
// endpoint pickers work unchanged) and a few of our own under `strata:`. Any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace strata::metrics {

// One finished request. Durations in seconds; negative: not known, nothing is observed.
struct RequestRecord {
  std::string_view finished_reason;  // stop, length, abort, error
  double time_to_first_token = -1;
  double end_to_end = -1;
  double queue = -1;
  double prefill = -1;
  double decode = -1;
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_tokens = 0;
  std::int64_t generation_tokens = 0;
  std::int64_t max_tokens = 0;
  int n = 1;
};

// The engine's state when a scrape arrives; counts since start.
struct EngineGauges {
  std::int64_t running = 0;
  std::int64_t waiting = 0;
  double kv_usage = 0;  // 0..1
  std::uint64_t prompt_tokens = 0;
  std::uint64_t generated_tokens = 0;
  std::uint64_t prefix_query_tokens = 0;
  std::uint64_t prefix_hit_tokens = 0;
  std::uint64_t preemptions = 0;
};

struct CacheConfig {
  std::int64_t block_size = 0;
  std::int64_t num_gpu_blocks = 0;
  std::int64_t max_model_len = 0;
};

class ServerMetrics {
 public:
  // `model_name`: the label of every series, the first served name.
  explicit ServerMetrics(const std::string& model_name);
  ~ServerMetrics();
  ServerMetrics(const ServerMetrics&) = delete;
  ServerMetrics& operator=(const ServerMetrics&) = delete;

  void request_finished(const RequestRecord& record);
  // Time since the sequence's previous token.
  void token_gap(double seconds);
  // An HTTP answer left; `handler` is a route, never a raw path.
  void http_request(std::string_view handler, std::string_view method, int status, double seconds);
  void admission_rejected(std::string_view reason);
  // Malformed headers and calls to tools that were not offered, in what the model wrote.
  void model_output_oddities(int malformed_headers, int discarded_calls);
  void set_cache_config(const CacheConfig& config);

  // Prometheus text format 0.0.4.
  std::string render(const EngineGauges& engine);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace strata::metrics
