#include "loadgen/spec_decode.h"

#include <algorithm>
#include <charconv>

namespace strata::loadgen {
namespace {

constexpr std::string_view kPrefix = "vllm:spec_decode_num_";
constexpr std::string_view kPosition = "position=\"";

template <typename T>
T number(std::string_view text) {
  T value{};
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

void read_line(std::string_view line, SpecDecodeCounts& counts, bool& found) {
  if (!line.starts_with(kPrefix)) return;
  const std::string_view rest = line.substr(kPrefix.size());
  const std::string_view name = rest.substr(0, rest.find_first_of("{ "));
  const std::size_t space = line.rfind(' ');
  const auto value = static_cast<std::int64_t>(number<double>(line.substr(space + 1)));
  found = true;
  if (name == "drafts_total") counts.drafts += value;
  else if (name == "draft_tokens_total") counts.draft_tokens += value;
  else if (name == "accepted_tokens_total") counts.accepted_tokens += value;
  else if (const std::size_t at = line.find(kPosition);
           name == "accepted_tokens_per_pos_total" && at != std::string_view::npos)
    counts.accepted_at[number<std::int64_t>(line.substr(at + kPosition.size()))] += value;
}

}  // namespace

std::optional<SpecDecodeCounts> read_spec_decode(std::string_view metrics) {
  SpecDecodeCounts counts;
  bool found = false;
  while (!metrics.empty()) {
    const std::size_t end = std::min(metrics.find('\n'), metrics.size());
    read_line(metrics.substr(0, end), counts, found);
    metrics.remove_prefix(std::min(end + 1, metrics.size()));
  }
  if (!found) return std::nullopt;
  return counts;
}

std::optional<SpecDecode> spec_decode_between(const std::optional<SpecDecodeCounts>& before,
                                              const std::optional<SpecDecodeCounts>& after) {
  if (!before || !after) return std::nullopt;
  SpecDecode out;
  out.drafts = after->drafts - before->drafts;
  out.draft_tokens = after->draft_tokens - before->draft_tokens;
  out.accepted_tokens = after->accepted_tokens - before->accepted_tokens;
  if (out.drafts <= 0 || out.draft_tokens <= 0) return std::nullopt;
  const auto drafts = static_cast<double>(out.drafts);
  const auto accepted = static_cast<double>(out.accepted_tokens);
  out.acceptance_rate = 100.0 * accepted / static_cast<double>(out.draft_tokens);
  out.acceptance_length = 1.0 + accepted / drafts;
  for (const auto& [position, count] : after->accepted_at) {
    const auto earlier = before->accepted_at.find(position);
    const std::int64_t base = earlier == before->accepted_at.end() ? 0 : earlier->second;
    out.rate_at.push_back(static_cast<double>(count - base) / drafts);
  }
  return out;
}

}  // namespace strata::loadgen
