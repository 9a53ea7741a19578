// The flags of `strata bench serve`, with vLLM's names.
#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "app/flag_values.h"
#include "app/flags.h"
#include "base/json.h"

namespace strata::app {
namespace {

using loadgen::LoadOptions;

constexpr std::int64_t kMaxTokens = 1 << 24;
constexpr double kMaxRate = 1e6;

std::int32_t to_int32(const FlagUse& use, std::int64_t min, std::int64_t max) {
  return static_cast<std::int32_t>(parse_integer(use.spec.name, use.value(), min, max));
}

// A number, or inf.
double to_real_or_infinite(const FlagUse& use, double max) {
  if (use.value() == "inf") return std::numeric_limits<double>::infinity();
  return parse_real(use.spec.name, use.value(), 1e-6, max);
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (;;) {
    const std::size_t end = std::min(text.find(separator), text.size());
    parts.emplace_back(text.substr(0, end));
    if (end == text.size()) return parts;
    text.remove_prefix(end + 1);
  }
}

// KEY:VALUE pairs, as several words or separated by commas.
void set_goodput(Options& options, const FlagUse& use) {
  for (const std::string& word : use.values) {
    for (const std::string& pair : split(word, ',')) {
      const std::size_t colon = std::min(pair.find(':'), pair.size());
      const std::string key = pair.substr(0, colon);
      if (colon == pair.size())
        usage_error(fmt::format("{} needs KEY:MILLISECONDS, not '{}'", use.spec.name, pair),
                    "for example ttft:200 tpot:50 e2el:3000");
      const std::string name = fmt::format("{} {}", use.spec.name, key);
      const double limit = parse_real(name, pair.substr(colon + 1), 0.0, 1e9);
      auto& goodput = options.load.goodput;
      if (key == "ttft") goodput.ttft_ms = limit;
      else if (key == "tpot") goodput.tpot_ms = limit;
      else if (key == "e2el") goodput.e2el_ms = limit;
      else
        usage_error(fmt::format("{} does not know '{}'", use.spec.name, key),
                    "allowed: ttft, tpot, e2el");
    }
  }
}

void set_metrics(Options& options, const FlagUse& use) {
  options.load.metrics = split(use.value(), ',');
  for (const std::string& metric : options.load.metrics)
    parse_choice<bool>(use.spec.name, metric,
                       {{"ttft", true},
                        {"tpot", true},
                        {"itl", true},
                        {"e2el", true},
                        {"client_queue_time", true},
                        {"e2el_including_client_queue", true}});
}

void set_percentiles(Options& options, const FlagUse& use) {
  options.load.percentiles.clear();
  for (const std::string& part : split(use.value(), ','))
    options.load.percentiles.push_back(parse_real(use.spec.name, part, 0.0, 100.0));
}

void set_headers(Options& options, const FlagUse& use) {
  for (const std::string& pair : use.values) {
    const std::size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0 ||
        pair.find_first_of("\r\n") != std::string::npos)
      usage_error(fmt::format("{} needs KEY=VALUE, not '{}'", use.spec.name, pair));
    options.load.headers.emplace_back(pair.substr(0, equals), pair.substr(equals + 1));
  }
}

void set_extra_body(Options& options, const FlagUse& use) {
  const auto json = parse_json(use.value(), use.spec.name);
  if (!json) usage_error(json.error().message);
  if (!json->is_object()) usage_error(fmt::format("{} needs a JSON object", use.spec.name));
  options.load.extra_body = use.value();
}

void set_api_key(Options& options, const FlagUse& use) {
  if (use.value().find_first_of("\r\n") != std::string::npos)
    usage_error(fmt::format("{} cannot hold a line end", use.spec.name));
  options.load.api_key = use.value();
}

void set_input_tokens(Options& options, const FlagUse& use) {
  options.load.input_tokens = to_int32(use, 1, kMaxTokens);
}

void set_output_tokens(Options& options, const FlagUse& use) {
  options.load.output_tokens = to_int32(use, 1, kMaxTokens);
}

void set_endpoint(Options& options, const FlagUse& use) {
  if (!use.value().starts_with('/'))
    usage_error(fmt::format("{} must begin with /, not '{}'", use.spec.name, use.value()));
  options.load.endpoint = use.value();
}

using enum FlagKind;
constexpr FlagEffect kDoes = FlagEffect::kHonoured;
constexpr FlagEffect kNothing = FlagEffect::kInert;
constexpr CommandSet kHere = kBenchServeOnly;

const FlagSpec kTargetFlags[] = {
    {"--base-url", kValue, kDoes, kHere, "Server",
     "http://HOST:PORT[/PREFIX] (default http://127.0.0.1:8000)", "",
     [](Options& o, const FlagUse& u) { o.load.base_url = u.value(); }},
    {"--host", kValue, kDoes, kHere, "", "host, without --base-url", "",
     [](Options& o, const FlagUse& u) { o.load.host = u.value(); }},
    {"--port", kValue, kDoes, kHere, "", "port, without --base-url", "",
     [](Options& o, const FlagUse& u) {
       o.load.port = static_cast<std::uint16_t>(to_int32(u, 1, 65535));
     }},
    {"--backend", kValue, kDoes, kHere, "Server",
     "openai|openai-chat|vllm: text completions (openai, vllm) or chat", "",
     [](Options& o, const FlagUse& u) {
       o.load.api_given = true;
       o.load.api = parse_choice<loadgen::Api>(u.spec.name, u.value(),
                                               {{"openai", loadgen::Api::kCompletions},
                                                {"vllm", loadgen::Api::kCompletions},
                                                {"openai-chat", loadgen::Api::kChat}});
     }},
    {"--endpoint", kValue, kDoes, kHere, "Server",
     "path of the route; default: the one of --backend", "", set_endpoint},
    {"--model", kValue, kDoes, kHere, "Server",
     "model that requests name; default: the first the server lists", "",
     [](Options& o, const FlagUse& u) { o.load.model = u.value(); }},
    {"--served-model-name", kValue, kDoes, kHere, "", "the same as --model", "",
     [](Options& o, const FlagUse& u) { o.load.model = u.value(); }},
    {"--api-key", kValue, kDoes, kHere, "Server", "key to send (or OPENAI_API_KEY)", "",
     set_api_key},
    {"--header", kList, kDoes, kHere, "Server", "KEY=VALUE headers to send", "", set_headers},
};

const FlagSpec kPromptFlags[] = {
    {"--preset", kValue, kDoes, kHere, "Prompts",
     "five-users: the five-user load, with mean, standard deviation, p50 and p99", "",
     [](Options& o, const FlagUse& u) {
       o.load.preset = parse_choice<loadgen::Preset>(u.spec.name, u.value(),
                                                     {{"five-users", loadgen::Preset::kFiveUsers}});
     }},
    {"--dataset-name", kValue, kDoes, kHere, "Prompts", "random|custom (default random)", "",
     [](Options& o, const FlagUse& u) {
       o.load.dataset = parse_choice<loadgen::Dataset>(
           u.spec.name, u.value(),
           {{"random", loadgen::Dataset::kRandom}, {"custom", loadgen::Dataset::kCustom}});
     }},
    {"--dataset-path", kValue, kDoes, kHere, "Prompts",
     R"(JSONL file of custom prompts: {"prompt": "...", "output_tokens": 64})", "",
     [](Options& o, const FlagUse& u) { o.load.dataset_path = u.value(); }},
    {"--num-prompts", kValue, kDoes, kHere, "Prompts", "requests of the run (default 1000)", "",
     [](Options& o, const FlagUse& u) { o.load.num_prompts = to_int32(u, 1, 1 << 24); }},
    {"--random-input-len", kValue, kDoes, kHere, "Prompts", "prompt tokens (default 1024)", "",
     set_input_tokens},
    {"--random-output-len", kValue, kDoes, kHere, "Prompts", "answer tokens (default 128)", "",
     set_output_tokens},
    {"--random-range-ratio", kValue, kDoes, kHere, "Prompts",
     "r: both lengths are drawn from n(1-r) to n(1+r) (default 0)", "",
     [](Options& o, const FlagUse& u) {
       o.load.range_ratio = parse_real(u.spec.name, u.value(), 0.0, 0.999999);
     }},
    {"--random-prefix-len", kValue, kDoes, kHere, "Prompts",
     "tokens that all prompts begin with (default 0)", "",
     [](Options& o, const FlagUse& u) { o.load.prefix_tokens = to_int32(u, 0, kMaxTokens); }},
    {"--input-len", kValue, kDoes, kHere, "", "the same as --random-input-len", "",
     set_input_tokens},
    {"--output-len", kValue, kDoes, kHere, "", "answer tokens of every data set", "",
     set_output_tokens},
    {"--custom-output-len", kValue, kDoes, kHere, "Prompts",
     "most tokens of an answer to a custom prompt (default 256)", "", set_output_tokens},
    {"--ignore-eos", kSwitch, kDoes, kHere, "Prompts",
     "answers go on to their full length; always so for random", "",
     [](Options& o, const FlagUse& u) { o.load.ignore_eos = u.on(); }},
    {"--temperature", kValue, kDoes, kHere, "Prompts", "default: the server's", "",
     [](Options& o, const FlagUse& u) {
       o.load.temperature = parse_real(u.spec.name, u.value(), 0.0, 100.0);
     }},
    {"--extra-body", kValue, kDoes, kHere, "Prompts",
     R"(JSON object of further fields, e.g. {"top_k": 5})", "", set_extra_body},
    {"--seed", kValue, kDoes, kHere, "Prompts", "of prompts and arrivals (default 0)", "",
     [](Options& o, const FlagUse& u) {
       o.load.seed = static_cast<std::uint64_t>(
           parse_integer(u.spec.name, u.value(), 0, std::numeric_limits<std::int64_t>::max()));
     }},
};

const FlagSpec kArrivalFlags[] = {
    {"--request-rate", kValue, kDoes, kHere, "Arrivals",
     "requests a second; inf: all at once (default)", "",
     [](Options& o, const FlagUse& u) { o.load.request_rate = to_real_or_infinite(u, kMaxRate); }},
    {"--burstiness", kValue, kDoes, kHere, "Arrivals",
     "shape of the gaps' gamma distribution; 1: Poisson, inf: even (default 1)", "",
     [](Options& o, const FlagUse& u) { o.load.burstiness = to_real_or_infinite(u, 1e6); }},
    {"--max-concurrency", kValue, kDoes, kHere, "Arrivals",
     "most requests at once; later ones wait in the client (default: no limit)", "",
     [](Options& o, const FlagUse& u) { o.load.max_concurrency = to_int32(u, 1, 1 << 20); }},
    {"--num-warmups", kValue, kDoes, kHere, "Arrivals", "requests before the measured ones", "",
     [](Options& o, const FlagUse& u) { o.load.num_warmups = to_int32(u, 0, 1 << 20); }},
};

const FlagSpec kFigureFlags[] = {
    {"--goodput", kList, kDoes, kHere, "Figures",
     "limits in ms that a good request keeps: ttft:200 tpot:50 e2el:3000", "", set_goodput},
    {"--percentile-metrics", kValue, kDoes, kHere, "Figures",
     "of ttft,tpot,itl,e2el,client_queue_time,e2el_including_client_queue (default ttft,tpot,itl)",
     "", set_metrics},
    {"--metric-percentiles", kValue, kDoes, kHere, "Figures", "such as 50,90,99 (default 99)", "",
     set_percentiles},
    {"--save-result", kSwitch, kDoes, kHere, "Figures", "write the figures as JSON", "",
     [](Options& o, const FlagUse& u) { o.load.save_result = u.on(); }},
    {"--save-detailed", kSwitch, kDoes, kHere, "Figures",
     "with the times, lengths and text of each request", "",
     [](Options& o, const FlagUse& u) { o.load.save_detailed = u.on(); }},
    {"--result-dir", kValue, kDoes, kHere, "Figures", "folder for the JSON file", "",
     [](Options& o, const FlagUse& u) { o.load.result_dir = u.value(); }},
    {"--result-filename", kValue, kDoes, kHere, "Figures",
     "its name; default: made of label, rate, model and time", "",
     [](Options& o, const FlagUse& u) { o.load.result_filename = u.value(); }},
    {"--label", kValue, kDoes, kHere, "", "beginning of that name; default: the backend", "",
     [](Options& o, const FlagUse& u) { o.load.label = u.value(); }},
    {"--log-level", kValue, kDoes, kHere, "", "debug|info|warning|error (default warning)", "",
     [](Options& o, const FlagUse& u) {
       o.log_level = parse_choice<std::string>(
           u.spec.name, u.value(),
           {{"debug", "debug"}, {"info", "info"}, {"warning", "warning"}, {"error", "error"}});
     }},
    {"--tokenizer", kValue, kNothing, kHere, "", "the server counts tokens", "", nullptr},
    {"--trust-remote-code", kSwitch, kNothing, kHere, "", "the server counts tokens", "", nullptr},
    {"--disable-tqdm", kSwitch, kNothing, kHere, "", "there is no progress bar", "", nullptr},
};

std::vector<FlagSpec> concatenate() {
  std::vector<FlagSpec> all;
  const auto add = [&all](std::span<const FlagSpec> part) {
    all.insert(all.end(), part.begin(), part.end());
  };
  add(kTargetFlags);
  add(kPromptFlags);
  add(kArrivalFlags);
  add(kFigureFlags);
  return all;
}

}  // namespace

std::span<const FlagSpec> load_flags() {
  static const std::vector<FlagSpec> all = concatenate();
  return all;
}

}  // namespace strata::app
