// Script files of the scripted model: one answer a line, JSON.
#pragma once

#include <filesystem>
#include <vector>

#include "base/ids.h"
#include "tokenizer/tokenizer.h"

namespace strata::app {

// Lines {"text": "..."} (special tokens are recognised) or {"tokens": [...]}; blank lines are
// skipped. Throws StartupError naming file and line.
std::vector<std::vector<TokenId>> read_script(const std::filesystem::path& file,
                                              const tokenizer::Tokenizer& tokenizer,
                                              std::int32_t vocab);

}  // namespace strata::app
