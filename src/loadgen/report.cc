#include "loadgen/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace strata::loadgen {
namespace {

// Kinds of errors that are listed; a broken run may have as many as requests.
constexpr std::size_t kMaxErrorKinds = 10;
// Lateness of the generator itself from which its figures are not to be trusted.
constexpr double kMaxLag = 0.01;

struct Metric {
  const char* key;
  const char* name;
  const char* header;
  const Spread Figures::*spread;
  bool needs_concurrency;  // only meaningful with --max-concurrency
};

constexpr Metric kMetrics[] = {
    {"ttft", "TTFT", "Time to First Token", &Figures::ttft, false},
    {"tpot", "TPOT", "Time per Output Token (excl. 1st token)", &Figures::tpot, false},
    {"itl", "ITL", "Inter-token Latency", &Figures::itl, false},
    {"e2el", "E2EL", "End-to-end Latency", &Figures::e2el, false},
    {"client_queue_time", "Client Queue Time", "Client-side Queueing", &Figures::client_queue,
     true},
    {"e2el_including_client_queue", "E2EL incl. Client Queue", "Queue-inclusive End-to-end Latency",
     &Figures::e2el_with_queue, true},
};

bool shown(const Metric& metric, const LoadOptions& options) {
  const auto& wanted = options.metrics;
  return std::find(wanted.begin(), wanted.end(), metric.key) != wanted.end() &&
         (!metric.needs_concurrency || options.max_concurrency > 0);
}

std::string percentile_word(double p) { return fmt::format("{}", p); }

void add_row(std::string& out, std::string_view name, double value) {
  fmt::format_to(std::back_inserter(out), "{:<40} {:<10.2f}\n", name, value);
}

void add_row(std::string& out, std::string_view name, std::int64_t value) {
  fmt::format_to(std::back_inserter(out), "{:<40} {:<10}\n", name, value);
}

void add_spread(std::string& out, std::string_view name, const Spread& spread) {
  add_row(out, fmt::format("Mean {} (ms):", name), spread.mean * 1e3);
  add_row(out, fmt::format("Median {} (ms):", name), spread.median * 1e3);
  for (const auto& [p, value] : spread.percentiles)
    add_row(out, fmt::format("P{} {} (ms):", percentile_word(p), name), value * 1e3);
}

void add_section(std::string& out, std::string_view title) {
  fmt::format_to(std::back_inserter(out), "{:-^50}\n", title);
}

void add_counts(std::string& out, const Figures& figures, const LoadOptions& options) {
  add_row(out, "Successful requests:", figures.completed);
  add_row(out, "Failed requests:", figures.failed);
  if (figures.rejected > 0) add_row(out, "Refused with 429, of the failed:", figures.rejected);
  if (options.max_concurrency > 0)
    add_row(out, "Maximum request concurrency:", std::int64_t{options.max_concurrency});
  if (!std::isinf(options.request_rate))
    add_row(out, "Request rate configured (RPS):", options.request_rate);
  add_row(out, "Benchmark duration (s):", figures.duration);
  add_row(out, "Total input tokens:", figures.total_input);
  add_row(out, "Total generated tokens:", figures.total_output);
  add_row(out, "Request throughput (req/s):", figures.per_second(figures.completed));
  if (options.goodput.any())
    add_row(out, "Request goodput (req/s):", figures.per_second(figures.good));
  add_row(out, "Output token throughput (tok/s):", figures.per_second(figures.total_output));
  add_row(out, "Peak output token throughput (tok/s):", figures.max_output_tokens_per_s);
  add_row(out, "Peak concurrent requests:", static_cast<double>(figures.max_concurrent_requests));
  add_row(out, "Total token throughput (tok/s):",
          figures.per_second(figures.total_input + figures.total_output));
}

void add_errors(std::string& out, const Figures& figures) {
  std::vector<std::pair<std::int64_t, std::string>> kinds;
  for (const auto& [kind, count] : figures.errors) kinds.emplace_back(count, kind);
  std::sort(kinds.rbegin(), kinds.rend());
  for (std::size_t i = 0; i < std::min(kinds.size(), kMaxErrorKinds); ++i)
    fmt::format_to(std::back_inserter(out), "{:>8} x {}\n", kinds[i].first, kinds[i].second);
  if (kinds.size() > kMaxErrorKinds)
    fmt::format_to(std::back_inserter(out), "and {} other kinds\n", kinds.size() - kMaxErrorKinds);
}

void add_spec_decode(std::string& out, const SpecDecode& spec) {
  add_section(out, "Speculative Decoding");
  add_row(out, "Acceptance rate (%):", spec.acceptance_rate);
  add_row(out, "Acceptance length:", spec.acceptance_length);
  add_row(out, "Drafts:", spec.drafts);
  add_row(out, "Draft tokens:", spec.draft_tokens);
  add_row(out, "Accepted tokens:", spec.accepted_tokens);
  if (!spec.rate_at.empty()) out += "Per-position acceptance (%):\n";
  for (std::size_t i = 0; i < spec.rate_at.size(); ++i)
    add_row(out, fmt::format("  Position {}:", i), 100.0 * spec.rate_at[i]);
}

void put_spec_decode(Json& out, const SpecDecode& spec) {
  out["spec_decode_acceptance_rate"] = spec.acceptance_rate;
  out["spec_decode_acceptance_length"] = spec.acceptance_length;
  out["spec_decode_num_drafts"] = spec.drafts;
  out["spec_decode_draft_tokens"] = spec.draft_tokens;
  out["spec_decode_accepted_tokens"] = spec.accepted_tokens;
  out["spec_decode_per_position_acceptance_rates"] = spec.rate_at;
}

void put_spread(Json& out, const std::string& key, const Spread& spread) {
  out[fmt::format("mean_{}_ms", key)] = spread.mean * 1e3;
  out[fmt::format("median_{}_ms", key)] = spread.median * 1e3;
  out[fmt::format("std_{}_ms", key)] = spread.std * 1e3;
  for (const auto& [p, value] : spread.percentiles)
    out[fmt::format("p{}_{}_ms", percentile_word(p), key)] = value * 1e3;
}

template <typename Get>
Json list_of(const std::vector<Outcome>& outcomes, Get get) {
  Json list = Json::array();
  for (const Outcome& outcome : outcomes) list.push_back(get(outcome));
  return list;
}

// start_times are on the machine's monotonic clock, so that they can be laid beside other logs.
void put_lists(Json& out, const RunResult& run) {
  const auto& all = run.outcomes;
  const double began = to_seconds(run.began);
  out["input_lens"] = list_of(all, [](const Outcome& o) { return o.input_tokens; });
  out["output_lens"] =
      list_of(all, [](const Outcome& o) { return o.success ? o.output_tokens : 0; });
  out["start_times"] = list_of(all, [began](const Outcome& o) { return began + o.start; });
  out["ttfts"] = list_of(all, [](const Outcome& o) { return o.ttft; });
  out["itls"] = list_of(all, [](const Outcome& o) { return o.itl; });
  out["generated_texts"] = list_of(all, [](const Outcome& o) { return o.text; });
  out["errors"] = list_of(all, [](const Outcome& o) { return o.error; });
}

Json rate_json(double rate) { return std::isinf(rate) ? Json("inf") : Json(rate); }

void put_setup(Json& out, const LoadOptions& options, const RunLabels& labels) {
  const char* backend = options.api == Api::kChat ? "openai-chat" : "openai";
  out["date"] = labels.date;
  out["endpoint_type"] = backend;
  out["backend"] = backend;
  out["label"] = options.label.empty() ? Json(nullptr) : Json(options.label);
  out["model_id"] = labels.model;
  out["tokenizer_id"] = nullptr;  // the server counts
  out["num_prompts"] = options.num_prompts;
  out["request_rate"] = rate_json(options.request_rate);
  out["burstiness"] = rate_json(options.burstiness);
  out["max_concurrency"] =
      options.max_concurrency > 0 ? Json(options.max_concurrency) : Json(nullptr);
}

}  // namespace

