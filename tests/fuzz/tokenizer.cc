// Any bytes are encoded to ordinary tokens that decode to the same bytes.
#include <cstdint>

#include "base/check.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/word_splitter.h"

using strata::TokenId;
using strata::tokenizer::Tokenizer;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto tokenizer =
      Tokenizer::load(STRATA_SOURCE_DIR "/models/strata-tiny/tokenizer.json");
  const std::string_view text(reinterpret_cast<const char*>(data), size);

  strata::tokenizer::WordSplitter splitter(text);
  std::vector<TokenId> by_piece;
  for (std::size_t at = 0; at < text.size();) {
    const std::string_view piece = splitter.piece_at(at);
    STRATA_CHECK(!piece.empty() && piece.data() == text.data() + at, "piece at {}", at);
    tokenizer->encode(piece, by_piece);
    at += piece.size();
  }
  const std::vector<TokenId> ids = tokenizer->encode(text);
  for (const TokenId id : ids) STRATA_CHECK(!tokenizer->is_special(id), "special {}", id);
  STRATA_CHECK(tokenizer->decode(ids) == text);
  STRATA_CHECK(tokenizer->decode(by_piece) == text);
  STRATA_CHECK(tokenizer->decode(tokenizer->encode_with_specials(text)) == text);
  return 0;
}
