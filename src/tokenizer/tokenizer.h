// Tokenizer: exact o200k byte-level BPE read from a Hugging Face tokenizer.json. Immutable after
// load; every method is const and callable from any thread.
//
// Text given to encode() is always ordinary text: it can never yield a special token. Special
// tokens enter a prompt only by id, through harmony/.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"

namespace strata::tokenizer {

// Ids of the harmony specials, resolved by string. kNoToken when the vocabulary lacks one.
struct SpecialIds {
  TokenId start_of_text = kNoToken;  // <|startoftext|>
  TokenId end_of_text = kNoToken;    // <|endoftext|>
  TokenId return_ = kNoToken;        // <|return|>
  TokenId constrain = kNoToken;      // <|constrain|>
  TokenId channel = kNoToken;        // <|channel|>
  TokenId start = kNoToken;          // <|start|>
  TokenId end = kNoToken;            // <|end|>
  TokenId message = kNoToken;        // <|message|>
  TokenId call = kNoToken;           // <|call|>
};

class Tokenizer {
 public:
  // Throws StartupError naming the file and what is wrong in it.
  static std::unique_ptr<const Tokenizer> load(const std::filesystem::path& tokenizer_json);
  virtual ~Tokenizer() = default;

  // Appends the ids of `text` (any bytes; invalid UTF-8 is encoded byte by byte). O(n log n).
  virtual void encode(std::string_view text, std::vector<TokenId>& out) const = 0;
  std::vector<TokenId> encode(std::string_view text) const {
    std::vector<TokenId> out;
    encode(text, out);
    return out;
  }
  // As encode(), but the texts of special tokens become their ids. Only for operator-written input
  // such as scripts of the scripted model: never for request text.
  virtual std::vector<TokenId> encode_with_specials(std::string_view text) const = 0;

  // Bytes of one token; a special's text; empty for ids without a token. Never fails.
  virtual std::string_view token_bytes(TokenId id) const = 0;
  std::string decode(const std::vector<TokenId>& ids) const {
    std::string out;
    for (const TokenId id : ids) out += token_bytes(id);
    return out;
  }
  virtual bool is_special(TokenId id) const = 0;
  virtual const SpecialIds& specials() const = 0;
  // The highest id with a token, specials included, plus one; the model may have more rows.
  virtual TokenId size() const = 0;

  // Ids a model with `vocab` rows must never emit: rows without a token, start-of-text, reserved
  // specials, end-of-prompt.
  virtual std::vector<TokenId> never_emit(std::int32_t vocab) const = 0;
  // Sampling stops: return, call, end-of-text. Hard-coded: generation_config.json is not trusted.
  virtual std::vector<TokenId> stop_ids() const = 0;
};

// Bytes in, whole UTF-8 characters out. Invalid sequences become U+FFFD, one per maximal invalid
// prefix (as WHATWG decoders do); an unfinished character is held back until it is complete.
class Utf8Stream {
 public:
  // Appends what became complete to `out`.
  void push(std::string_view bytes, std::string& out);
  // End of the stream: an unfinished character becomes U+FFFD.
  void finish(std::string& out);
  bool pending() const { return held_ > 0; }

 private:
  std::array<char, 4> buffer_{};
  int held_ = 0;
};

}  // namespace strata::tokenizer
