#include "loadgen/five_users.h"

#include <fmt/format.h>

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

template <typename Get>
MeanStd mean_std(std::span<const Outcome> outcomes, Get get) {
  std::vector<double> values;
  for (const Outcome& outcome : middle(outcomes))
    if (outcome.success) values.push_back(get(outcome));
  return {mean(values), standard_deviation(values)};
}

double rate_of(const Outcome& outcome) {
  const double seconds = outcome.latency - outcome.ttft;
  return seconds > 0 ? static_cast<double>(outcome.output_tokens - 1) / seconds : 0.0;
}

std::string row(const char* name, const MeanStd& value, double article) {
  return fmt::format("{:<26} {:>10.2f} {:>10.2f} {:>10}\n", name, value.mean, value.std, article);
}

}  // namespace

void apply_five_users(LoadOptions& options) {
  options.api = Api::kChat;
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
  out.ttft_ms = mean_std(natural, [](const Outcome& o) { return o.ttft * 1e3; });
  out.e2e_s = mean_std(natural, [](const Outcome& o) { return o.latency; });
  out.tokens_per_s = mean_std(long_answers, rate_of);
  for (const auto part : {natural, long_answers})
    for (const Outcome& outcome : part) out.failed += outcome.success ? 0 : 1;
  return out;
}

std::string format_five_users(const FiveUsers& figures) {
  std::string out = fmt::format("{:=^60}\n", " Five-user Load ");
  out += fmt::format("\"{}\"\n5 users at once, 50 requests, the first and last {} dropped\n",
                     kPrompt, kFiveUsersDropped);
  out += fmt::format("{:<26} {:>10} {:>10} {:>10}\n", "", "mean", "std", "article");
  out += row("TTFT (ms)", figures.ttft_ms, kArticleTtftMs);
  out += row("End to end (s)", figures.e2e_s, kArticleE2eS);
  out += row("256-token answer (tok/s)", figures.tokens_per_s, kArticleTokensPerS);
  return out + std::string(60, '=') + "\n";
}

std::string five_users_json(const FiveUsers& figures) {
  return fmt::format(
      R"({{"five_users":{{"mean_ttft_ms":{},"std_ttft_ms":{},"mean_e2e_s":{},"std_e2e_s":{},)"
      R"("mean_tokens_per_s":{},"std_tokens_per_s":{},"failed":{}}}}})",
      figures.ttft_ms.mean, figures.ttft_ms.std, figures.e2e_s.mean, figures.e2e_s.std,
      figures.tokens_per_s.mean, figures.tokens_per_s.std, figures.failed);
}

}  // namespace strata::loadgen
