#include "metrics/server_metrics.h"

#include <prometheus/summary.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <vector>

#include "metrics/buckets.h"
#include "metrics/engine_series.h"
#include "metrics/gap_counter.h"
#include "metrics/series.h"

namespace strata::metrics {
namespace {

std::string status_class(int status) { return std::to_string(status / 100) + "xx"; }

std::vector<double> all_token_buckets() {
  std::vector<double> out(kTokenBuckets.begin(), kTokenBuckets.end());
  out.insert(out.end(), kFineTokenBuckets.begin(), kFineTokenBuckets.end());
  return out;
}

void observe(prometheus::Histogram& histogram, double value) {
  if (value >= 0) histogram.Observe(value);
}

// Requests and their tokens.
struct RequestSeries {
  explicit RequestSeries(SeriesMaker& maker) : make(maker) {
    // A series that exists from the start can be told from one that is not exported.
    for (const char* reason : {"stop", "length", "abort", "error"})
      success.Add(make.with("finished_reason", reason));
  }

  SeriesMaker& make;
  prometheus::Counter& prompt_tokens =
      make.counter("vllm:prompt_tokens_total", "Prompt tokens of requests that were begun.");
  prometheus::Counter& generated_tokens =
      make.counter("vllm:generation_tokens_total", "Tokens of answers.");
  prometheus::Counter& cached =
      make.counter("vllm:prompt_tokens_cached_total", "Prompt tokens taken from the prefix cache.");
  CounterFamily& sources = make.counters("vllm:prompt_tokens_by_source_total",
                                         "Prompt tokens by where their KV came from.");
  prometheus::Counter& from_cache = sources.Add(make.with("source", "local_cache_hit"));
  prometheus::Counter& from_compute = sources.Add(make.with("source", "local_compute"));
  CounterFamily& success =
      make.counters("vllm:request_success_total", "Finished requests by reason.");
  CounterFamily& rejected =
      make.counters("vllm:admission_rejections_total", "Requests refused before they were queued.");
  prometheus::Counter& malformed = make.counter("strata:malformed_headers_total",
                                                "Odd harmony headers in what the model wrote.");
  prometheus::Counter& discarded =
      make.counter("strata:discarded_calls_total", "Calls to tools that were not offered.");
  CounterFamily& cut =
      make.counters("strata:answers_cut_total", "Answers that ended at their length limit.");
  prometheus::Counter& cut_by_request = cut.Add(make.with("limit", "max_tokens"));
  prometheus::Counter& cut_by_context = cut.Add(make.with("limit", "context"));

  prometheus::Histogram& first_token = make.histogram(
      "vllm:time_to_first_token_seconds", "From arrival to the first token.", kFirstTokenBuckets);
  prometheus::Histogram& first_answer_token = make.histogram(
      "strata:time_to_first_answer_token_seconds",
      "From arrival to the first token of the answer: behind the reasoning.", kFirstTokenBuckets);
  prometheus::Histogram& gap =
      make.histogram("vllm:inter_token_latency_seconds", "Time between tokens.", kTokenBuckets);
  prometheus::Histogram& old_gap =
      make.histogram("vllm:time_per_output_token_seconds",
                     "Older name of vllm:inter_token_latency_seconds.", kTokenBuckets);
  prometheus::Histogram& fine_gap =
      make.histogram("strata:inter_token_latency_seconds",
                     "Time between tokens, with buckets below 10 ms.", kFineTokenBuckets);
  prometheus::Histogram& per_token =
      make.histogram("vllm:request_time_per_output_token_seconds",
                     "A request's mean time between tokens.", kTokenBuckets);
  prometheus::Histogram& end_to_end = make.histogram("vllm:e2e_request_latency_seconds",
                                                     "From arrival to the end.", kRequestBuckets);
  prometheus::Histogram& queue = make.histogram("vllm:request_queue_time_seconds",
                                                "From arrival to the first step.", kRequestBuckets);
  prometheus::Histogram& inference = make.histogram(
      "vllm:request_inference_time_seconds", "From the first step to the end.", kRequestBuckets);
  prometheus::Histogram& prefill =
      make.histogram("vllm:request_prefill_time_seconds", "From the first step to the first token.",
                     kRequestBuckets);
  prometheus::Histogram& decode = make.histogram(
      "vllm:request_decode_time_seconds", "From the first to the last token.", kRequestBuckets);
  prometheus::Histogram& prompt_length =
      make.histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", kLengthBuckets);
  prometheus::Histogram& computed_length = make.histogram(
      "vllm:request_prefill_kv_computed_tokens",
      "Prompt tokens of a request that the prefix cache did not have.", kLengthBuckets);
  prometheus::Histogram& answer_length = make.histogram(
      "vllm:request_generation_tokens", "Tokens generated for a request.", kLengthBuckets);
  prometheus::Histogram& longest_choice =
      make.histogram("vllm:request_max_num_generation_tokens",
                     "Tokens of a request's longest choice.", kLengthBuckets);
  prometheus::Histogram& max_tokens = make.histogram("vllm:request_params_max_tokens",
                                                     "Answer limit of a request.", kLengthBuckets);
  prometheus::Histogram& choices =
      make.histogram("vllm:request_params_n", "Choices of a request.", kChoiceBuckets);

