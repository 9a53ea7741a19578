#include "serve/context.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <span>

#include "base/check.h"
#include "base/random.h"
#include "base/sha256.h"

namespace strata::serve {
namespace {

// Events of streams that ended, kept for clients that come back.
constexpr std::size_t kMaxEndedLogBytes = 32U << 20;

std::array<std::uint32_t, 8> make_secret() {
  std::array<std::uint32_t, 8> secret{};
  std::random_device device;
  for (auto& word : secret) word = device();
  return secret;
}

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
      limiter(options.key_limits, clock),
      streams(Nanos{options.resume_ms} * 1'000'000, kMaxEndedLogBytes),
      turns(options.turn_memory_bytes),
      created(options.created != 0 ? options.created : unix_time()),
      fingerprint(options.fingerprint.empty() ? "strata-" + options.version : options.fingerprint),
      seed_key_(key_from(options.seed)),
      id_secret_(make_secret()) {
  STRATA_CHECK(!options.model_names.empty(), "a service needs a model name");
}

std::uint64_t Context::random_seed() const {
  return random_at(seed_key_, seed_counter_.fetch_add(1, std::memory_order_relaxed));
}

std::string Context::make_id(std::string_view prefix) const {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(id_secret_)));
  const auto number = id_counter_.fetch_add(1, std::memory_order_relaxed);
  hash.update(std::as_bytes(std::span(&number, 1)));
  const auto digest = hash.finish();
  return fmt::format("{}{:02x}", prefix, fmt::join(digest.begin(), digest.begin() + 12, ""));
}

std::optional<std::int64_t> Throttle::due(Nanos now) {
  Nanos next = next_.load(std::memory_order_relaxed);
  if (now < next || !next_.compare_exchange_strong(next, now + interval_)) {
    ++unsaid_;
    return std::nullopt;
  }
  return unsaid_.exchange(0);
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
