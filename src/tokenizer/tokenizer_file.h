// Reads a Hugging Face tokenizer.json of the byte-level BPE kind. Used once, at start-up.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"

namespace strata::tokenizer {

// The parts of the file that matter, byte-level letters already turned back into bytes.
struct TokenizerFile {
  struct Slice {
    std::uint32_t offset = 0;  // in `arena`
    std::uint32_t length = 0;
  };
  struct Token {
    TokenId id = kNoToken;
    Slice bytes;
  };
  struct MergeRule {  // in order of rank
    Slice left;
    Slice right;
  };
  struct AddedToken {
    TokenId id = kNoToken;
    std::string content;
  };

  std::string arena;
  std::vector<Token> vocab;
  std::vector<MergeRule> merges;
  std::vector<AddedToken> added_tokens;
  std::string pattern;         // of the one Split pre-tokenizer
  bool ignore_merges = false;  // a piece that is a token is taken whole

  std::string_view text(Slice slice) const {
    return std::string_view(arena).substr(slice.offset, slice.length);
  }
};

// Throws StartupError naming the file and the place in it.
TokenizerFile read_tokenizer_file(const std::filesystem::path& path);

}  // namespace strata::tokenizer
