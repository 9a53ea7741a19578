// Keys of the prefix cache: a chain of SHA-256 over blocks of tokens, rooted in a secret of the
// process and the request's cache salt, so that nobody can construct or probe another tenant's
// keys. Immutable after construction; any thread.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/sha256.h"

namespace strata::kv {

using BlockHash = Sha256Digest;

struct BlockHashKey {
  std::size_t operator()(const BlockHash& hash) const {
    std::size_t key = 0;
    std::memcpy(&key, hash.data(), sizeof key);
    return key;
  }
};

// The keys of one sequence: hashes[i] covers its tokens [0, (i + 1) * page_tokens).
struct BlockChain {
  BlockHash root{};
  std::vector<BlockHash> hashes;
};

class BlockHasher {
 public:
  BlockHasher();  // a random secret
  explicit BlockHasher(const BlockHash& secret) : secret_(secret) {}

  BlockChain start(std::string_view cache_salt) const;
  // Extends the chain over every whole block of `tokens`, the sequence's tokens from the start.
  void extend(BlockChain& chain, std::span<const TokenId> tokens, std::int32_t page_tokens) const;

 private:
  BlockHash secret_;
};

}  // namespace strata::kv
