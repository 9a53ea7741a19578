#include "app/serve_setup.h"

#include <fmt/core.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "app/exit_code.h"
#include "app/version.h"
#include "base/json.h"
#include "base/result.h"

namespace strata::app {
namespace {

// Only sampling defaults are taken from the file; its stop tokens are not trusted.
serve::SamplingDefaults read_generation_config(const std::filesystem::path& file) {
  serve::SamplingDefaults defaults;
  std::ifstream in(file, std::ios::binary);
  if (!in) return defaults;
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto json = parse_json(text, file.string());
  if (!json)
    throw StartupError(json.error().message, "--generation-config vllm ignores it", kExitModel);
  const auto number = [&](const char* key, double fallback) {
    const auto found = json->find(key);
    return found != json->end() && found->is_number() ? found->get<double>() : fallback;
  };
  defaults.temperature = number("temperature", defaults.temperature);
  defaults.top_p = number("top_p", defaults.top_p);
  defaults.top_k = static_cast<int>(number("top_k", defaults.top_k));
  defaults.min_p = number("min_p", defaults.min_p);
  defaults.repetition_penalty = number("repetition_penalty", defaults.repetition_penalty);
  return defaults;
}

void apply_overrides(const SamplingOverrides& set, serve::SamplingDefaults& defaults) {
  defaults.temperature = set.temperature.value_or(defaults.temperature);
  defaults.top_p = set.top_p.value_or(defaults.top_p);
  defaults.top_k = set.top_k.value_or(defaults.top_k);
  defaults.min_p = set.min_p.value_or(defaults.min_p);
  defaults.repetition_penalty = set.repetition_penalty.value_or(defaults.repetition_penalty);
}

}  // namespace

bool is_loopback(std::string_view host) {
  return host == "localhost" || host == "::1" || host == "[::1]" || host.starts_with("127.");
}

std::string address_url(const std::string& host, std::uint16_t port) {
  const bool bare_v6 = host.find(':') != std::string::npos && !host.starts_with('[');
  return bare_v6 ? fmt::format("http://[{}]:{}", host, port)
                 : fmt::format("http://{}:{}", host, port);
}

http::ServerOptions http_options(const Options& options) {
  http::ServerOptions http;
  http.host = options.host;
  http.port = options.port;
  // On two processors a second thread would take time from the compute pool.
  http.threads = std::thread::hardware_concurrency() <= 2 ? 1 : 2;
  http.max_header_bytes = options.max_header_bytes;
  http.error_response = serve::Service::framing_error;
  return http;
}

serve::ServiceOptions service_options(const Options& options, const std::string& model_name,
                                      const std::filesystem::path& directory) {
  serve::ServiceOptions service;
  service.model_names = options.served_model_names;
  if (service.model_names.empty()) service.model_names = {model_name};
  service.api_keys = options.api_keys;
  service.key_limits = {options.key_concurrent_requests, options.key_requests_per_minute,
                        options.key_tokens_per_minute};
  service.sleep_mode = options.sleep_mode;
  service.check_host = options.api_keys.empty() && is_loopback(options.host);
  service.allowed_origins = options.allowed_origins;
  service.version = kVersion;
  service.fingerprint = options.fingerprint;
  service.current_date = options.date;
  if (options.model_sampling_defaults)
    service.sampling = read_generation_config(directory / "generation_config.json");
  apply_overrides(options.sampling, service.sampling);
  service.max_logprobs = options.max_logprobs;
  service.seed = options.seed.value_or(0);
  return service;
}

std::string make_api_key() {
  std::random_device entropy;
  std::string key = "sk-";
  for (int word = 0; word < 6; ++word) key += fmt::format("{:08x}", entropy());
  return key;
}

}  // namespace strata::app
