// What the generator reads of one JSON object of a completions or chat stream. Unknown fields are
// skipped, so that every OpenAI-compatible server can be measured.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace strata::loadgen {

struct StreamChunk {
  bool has_choice = false;                    // "choices" is not empty: counts as a token's arrival
  bool has_finish = false;                    // a choice has its finish_reason
  std::string text;                           // of all choices: text, or content of the delta
  std::optional<std::int64_t> prompt_tokens;  // of usage
  std::optional<std::int64_t> completion_tokens;
  std::optional<std::string> error;  // message of an error object
};

// Nothing when `json` is no JSON object. Also reads whole answers and error bodies.
std::optional<StreamChunk> read_chunk(std::string_view json);

}  // namespace strata::loadgen