  GapCounter gaps{all_token_buckets()};

  void finished(const RequestRecord& record);
  void update() {
    const std::array<GapCounter::Target, 3> targets = {
        {{&gap, kTokenBuckets}, {&old_gap, kTokenBuckets}, {&fine_gap, kFineTokenBuckets}}};
    gaps.tell(targets);
  }
};

void RequestSeries::finished(const RequestRecord& record) {
  success.Add(make.with("finished_reason", std::string(record.finished_reason))).Increment();
  observe(first_token, record.time_to_first_token);
  observe(first_answer_token, record.time_to_first_answer_token);
  observe(end_to_end, record.end_to_end);
  observe(queue, record.queue);
  observe(prefill, record.prefill);
  observe(decode, record.decode);
  if (record.prefill >= 0 && record.decode >= 0) inference.Observe(record.prefill + record.decode);
  if (record.decode >= 0 && record.generation_tokens > record.n)
    per_token.Observe(record.decode * record.n /
                      static_cast<double>(record.generation_tokens - record.n));
  const auto computed =
      static_cast<double>(std::max<std::int64_t>(record.prompt_tokens - record.cached_tokens, 0));
  prompt_length.Observe(static_cast<double>(record.prompt_tokens));
  computed_length.Observe(computed);
  answer_length.Observe(static_cast<double>(record.generation_tokens));
  longest_choice.Observe(static_cast<double>(record.max_generation_tokens));
  max_tokens.Observe(static_cast<double>(record.max_tokens));
  choices.Observe(record.n);
  cached.Increment(static_cast<double>(record.cached_tokens));
  from_cache.Increment(static_cast<double>(record.cached_tokens));
  from_compute.Increment(computed);
}

// HTTP as the usual instrumentation of vLLM's web framework counts it; without model labels.
struct HttpSeries {
  explicit HttpSeries(prometheus::Registry& to) : registry(to), make(to, {}) {}

  prometheus::Registry& registry;
  SeriesMaker make;
  CounterFamily& requests =
      make.counters("http_requests_total", "HTTP requests by handler, method and status class.");
  prometheus::Family<prometheus::Histogram>& seconds =
      prometheus::BuildHistogram()
          .Name("http_request_duration_seconds")
          .Help("Time from a request to the end of its answer.")
          .Register(registry);
  prometheus::Histogram& fine_seconds = make.histogram(
      "http_request_duration_highr_seconds",
      "Time from a request to the end of its answer, finer and of all handlers.", kFineHttpBuckets);
  prometheus::Family<prometheus::Summary>& request_bytes = prometheus::BuildSummary()
                                                               .Name("http_request_size_bytes")
                                                               .Help("Bodies of requests.")
                                                               .Register(registry);
  prometheus::Family<prometheus::Summary>& response_bytes = prometheus::BuildSummary()
                                                                .Name("http_response_size_bytes")
                                                                .Help("Bodies of answers.")
                                                                .Register(registry);