std::string format_table(const Figures& figures, const LoadOptions& options) {
  std::string out = fmt::format("{:=^50}\n", " Serving Benchmark Result ");
  add_counts(out, figures, options);
  for (const Metric& metric : kMetrics) {
    if (!shown(metric, options)) continue;
    add_section(out, metric.header);
    add_spread(out, metric.name, figures.*metric.spread);
  }
  if (figures.spec_decode) add_spec_decode(out, *figures.spec_decode);
  if (figures.rejected > 0) {
    add_section(out, "Refused with 429");
    if (figures.rejected_with_server_time > 0)
      add_spread(out, "server time", figures.rejected_server_time);
    add_spread(out, "latency", figures.rejected_latency);
  }
  if (!figures.errors.empty()) {
    add_section(out, "Failures by kind");
    add_errors(out, figures);
  }
  out += std::string(50, '=') + "\n";
  const double lag = figures.lag.percentiles.front().second;
  if (lag > kMaxLag)
    fmt::format_to(std::back_inserter(out),
                   "the generator was late: P99 {:.1f} ms behind the arrival process\n", lag * 1e3);
  return out;
}

std::string result_json(const Figures& figures, const RunResult& run, const LoadOptions& options,
                        const RunLabels& labels, const std::string& extra) {
  Json out;
  put_setup(out, options, labels);
  out["duration"] = figures.duration;
  out["completed"] = figures.completed;
  out["failed"] = figures.failed;
  out["total_input_tokens"] = figures.total_input;
  out["total_output_tokens"] = figures.total_output;
  out["request_throughput"] = figures.per_second(figures.completed);
  out["request_goodput"] =
      options.goodput.any() ? Json(figures.per_second(figures.good)) : Json(nullptr);
  out["output_throughput"] = figures.per_second(figures.total_output);
  out["total_token_throughput"] = figures.per_second(figures.total_input + figures.total_output);
  if (options.save_detailed) put_lists(out, run);
  out["latencies"] = list_of(run.outcomes, [](const Outcome& o) { return o.latency; });
  out["queue_times"] = list_of(run.outcomes, [](const Outcome& o) { return o.queue; });
  out["max_output_tokens_per_s"] = figures.max_output_tokens_per_s;
  out["max_concurrent_requests"] = figures.max_concurrent_requests;
  if (figures.spec_decode) put_spec_decode(out, *figures.spec_decode);
  for (const Metric& metric : kMetrics)
    if (shown(metric, options)) put_spread(out, metric.key, figures.*metric.spread);
  // Ours.
  out["rejected"] = figures.rejected;
  if (figures.rejected > 0) put_spread(out, "rejected_latency", figures.rejected_latency);
  if (figures.rejected_with_server_time > 0)
    put_spread(out, "rejected_server", figures.rejected_server_time);
  put_spread(out, "lag", figures.lag);
  out["errors_by_kind"] = Json::object();
  for (const auto& [kind, count] : figures.errors) out["errors_by_kind"][kind] = count;
  if (!extra.empty()) out.update(Json::parse(extra));
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string result_path(const LoadOptions& options, const RunLabels& labels) {
  std::string name = options.result_filename;
  if (name.empty()) {
    const char* backend = options.api == Api::kChat ? "openai-chat" : "openai";
    const std::string rate =
        std::isinf(options.request_rate) ? "inf" : fmt::format("{}", options.request_rate);
    name = fmt::format(
        "{}-{}qps{}-{}-{}.json", options.label.empty() ? backend : options.label, rate,
        options.max_concurrency > 0 ? fmt::format("-concurrency{}", options.max_concurrency) : "",
        labels.model.substr(labels.model.rfind('/') + 1), labels.date);
  }
  if (options.result_dir.empty()) return name;
  return options.result_dir + (options.result_dir.ends_with('/') ? "" : "/") + name;
}

}  // namespace strata::loadgen
