#include "kv/prefix_cache.h"

#include <gtest/gtest.h>

namespace strata::kv {
namespace {

using Value = PrefixCache::Value;

KvConfig config() { return KvConfig{.page_tokens = 2, .window = 4, .num_pages = 16}; }

BlockHash key(std::uint8_t n) { return BlockHash{n}; }

TEST(PrefixCache, FindsAPageByKeyGroupAndTokens) {
  PrefixCache cache(config());
  const std::vector<TokenId> tokens = {3, 4};
  cache.insert(kFull, 5, key(1), tokens);
  EXPECT_EQ(cache.find(kFull, key(1), tokens).page, 5);
  EXPECT_FALSE(cache.find(kWindow, key(1), tokens).found());
  EXPECT_FALSE(cache.find(kFull, key(2), tokens).found());
  EXPECT_TRUE(cache.contains(5));
}

TEST(PrefixCache, EqualKeysWithOtherTokensAreNotAHit) {
  PrefixCache cache(config());
  cache.insert(kFull, 5, key(1), std::vector<TokenId>{3, 4});
  EXPECT_FALSE(cache.find(kFull, key(1), std::vector<TokenId>{3, 5}).found());
  cache.insert(kWindow, 6, key(1), std::vector<TokenId>{3, 5});
  EXPECT_FALSE(cache.contains(6)) << "a colliding block must not enter";
}

TEST(PrefixCache, TheFirstPageOfABlockStays) {
  PrefixCache cache(config());
  const std::vector<TokenId> tokens = {3, 4};
  cache.insert(kFull, 5, key(1), tokens);
  cache.insert(kFull, 6, key(1), tokens);
  EXPECT_EQ(cache.find(kFull, key(1), tokens).page, 5);
  EXPECT_FALSE(cache.contains(6));
}

TEST(PrefixCache, EvictsColdPagesFirstThenTheLongestParked) {
  PrefixCache cache(config());
  for (std::uint8_t i = 1; i <= 5; ++i) cache.insert(kFull, i, key(i), std::vector<TokenId>{i, i});
  cache.park(1, Value::kKeep);
  cache.park(2, Value::kCold);
  cache.park(3, Value::kKeep);
  cache.park(4, Value::kCold);
  cache.park(5, Value::kKeep);
  cache.unpark(3);
  EXPECT_EQ(cache.num_parked(), 4);
  EXPECT_FALSE(cache.is_parked(3));
  cache.park(3, Value::kKeep);  // used just now
  std::vector<PageId> order;
  while (cache.num_parked() > 0) order.push_back(cache.evict().page);
  EXPECT_EQ(order, (std::vector<PageId>{2, 4, 1, 5, 3}));
}

TEST(PrefixCache, AnEvictedPageIsForgottenAndItsBlockWithTheLastOne) {
  PrefixCache cache(config());
  const std::vector<TokenId> tokens = {3, 4};
  cache.insert(kFull, 1, key(1), tokens);
  cache.insert(kWindow, 2, key(1), tokens);
  cache.park(1, Value::kKeep);
  EXPECT_EQ(cache.evict().page, 1);
  EXPECT_FALSE(cache.contains(1));
  EXPECT_FALSE(cache.find(kFull, key(1), tokens).found());
  EXPECT_EQ(cache.find(kWindow, key(1), tokens).page, 2);
  cache.park(2, Value::kKeep);
  EXPECT_EQ(cache.evict().page, 2);
  EXPECT_FALSE(cache.find(kWindow, key(1), tokens).found());
  // Its key is free for a block with other tokens.
  cache.insert(kFull, 3, key(1), std::vector<TokenId>{8, 8});
  EXPECT_EQ(cache.find(kFull, key(1), std::vector<TokenId>{8, 8}).page, 3);
}

TEST(PrefixCache, EvictedPagesMoveToTheHostPageThatWasUnusedLongest) {
  KvConfig with_swap = config();
  with_swap.num_swap_pages = 2;
  PrefixCache cache(with_swap);
  const auto evict = [&](PageId page, std::uint8_t n) {
    cache.insert(kFull, page, key(n), std::vector<TokenId>{n, n});
    cache.park(page, Value::kKeep);
    return cache.evict().swap_out;
  };
  const auto host = [&](std::uint8_t n) {
    return cache.find(kFull, key(n), std::vector<TokenId>{n, n}).host;
  };
  EXPECT_EQ(evict(1, 1), 0);
  EXPECT_EQ(evict(2, 2), 1);
  cache.hold_host(0);  // used: it goes behind the other
  cache.unhold_host(0);
  EXPECT_EQ(evict(3, 3), 1);
  EXPECT_EQ(host(1), 0);
  EXPECT_EQ(host(2), kNoHostPage);
  EXPECT_EQ(host(3), 1);
  cache.hold_host(0);
  cache.hold_host(1);
  EXPECT_EQ(evict(4, 4), kNoHostPage) << "all are held";
  cache.unhold_host(0);
  cache.unhold_host(1);
  cache.check_integrity();
}

TEST(PrefixCache, ColdPagesAreNotWorthACopy) {
  KvConfig with_swap = config();
  with_swap.num_swap_pages = 2;
  PrefixCache cache(with_swap);
  cache.insert(kWindow, 1, key(1), std::vector<TokenId>{1, 1});
  cache.park(1, Value::kCold);
  EXPECT_EQ(cache.evict().swap_out, kNoHostPage);
  cache.check_integrity();
}

}  // namespace
}  // namespace strata::kv
