// What a load is made of: the target, the prompts, the arrivals and the figures wanted. Plain
// values with vLLM's defaults; filled in from the flags of `strata bench serve`.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace strata::loadgen {

enum class Api { kCompletions, kChat };
enum class Dataset { kRandom, kCustom };
enum class Preset { kNone, kFiveUsers };

// Limits in milliseconds a request must keep to count for the goodput.
struct Goodput {
  std::optional<double> ttft_ms;
  std::optional<double> tpot_ms;
  std::optional<double> e2el_ms;
  bool any() const { return ttft_ms || tpot_ms || e2el_ms; }
};

struct LoadOptions {
  // Target.
  std::string base_url;  // empty: http://host:port
  std::string host = "127.0.0.1";
  std::uint16_t port = 8000;
  std::string endpoint;  // empty: that of `api`
  Api api = Api::kCompletions;
  bool api_given = false;  // not left to the preset
  std::string model;       // as requests name it; empty: the first of /v1/models
  std::string api_key;
  std::vector<std::pair<std::string, std::string>> headers;

  // Prompts.
  Dataset dataset = Dataset::kRandom;
  std::string dataset_path;
  std::int32_t input_tokens = 1024;
  std::int32_t output_tokens = 0;  // 0: 128 for random, 256 for custom
  std::int32_t prefix_tokens = 0;  // beginning that all random prompts share
  double range_ratio = 0.0;        // lengths are uniform in [n (1 - r), n (1 + r)]
  std::int32_t num_prompts = 1000;
  bool ignore_eos = false;  // always so for random
  std::optional<double> temperature;
  std::string extra_body;  // a JSON object whose fields go into each request
  std::uint64_t seed = 0;

  // Arrivals.
  double request_rate = std::numeric_limits<double>::infinity();  // a second
  double burstiness = 1.0;           // shape of the gamma distribution; 1: Poisson
  std::int32_t max_concurrency = 0;  // 0: unlimited
  std::int32_t num_warmups = 0;
  Preset preset = Preset::kNone;

  // Figures.
  Goodput goodput;
  std::vector<std::string> metrics = {"ttft", "tpot", "itl"};
  std::vector<double> percentiles = {99.0};
  bool save_result = false;
  bool save_detailed = false;  // with the lists of single requests
  std::string result_dir;
  std::string result_filename;
  std::string label;
};

}  // namespace strata::loadgen
