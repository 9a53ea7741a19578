#include "metrics/server_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <string>
#include <tuple>

#include "metrics/buckets.h"

namespace strata::metrics {
namespace {

using Labels = prometheus::Labels;
using Buckets = prometheus::Histogram::BucketBoundaries;

std::string status_class(int status) { return std::to_string(status / 100) + "xx"; }

}  // namespace

class ServerMetrics::Impl {
 public:
  explicit Impl(const std::string& model_name)
      : labels_{{"model_name", model_name}, {"engine", "0"}} {
    // A series that exists from the start can be told from one that is not exported.
    for (const char* reason : {"stop", "length", "abort", "error"}) success(reason);
  }

  void finished(const RequestRecord& record) {
    success(std::string(record.finished_reason)).Increment();
    observe(ttft_, record.time_to_first_token);
    observe(e2e_, record.end_to_end);
    observe(queue_, record.queue);
    observe(prefill_, record.prefill);
    observe(decode_, record.decode);
    if (record.prefill >= 0 && record.decode >= 0)
      inference_.Observe(record.prefill + record.decode);
    if (record.decode >= 0 && record.generation_tokens > record.n)
      per_token_.Observe(record.decode * record.n /
                         static_cast<double>(record.generation_tokens - record.n));
    prompt_length_.Observe(static_cast<double>(record.prompt_tokens));
    answer_length_.Observe(static_cast<double>(record.generation_tokens));
    max_tokens_.Observe(static_cast<double>(record.max_tokens));
    n_.Observe(record.n);
    cached_.Increment(static_cast<double>(record.cached_tokens));
    source("local_cache_hit").Increment(static_cast<double>(record.cached_tokens));
    source("local_compute")
        .Increment(static_cast<double>(
            std::max<std::int64_t>(record.prompt_tokens - record.cached_tokens, 0)));
  }

  void token_gap(double seconds) {
    gap_.Observe(seconds);
    old_gap_.Observe(seconds);
    fine_gap_.Observe(seconds);
  }

  void http_request(std::string_view handler, std::string_view method, int status, double seconds) {
    const Labels labels = {{"handler", std::string(handler)}, {"method", std::string(method)}};
    auto counted = labels;
    counted.emplace("status", status_class(status));
    http_family_.Add(counted).Increment();
    http_seconds_family_.Add(labels, Buckets(kHttpBuckets.begin(), kHttpBuckets.end()))
        .Observe(seconds);
  }

  void rejected(std::string_view reason) {
    auto labels = labels_;
    labels.emplace("reason", std::string(reason));
    rejected_family_.Add(labels).Increment();
  }

  void oddities(int malformed_headers, int discarded_calls) {
    malformed_.Increment(malformed_headers);
    discarded_.Increment(discarded_calls);
  }

  void cache_config(const CacheConfig& config) {
    auto labels = labels_;
    labels.emplace("block_size", std::to_string(config.block_size));
    labels.emplace("num_gpu_blocks", std::to_string(config.num_gpu_blocks));
    labels.emplace("kv_cache_size_tokens",
                   std::to_string(config.block_size * config.num_gpu_blocks));
    labels.emplace("max_model_len", std::to_string(config.max_model_len));
    cache_info_family_.Add(labels).Set(1);
  }

  std::string render(const EngineGauges& engine) {
    const std::lock_guard lock(mutex_);
    running_.Set(static_cast<double>(engine.running));
    waiting_.Set(static_cast<double>(engine.waiting));
    kv_usage_.Set(engine.kv_usage);
    old_kv_usage_.Set(engine.kv_usage);
    catch_up(prompt_tokens_, engine.prompt_tokens);
    catch_up(generated_tokens_, engine.generated_tokens);
    catch_up(preemptions_, engine.preemptions);
    for (auto* counter : {&prefix_queries_, &old_prefix_queries_})
      catch_up(*counter, engine.prefix_query_tokens);
    for (auto* counter : {&prefix_hits_, &old_prefix_hits_})
      catch_up(*counter, engine.prefix_hit_tokens);
    if (engine.prefix_query_tokens > 0)
      old_hit_rate_.Set(static_cast<double>(engine.prefix_hit_tokens) /
                        static_cast<double>(engine.prefix_query_tokens));
    return prometheus::TextSerializer().Serialize(registry_.Collect());
  }

