#include "kv/block_hash.h"

#include <gtest/gtest.h>

namespace strata::kv {
namespace {

const std::vector<TokenId> kTokens = {1, 2, 3, 4, 5, 6, 7, 8, 9};

BlockChain chain_of(const BlockHasher& hasher, std::string_view salt,
                    const std::vector<TokenId>& tokens) {
  BlockChain chain = hasher.start(salt);
  hasher.extend(chain, tokens, 4);
  return chain;
}

TEST(BlockHash, OnlyWholeBlocksHaveAKey) {
  const BlockHasher hasher(BlockHash{1});
  EXPECT_EQ(chain_of(hasher, "", kTokens).hashes.size(), 2U);
  EXPECT_TRUE(chain_of(hasher, "", {1, 2, 3}).hashes.empty());
}

TEST(BlockHash, ExtendingInPiecesGivesTheSameKeys) {
  const BlockHasher hasher(BlockHash{1});
  BlockChain chain = hasher.start("salt");
  for (std::size_t size = 0; size <= kTokens.size(); ++size)
    hasher.extend(chain, std::span(kTokens).first(size), 4);
  EXPECT_EQ(chain.hashes, chain_of(hasher, "salt", kTokens).hashes);
}

TEST(BlockHash, AKeyDependsOnAllTokensBeforeIt) {
  const BlockHasher hasher(BlockHash{1});
  std::vector<TokenId> other = kTokens;
  other[1] = 99;
  const auto a = chain_of(hasher, "", kTokens).hashes;
  const auto b = chain_of(hasher, "", other).hashes;
  EXPECT_NE(a[0], b[0]);
  EXPECT_NE(a[1], b[1]) << "its own four tokens are equal";
}

TEST(BlockHash, SaltAndSecretSeparateTenantsAndProcesses) {
  const BlockHasher one(BlockHash{1});
  const BlockHasher two(BlockHash{2});
  EXPECT_NE(chain_of(one, "", kTokens).hashes, chain_of(one, "tenant", kTokens).hashes);
  EXPECT_NE(chain_of(one, "", kTokens).hashes, chain_of(two, "", kTokens).hashes);
  EXPECT_NE(chain_of(BlockHasher(), "", kTokens).hashes,
            chain_of(BlockHasher(), "", kTokens).hashes);
}

}  // namespace
}  // namespace strata::kv
