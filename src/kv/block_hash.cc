#include "kv/block_hash.h"

#include <random>

namespace strata::kv {

BlockHasher::BlockHasher() {
  std::random_device device;
  for (std::uint8_t& byte : secret_) byte = static_cast<std::uint8_t>(device());
}

BlockChain BlockHasher::start(std::string_view cache_salt) const {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(secret_)));
  hash.update(std::as_bytes(std::span(cache_salt.data(), cache_salt.size())));
  return BlockChain{hash.finish(), {}};
}

void BlockHasher::extend(BlockChain& chain, std::span<const TokenId> tokens,
                         std::int32_t page_tokens) const {
  const auto block_size = static_cast<std::size_t>(page_tokens);
  for (std::size_t block = chain.hashes.size(); (block + 1) * block_size <= tokens.size();
       ++block) {
    Sha256 hash;
    hash.update(std::as_bytes(std::span(block == 0 ? chain.root : chain.hashes.back())));
    hash.update(std::as_bytes(tokens.subspan(block * block_size, block_size)));
    chain.hashes.push_back(hash.finish());
  }
}

}  // namespace strata::kv
