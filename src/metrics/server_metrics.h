// What a scrape of /metrics shows: vLLM's names (so that existing dashboards, autoscalers and
// endpoint pickers work unchanged) and a few of our own under `strata:`. Any thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace strata::metrics {

// One finished request. Durations in seconds; negative: not known, nothing is observed.
struct RequestRecord {
  std::string_view finished_reason;  // stop, length, abort, error
  double time_to_first_token = -1;
  double time_to_first_answer_token = -1;  // the first that is no reasoning
  double end_to_end = -1;
  double queue = -1;
  double prefill = -1;
  double decode = -1;
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_tokens = 0;
  std::int64_t generation_tokens = 0;      // of all choices
  std::int64_t max_generation_tokens = 0;  // of the longest choice
  std::int64_t max_tokens = 0;
  int n = 1;
};

// Where the time of the engine's steps went, in seconds since start.
struct StepSeconds {
  double schedule = 0;
  double compute = 0;
  double sample = 0;
  double host = 0;
};

// The engine's state when a scrape arrives; counts since start.
struct EngineGauges {
  std::int64_t running = 0;
  std::int64_t waiting = 0;
  double kv_usage = 0;  // 0..1
  std::uint64_t steps = 0;
  std::uint64_t prefix_query_tokens = 0;
  std::uint64_t prefix_hit_tokens = 0;
  std::uint64_t preemptions = 0;  // both kinds
  std::uint64_t preemptions_swapped = 0;
  std::uint64_t preemptions_recomputed = 0;
  bool sleeping = false;  // or unloaded while idle
  std::uint64_t unloads = 0;
  std::uint64_t rebuilds = 0;
  bool safe_mode = false;
  std::uint64_t breaker_trips = 0;
  std::uint64_t memory_failures = 0;
  std::uint64_t pages_swapped_out = 0;
  std::uint64_t pages_swapped_in = 0;
  StepSeconds step_seconds;
  // Steps by rows: element i counts those with at most 2^i rows and more than 2^(i - 1).
  std::array<std::uint64_t, 17> step_rows{};
  std::uint64_t rows = 0;  // of all steps
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

  // ---- Requests. Each prompt token and each token of an answer is counted once, whatever the
  // engine did for it: recomputed, continued or thrown away.
  void request_finished(const RequestRecord& record);
  // Tokens that came at once, `gaps` of them `gap` seconds behind the one before.
  void tokens_generated(std::int64_t count, std::int64_t gaps, double gap);
  void prompt_computed(std::int64_t tokens);
  // The answer ended at its limit: the request's own or what the context had left.
  void answer_cut(bool by_context);
  void admission_rejected(std::string_view reason);
  // Malformed headers and calls to tools that were not offered, in what the model wrote.
  void model_output_oddities(int malformed_headers, int discarded_calls);

  // ---- HTTP. An answer left; `handler` is a route, never a raw path.
  struct HttpRecord {
    std::string_view handler;
    std::string_view method;
    int status = 0;
    double seconds = 0;
    std::size_t request_bytes = 0;
    std::size_t response_bytes = 0;  // of the body
  };
  void http_request(const HttpRecord& record);

  void set_cache_config(const CacheConfig& config);
  void set_weights_bytes(std::int64_t bytes);

  // Prometheus text format 0.0.4.
  std::string render(const EngineGauges& engine);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace strata::metrics