 private:
  static void observe(prometheus::Histogram& histogram, double value) {
    if (value >= 0) histogram.Observe(value);
  }
  // The engine counts; a scrape only brings the series up to it.
  static void catch_up(prometheus::Counter& counter, std::uint64_t total) {
    const double missing = static_cast<double>(total) - counter.Value();
    if (missing > 0) counter.Increment(missing);
  }

  prometheus::Family<prometheus::Counter>& counters(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry_);
  }
  prometheus::Counter& counter(const char* name, const char* help) {
    return counters(name, help).Add(labels_);
  }
  prometheus::Gauge& gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add(labels_);
  }
  template <typename Array>
  prometheus::Histogram& histogram(const char* name, const char* help, const Array& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry_).Add(
        labels_, Buckets(buckets.begin(), buckets.end()));
  }
  prometheus::Counter& success(const std::string& reason) {
    auto labels = labels_;
    labels.emplace("finished_reason", reason);
    return success_family_.Add(labels);
  }
  prometheus::Counter& source(const char* name) {
    auto labels = labels_;
    labels.emplace("source", name);
    return source_family_.Add(labels);
  }

  const Labels labels_;
  prometheus::Registry registry_;
  std::mutex mutex_;  // of render(): counters are brought up to the engine's

  prometheus::Gauge& running_ = gauge("vllm:num_requests_running", "Requests being computed.");
  prometheus::Gauge& waiting_ = gauge("vllm:num_requests_waiting", "Requests waiting to start.");
  prometheus::Gauge& kv_usage_ = gauge("vllm:kv_cache_usage_perc", "Used KV pages, 0 to 1.");
  prometheus::Gauge& old_kv_usage_ =
      gauge("vllm:gpu_cache_usage_perc", "Older name of vllm:kv_cache_usage_perc.");
  prometheus::Gauge& old_hit_rate_ =
      gauge("vllm:gpu_prefix_cache_hit_rate", "Prefix cache hits per queried token.");
  prometheus::Counter& prefix_queries_ =
      counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.");
  prometheus::Counter& prefix_hits_ =
      counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.");
  prometheus::Counter& old_prefix_queries_ = counter(
      "vllm:gpu_prefix_cache_queries_total", "Older name of vllm:prefix_cache_queries_total.");
  prometheus::Counter& old_prefix_hits_ =
      counter("vllm:gpu_prefix_cache_hits_total", "Older name of vllm:prefix_cache_hits_total.");
  prometheus::Counter& prompt_tokens_ =
      counter("vllm:prompt_tokens_total", "Prompt tokens computed.");
  prometheus::Counter& generated_tokens_ =
      counter("vllm:generation_tokens_total", "Tokens generated.");
  prometheus::Counter& cached_ =
      counter("vllm:prompt_tokens_cached_total", "Prompt tokens taken from the prefix cache.");
  prometheus::Counter& preemptions_ =
      counter("vllm:num_preemptions_total", "Sequences that lost their KV pages and start again.");
  prometheus::Counter& malformed_ =
      counter("strata:malformed_headers_total", "Odd harmony headers in what the model wrote.");
  prometheus::Counter& discarded_ =
      counter("strata:discarded_calls_total", "Calls to tools that were not offered.");
  prometheus::Family<prometheus::Counter>& success_family_ =
      counters("vllm:request_success_total", "Finished requests by reason.");
  prometheus::Family<prometheus::Counter>& source_family_ =
      counters("vllm:prompt_tokens_by_source_total", "Prompt tokens by where their KV came from.");
  prometheus::Family<prometheus::Counter>& rejected_family_ =
      counters("vllm:admission_rejections_total", "Requests refused before they were queued.");
  prometheus::Family<prometheus::Counter>& http_family_ =
      counters("http_requests_total", "HTTP requests by handler, method and status class.");
  prometheus::Family<prometheus::Histogram>& http_seconds_family_ =
      prometheus::BuildHistogram()
          .Name("http_request_duration_seconds")
          .Help("Time from a request to the end of its answer.")
          .Register(registry_);
  prometheus::Family<prometheus::Gauge>& cache_info_family_ =
      prometheus::BuildGauge()
          .Name("vllm:cache_config_info")
          .Help("Shape of the KV cache, as labels.")
          .Register(registry_);

  prometheus::Histogram& ttft_ = histogram("vllm:time_to_first_token_seconds",
                                           "From arrival to the first token.", kFirstTokenBuckets);
  prometheus::Histogram& gap_ =
      histogram("vllm:inter_token_latency_seconds", "Time between tokens.", kTokenBuckets);
  prometheus::Histogram& old_gap_ =
      histogram("vllm:time_per_output_token_seconds",
                "Older name of vllm:inter_token_latency_seconds.", kTokenBuckets);
  prometheus::Histogram& fine_gap_ =
      histogram("strata:inter_token_latency_seconds",
                "Time between tokens, with buckets below 10 ms.", kFineTokenBuckets);
  prometheus::Histogram& per_token_ =
      histogram("vllm:request_time_per_output_token_seconds",
                "A request's mean time between tokens.", kTokenBuckets);
  prometheus::Histogram& e2e_ =
      histogram("vllm:e2e_request_latency_seconds", "From arrival to the end.", kRequestBuckets);
  prometheus::Histogram& queue_ = histogram("vllm:request_queue_time_seconds",
                                            "From arrival to the first step.", kRequestBuckets);
  prometheus::Histogram& inference_ = histogram("vllm:request_inference_time_seconds",
                                                "From the first step to the end.", kRequestBuckets);
  prometheus::Histogram& prefill_ =
      histogram("vllm:request_prefill_time_seconds", "From the first step to the first token.",
                kRequestBuckets);
  prometheus::Histogram& decode_ = histogram("vllm:request_decode_time_seconds",
                                             "From the first to the last token.", kRequestBuckets);
  prometheus::Histogram& prompt_length_ =
      histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", kLengthBuckets);
  prometheus::Histogram& answer_length_ = histogram(
      "vllm:request_generation_tokens", "Tokens generated for a request.", kLengthBuckets);
  prometheus::Histogram& max_tokens_ =
      histogram("vllm:request_params_max_tokens", "Answer limit of a request.", kLengthBuckets);
  prometheus::Histogram& n_ =
      histogram("vllm:request_params_n", "Choices of a request.", kChoiceBuckets);
};

ServerMetrics::ServerMetrics(const std::string& model_name)
    : impl_(std::make_unique<Impl>(model_name)) {}
ServerMetrics::~ServerMetrics() = default;

void ServerMetrics::request_finished(const RequestRecord& record) { impl_->finished(record); }
void ServerMetrics::token_gap(double seconds) { impl_->token_gap(seconds); }
void ServerMetrics::http_request(std::string_view handler, std::string_view method, int status,
                                 double seconds) {
  impl_->http_request(handler, method, status, seconds);
}
void ServerMetrics::admission_rejected(std::string_view reason) { impl_->rejected(reason); }
void ServerMetrics::model_output_oddities(int malformed_headers, int discarded_calls) {
  impl_->oddities(malformed_headers, discarded_calls);
}
void ServerMetrics::set_cache_config(const CacheConfig& config) { impl_->cache_config(config); }
std::string ServerMetrics::render(const EngineGauges& engine) { return impl_->render(engine); }

}  // namespace strata::metrics
