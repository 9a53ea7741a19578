#include "loadgen/five_users.h"

#include <fmt/format.h>

#include <array>

namespace strata::loadgen {
namespace {

constexpr const char* kPrompt = "explain 'sparse activation' in at most 100 characters";

// What the measurement reports that this load comes from: gpt-oss-20b on two RTX 4090D.
constexpr double kArticleTtftMs = 327.0;
constexpr double kArticleE2eS = 1.42;
constexpr double kArticleTokensPerS = 42.6;

std::span<const Outcome> middle(std::span<const Outcome> outcomes) {
  if (outcomes.size() <= 2 * kFiveUsersDropped) return {};
  return outcomes.subspan(kFiveUsersDropped, outcomes.size() - 2 * kFiveUsersDropped);
}

constexpr std::array kP99 = {99.0};
double p99(const Spread& spread) { return spread.percentiles.front().second; }

template <typename Get>
Spread spread_over(std::span<const Outcome> outcomes, Get get) {
  std::vector<double> values;
  for (const Outcome& outcome : middle(outcomes))
    if (outcome.success) values.push_back(get(outcome));
  return spread_of(std::move(values), kP99);
}

double rate_of(const Outcome& outcome) {
  const double seconds = outcome.latency - outcome.ttft;
  return seconds > 0 ? static_cast<double>(outcome.output_tokens - 1) / seconds : 0.0;
}

std::string row(const char* name, const Spread& value, double article) {
  return fmt::format("{:<18} {:>8.2f} {:>7.2f} {:>7.2f} {:>7.2f} {:>8}\n", name, value.mean,
                     value.std, value.median, p99(value), article);
}

std::string json_of(const char* name, const char* unit, const Spread& value) {
  return fmt::format(R"("mean_{0}_{1}":{2},"std_{0}_{1}":{3},"p50_{0}_{1}":{4},"p99_{0}_{1}":{5},)",
                     name, unit, value.mean, value.std, value.median, p99(value));
}

}  // namespace

void apply_five_users(LoadOptions& options) {
  if (!options.api_given) options.api = Api::kChat;
  options.num_prompts = 50;
  options.max_concurrency = 5;
  options.request_rate = std::numeric_limits<double>::infinity();
}

std::vector<Prompt> five_users_prompts(const LoadOptions& options, std::int32_t output_tokens) {
  return std::vector<Prompt>(static_cast<std::size_t>(options.num_prompts),
                             Prompt{kPrompt, {}, 0, output_tokens});
}

FiveUsers five_users_of(std::span<const Outcome> natural, std::span<const Outcome> long_answers) {
  FiveUsers out;
  out.ttft_ms = spread_over(natural, [](const Outcome& o) { return o.ttft * 1e3; });
  out.e2e_s = spread_over(natural, [](const Outcome& o) { return o.latency; });
  out.tokens_per_s = spread_over(long_answers, rate_of);
  for (const auto part : {natural, long_answers})
    for (const Outcome& outcome : part) out.failed += outcome.success ? 0 : 1;
  return out;
}

std::string format_five_users(const FiveUsers& figures) {
  std::string out = fmt::format("{:=^60}\n", " Five-user Load ");
  out += fmt::format("\"{}\"\n5 users at once, 50 requests, the first and last {} dropped\n",
                     kPrompt, kFiveUsersDropped);
  out += fmt::format("{:<18} {:>8} {:>7} {:>7} {:>7} {:>8}\n", "", "mean", "std", "p50", "p99",
                     "article");
  out += row("TTFT (ms)", figures.ttft_ms, kArticleTtftMs);
  out += row("End to end (s)", figures.e2e_s, kArticleE2eS);
  out += row("Long answer, tok/s", figures.tokens_per_s, kArticleTokensPerS);
  return out + std::string(60, '=') + "\n";
}

std::string five_users_json(const FiveUsers& figures) {
  return R"({"five_users":{)" + json_of("ttft", "ms", figures.ttft_ms) +
         json_of("e2e", "s", figures.e2e_s) + json_of("tokens_per", "s", figures.tokens_per_s) +
         fmt::format(R"("failed":{}}}}})", figures.failed);
}

}  // namespace strata::loadgen
