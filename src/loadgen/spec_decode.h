// What a server's /metrics tells about speculative decoding (vLLM's names), before and after a run.
// Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace strata::loadgen {

// Counts since the server's start.
struct SpecDecodeCounts {
  std::int64_t drafts = 0;
  std::int64_t draft_tokens = 0;
  std::int64_t accepted_tokens = 0;
  std::map<std::int64_t, std::int64_t> accepted_at;  // position in the draft -> tokens
};

// Nothing when the server does not speculate.
std::optional<SpecDecodeCounts> read_spec_decode(std::string_view metrics);

struct SpecDecode {
  std::int64_t drafts = 0;
  std::int64_t draft_tokens = 0;
  std::int64_t accepted_tokens = 0;
  double acceptance_rate = 0;    // percent of the draft tokens
  double acceptance_length = 0;  // tokens a step, the model's own included
  std::vector<double> rate_at;   // of each position, 0 to 1
};

// Nothing unless drafts were made in between.
std::optional<SpecDecode> spec_decode_between(const std::optional<SpecDecodeCounts>& before,
                                              const std::optional<SpecDecodeCounts>& after);

}  // namespace strata::loadgen
