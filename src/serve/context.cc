#include "serve/context.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "base/check.h"
#include "base/random.h"

namespace strata::serve {
namespace {

std::uint64_t key_from(std::uint64_t seed) {
  if (seed != 0) return seed;
  std::random_device device;
  return (static_cast<std::uint64_t>(device()) << 32) ^ device();
}

}  // namespace

std::int64_t unix_time() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Context::Context(ServiceOptions given, const tokenizer::Tokenizer& tok, Engine& eng,
                 metrics::ServerMetrics& met, const Clock* clk)
    : options(std::move(given)),
      tokenizer(tok),
      engine(eng),
      metrics(met),
      clock(clk != nullptr ? *clk : own_clock),
      access(options),
      created(options.created != 0 ? options.created : unix_time()),
      fingerprint(options.fingerprint.empty() ? "strata-" + options.version : options.fingerprint),
      random_key_(key_from(options.id_seed)) {
  STRATA_CHECK(!options.model_names.empty(), "a service needs a model name");
}

std::uint64_t Context::random() const {
  return random_at(random_key_, random_counter_.fetch_add(1, std::memory_order_relaxed));
}

std::string Context::make_id(std::string_view prefix) const {
  return fmt::format("{}{:016x}{:08x}", prefix, random(), random() >> 32);
}

api::RequestLimits Context::limits() const {
  return {engine.info()->model.vocab, options.max_logprobs};
}

std::string Context::current_date() const {
  if (!options.current_date.empty()) return options.current_date;
  return fmt::format("{:%Y-%m-%d}", fmt::gmtime(std::chrono::system_clock::now()));
}

const std::string& Context::shown_model(const std::string& asked) const {
  const auto& names = options.model_names;
  const auto found = std::find(names.begin(), names.end(), asked);
  return found != names.end() ? *found : names.front();
}

}  // namespace strata::serve
