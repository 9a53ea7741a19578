// The prompts of a run and the JSON bodies that ask for them. Pure, apart from reading the file of
// a custom data set.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "loadgen/options.h"

namespace strata::loadgen {

// Either text or token ids.
struct Prompt {
  std::string text;
  std::vector<std::int32_t> ids;
  std::int32_t input_tokens = 0;   // 0: not known before the server has counted
  std::int32_t output_tokens = 0;  // most the answer may have
};

// Random prompts of random lengths, all a function of the seed. For completions they are token ids
// below 4000, which every vocabulary has; for chat they are common English words, about one token
// each.
std::vector<Prompt> random_prompts(const LoadOptions& options);

// Lines {"prompt": "...", "output_tokens": n} of a JSONL file's text, output_tokens optional; after
// the last line it starts again. Throws StartupError naming the line.
std::vector<Prompt> custom_prompts(const LoadOptions& options, std::string_view text);

// What options.dataset says. Throws StartupError.
std::vector<Prompt> make_prompts(const LoadOptions& options);

// A streaming request for `prompt`. `options.extra_body` must be empty or a JSON object.
std::string request_body(const LoadOptions& options, const Prompt& prompt);

}  // namespace strata::loadgen
