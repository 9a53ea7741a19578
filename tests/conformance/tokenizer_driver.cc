// tokenizer_driver TOKENIZER_JSON: encodes strings for tests/conformance/tokenizer.mjs.
//
// stdin, repeated: one byte mode (0: ordinary text, 1: special tokens recognised), uint32 length,
// that many bytes. stdout, one answer each: uint32 count, that many int32 ids. Little-endian.
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "base/result.h"
#include "tokenizer/tokenizer.h"

namespace {

int answer_all(const strata::tokenizer::Tokenizer& tokenizer) {
  std::string text;
  for (int mode = std::getchar(); mode != EOF; mode = std::getchar()) {
    std::uint32_t length = 0;
    if (std::fread(&length, sizeof(length), 1, stdin) != 1) return 1;
    text.resize(length);
    if (std::fread(text.data(), 1, length, stdin) != length) return 1;
    const std::vector<strata::TokenId> ids =
        mode == 1 ? tokenizer.encode_with_specials(text) : tokenizer.encode(text);
    const auto count = static_cast<std::uint32_t>(ids.size());
    std::fwrite(&count, sizeof(count), 1, stdout);
    std::fwrite(ids.data(), sizeof(strata::TokenId), ids.size(), stdout);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: tokenizer_driver TOKENIZER_JSON\n", stderr);
    return 2;
  }
  try {
    return answer_all(*strata::tokenizer::Tokenizer::load(argv[1]));
  } catch (const strata::StartupError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.exit_code();
  }
}
