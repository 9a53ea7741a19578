// TurnMemory: the token ids of assistant turns this server sampled. A model may write a text in
// other tokens than the tokenizer would; when such a turn comes back in a later request's history
// it is rendered with the ids it was made of, so that the prefix cache goes on to its end.
//
// Only a turn equal in every field is found: content, reasoning, calls with their arguments, and
// the cache salt. Bounded, in memory only, keyed by a hash with a secret of the process. Any
// thread.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "base/sha256.h"
#include "harmony/message.h"
#include "harmony/parser.h"
#include "tokenizer/tokenizer.h"

namespace strata::serve {

// An assistant turn as a client sees it and sends it back.
struct TurnFields {
  std::string content;
  std::string reasoning;
  std::vector<std::pair<std::string, std::string>> calls;  // name, arguments
};

// One message of a turn among its sampled tokens.
struct TurnPart {
  harmony::MessageKind kind = harmony::MessageKind::kFinal;
  std::string tool_name;
  std::size_t content = 0;  // its first content token
  std::size_t end = 0;      // behind its last content token
};

// A turn with the ids of each of its messages (harmony::Message::tokens).
struct ExactTurn {
  TurnFields fields;
  std::vector<harmony::Message> messages;
};

// `opening`: the prompt behind its last <|start|>. `tokens`: what was sampled. Empty when the turn
// does not have the shape of harmony.
std::optional<ExactTurn> exact_turn(const std::vector<TokenId>& opening,
                                    const std::vector<TokenId>& tokens,
                                    const std::vector<TurnPart>& parts,
                                    const tokenizer::Tokenizer& tokenizer);

class TurnMemory {
 public:
  explicit TurnMemory(std::size_t max_bytes);

  void remember(ExactTurn turn, std::string_view salt);
  std::optional<std::vector<harmony::Message>> find(const TurnFields& fields,
                                                    std::string_view salt);
  std::size_t bytes() const;

 private:
  struct Entry {
    Sha256Digest key;
    std::vector<harmony::Message> messages;
    std::size_t bytes;
  };
  struct KeyHash {
    std::size_t operator()(const Sha256Digest& key) const;
  };
  Sha256Digest key_of(const TurnFields& fields, std::string_view salt) const;

  const std::size_t max_bytes_;
  std::array<std::uint32_t, 8> secret_{};
  mutable std::mutex mutex_;
  // GUARDED_BY(mutex_): most recently used first.
  std::list<Entry> entries_;
  std::unordered_map<Sha256Digest, std::list<Entry>::iterator, KeyHash> index_;
  std::size_t bytes_ = 0;
};

}  // namespace strata::serve