  void record(const ServerMetrics::HttpRecord& one) {
    Labels labels = {{"handler", std::string(one.handler)}};
    const prometheus::Summary::Quantiles none;
    request_bytes.Add(labels, none).Observe(static_cast<double>(one.request_bytes));
    response_bytes.Add(labels, none).Observe(static_cast<double>(one.response_bytes));
    labels.emplace("method", std::string(one.method));
    seconds.Add(labels, Buckets(kHttpBuckets.begin(), kHttpBuckets.end())).Observe(one.seconds);
    labels.emplace("status", status_class(one.status));
    requests.Add(labels).Increment();
    fine_seconds.Observe(one.seconds);
  }
};

}  // namespace

class ServerMetrics::Impl {
 public:
  explicit Impl(const std::string& model_name)
      : make(registry, {{"model_name", model_name}, {"engine", "0"}}),
        requests(make),
        engine(make),
        process(registry),
        http(registry) {
    auto labels = make.with("max_lora", "0");
    labels.emplace("running_lora_adapters", "");
    labels.emplace("waiting_lora_adapters", "");
    make.gauges("vllm:lora_requests_info", "Adapters in use: none, they are not supported.")
        .Add(labels)
        .Set(0);
  }

  void cache_config(const CacheConfig& config) {
    auto labels = make.with("block_size", std::to_string(config.block_size));
    labels.emplace("num_gpu_blocks", std::to_string(config.num_gpu_blocks));
    labels.emplace("kv_cache_size_tokens",
                   std::to_string(config.block_size * config.num_gpu_blocks));
    labels.emplace("max_model_len", std::to_string(config.max_model_len));
    cache_info.Add(labels).Set(1);
  }

  std::string render(const EngineGauges& state) {
    const std::lock_guard lock(scrape_mutex);
    requests.update();
    engine.update(state);
    process.update();
    return prometheus::TextSerializer().Serialize(registry.Collect());
  }

  prometheus::Registry registry;
  SeriesMaker make;
  RequestSeries requests;
  EngineSeries engine;
  ProcessSeries process;
  HttpSeries http;
  GaugeFamily& cache_info =
      make.gauges("vllm:cache_config_info", "Shape of the KV cache, as labels.");
  prometheus::Gauge& weights =
      make.gauge("vllm:model_weights_memory_bytes", "Memory the weights take.");
  std::mutex scrape_mutex;
};

ServerMetrics::ServerMetrics(const std::string& model_name)
    : impl_(std::make_unique<Impl>(model_name)) {}
ServerMetrics::~ServerMetrics() = default;

void ServerMetrics::request_finished(const RequestRecord& record) {
  impl_->requests.finished(record);
}

void ServerMetrics::tokens_generated(std::int64_t count, std::int64_t gaps, double gap) {
  auto& series = impl_->requests;
  series.generated_tokens.Increment(static_cast<double>(count));
  if (gaps > 0) series.gaps.add(gaps, gap);
}

void ServerMetrics::prompt_computed(std::int64_t tokens) {
  impl_->requests.prompt_tokens.Increment(static_cast<double>(tokens));
}

void ServerMetrics::answer_cut(bool by_context) {
  auto& series = impl_->requests;
  (by_context ? series.cut_by_context : series.cut_by_request).Increment();
}

void ServerMetrics::admission_rejected(std::string_view reason) {
  auto& series = impl_->requests;
  series.rejected.Add(series.make.with("reason", std::string(reason))).Increment();
}

void ServerMetrics::model_output_oddities(int malformed_headers, int discarded_calls) {
  impl_->requests.malformed.Increment(malformed_headers);
  impl_->requests.discarded.Increment(discarded_calls);
}

void ServerMetrics::http_request(const HttpRecord& record) { impl_->http.record(record); }
void ServerMetrics::set_cache_config(const CacheConfig& config) { impl_->cache_config(config); }
void ServerMetrics::set_weights_bytes(std::int64_t bytes) {
  impl_->weights.Set(static_cast<double>(bytes));
}
std::string ServerMetrics::render(const EngineGauges& engine) { return impl_->render(engine); }

}  // namespace strata::metrics
