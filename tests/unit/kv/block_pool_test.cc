#include "kv/block_pool.h"

#include <gtest/gtest.h>

#include <set>

namespace strata::kv {
namespace {

TEST(BlockPool, HandsOutEveryPageButTheScrapPageOnce) {
  BlockPool pool(8);
  EXPECT_EQ(pool.capacity(), 7);
  std::set<PageId> pages;
  while (pool.num_free() > 0) pages.insert(pool.allocate());
  EXPECT_EQ(pages, (std::set<PageId>{1, 2, 3, 4, 5, 6, 7}));
}

TEST(BlockPool, APageIsFreeOnlyAfterItsLastOwnerGaveItBack) {
  BlockPool pool(2);
  const PageId page = pool.allocate();
  pool.add_ref(page);
  EXPECT_EQ(pool.refs(page), 2);
  EXPECT_FALSE(pool.drop_ref(page));
  EXPECT_TRUE(pool.drop_ref(page));
  EXPECT_EQ(pool.num_free(), 0);
  pool.give_back(page);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_EQ(pool.allocate(), page);
}

TEST(BlockPoolDeath, MisuseAborts) {
  BlockPool pool(3);
  const PageId page = pool.allocate();
  EXPECT_DEATH(pool.give_back(page), "CHECK|refs");
  pool.drop_ref(page);
  EXPECT_DEATH(pool.drop_ref(page), "has no owner");
  pool.give_back(page);
  EXPECT_DEATH(pool.give_back(page), "page 1");
  EXPECT_DEATH(pool.add_ref(page), "page 1");
}

}  // namespace
}  // namespace strata::kv
