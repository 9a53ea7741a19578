// The embedded model's tokenizer, loaded once for all tests of this program.
#pragma once

#include "tokenizer/tokenizer.h"

namespace strata::harmony {

inline const tokenizer::Tokenizer& tiny_tokenizer() {
  static const auto tokenizer =
      tokenizer::Tokenizer::load(STRATA_SOURCE_DIR "/models/strata-tiny/tokenizer.json");
  return *tokenizer;
}

}  // namespace strata::harmony
