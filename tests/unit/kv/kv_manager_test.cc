#include "kv/kv_manager.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace strata::kv {
namespace {

KvConfig config() { return KvConfig{.page_tokens = 4, .window = 10, .num_pages = 41}; }

std::vector<TokenId> tokens_of(std::int32_t count, TokenId first = 0) {
  std::vector<TokenId> tokens;
  for (std::int32_t i = 0; i < count; ++i) tokens.push_back(first + i);
  return tokens;
}

class KvManagerTest : public testing::Test {
 protected:
  explicit KvManagerTest(std::int32_t num_swap_pages = 0) : kv(with_swap(num_swap_pages), hasher) {}
  static KvConfig with_swap(std::int32_t num_swap_pages) {
    KvConfig out = config();
    out.num_swap_pages = num_swap_pages;
    return out;
  }
  SequencePages sequence(const std::vector<TokenId>& tokens, std::string_view salt = "") {
    SequencePages pages;
    pages.chain = hasher.start(salt);
    hasher.extend(pages.chain, tokens, kv.config().page_tokens);
    pages.checkpoint = static_cast<std::int32_t>(tokens.size());
    return pages;
  }
  // As if `tokens` had been computed in chunks of five.
  void compute(SequencePages& pages, const std::vector<TokenId>& tokens, std::int32_t from = 0) {
    const auto size = static_cast<std::int32_t>(tokens.size());
    for (std::int32_t len = from; len < size;) {
      len = std::min(len + 5, size);
      ASSERT_TRUE(kv.grow(pages, len));
      kv.confirm(pages, tokens, len);
    }
  }
  void check(std::initializer_list<const SequencePages*> live) {
    kv.check_integrity(std::vector<const SequencePages*>(live));
  }

  const BlockHasher hasher{BlockHash{7}};
  KvManager kv;
};

TEST(MinPages, FullGroupGrowsWithLengthWindowGroupIsBounded) {
  const KvConfig c = config();
  EXPECT_EQ(min_pages(c, 0), 0);
  EXPECT_EQ(min_pages(c, 1), 2);
  EXPECT_EQ(min_pages(c, 8), 4);
  // Ten keys touch at most four pages of four.
  EXPECT_EQ(min_pages(c, 100), 25 + 4);
  KvConfig full = c;
  full.has_group[kWindow] = false;
  EXPECT_EQ(min_pages(full, 100), 25);
  KvConfig window = c;
  window.has_group[kFull] = false;
  EXPECT_EQ(min_pages(window, 100), 4);
}

TEST(MinPages, BoundHoldsAtEveryAlignment) {
  for (std::int32_t page = 1; page <= 17; ++page) {
    for (std::int32_t window = 1; window <= 40; ++window) {
      const KvConfig c{.page_tokens = page, .window = window, .has_group = {false, true}};
      for (std::int32_t position = 0; position < 120; ++position) {
        const std::int32_t used = position / page + 1 - first_window_page(c, position);
        EXPECT_LE(used, min_pages(c, 1000)) << page << " " << window << " " << position;
      }
    }
  }
}

TEST_F(KvManagerTest, GrowsBothGroupsAllOrNothing) {
  SequencePages a;
  EXPECT_EQ(kv.pages_to_grow(a, 9), 6);
  ASSERT_TRUE(kv.grow(a, 9));
  EXPECT_EQ(kv.available(), 34);
  EXPECT_EQ(kv.pages_to_grow(a, 12), 0);
  EXPECT_EQ(a.groups[kFull].pages.size(), 3U);
  EXPECT_FALSE(kv.grow(a, 9 + 40 * 4));
  EXPECT_EQ(kv.available(), 34);
  check({&a});
  kv.release(a);
  EXPECT_TRUE(a.empty());
  EXPECT_EQ(kv.available(), 40);
  check({});
}

TEST_F(KvManagerTest, ReachableLengthUsesTheRestOfTheLastPageAndKeepsTheReserve) {
  SequencePages a;
  SequencePages b;
  ASSERT_TRUE(kv.grow(b, 17 * 4));  // 34 of 40
  ASSERT_TRUE(kv.grow(a, 5));       // 4 more, 2 left
  EXPECT_EQ(kv.reachable_length(a, 5, 7, 0), 7);
  EXPECT_EQ(kv.reachable_length(a, 5, 30, 0), 12);
  EXPECT_EQ(kv.reachable_length(a, 5, 30, 1), 8);
  EXPECT_EQ(kv.reachable_length(a, 5, 30, 9), 8);
  EXPECT_EQ(kv.reachable_length(a, 8, 30, 2), 8);
}

TEST_F(KvManagerTest, WindowPagesReturnWhenAllTheirTokensAreBehindTheWindow) {
  const std::vector<TokenId> tokens = tokens_of(40);
  SequencePages a = sequence(tokens);
  ASSERT_TRUE(kv.grow(a, 40));
  GroupTable& window = a.groups[kWindow];
  kv.confirm(a, tokens, 12);  // the row at 12 sees 3..12
  EXPECT_EQ(window.first_page, 0);
  kv.confirm(a, tokens, 13);  // 4..13
  EXPECT_EQ(window.first_page, 1);
  kv.confirm(a, tokens, 16);
  EXPECT_EQ(window.first_page, 1);
  kv.confirm(a, tokens, 33);  // 24..33
  EXPECT_EQ(window.first_page, 6);
  EXPECT_EQ(window.end_page(), 10);
  EXPECT_EQ(a.groups[kFull].pages.size(), 10U);
  check({&a});
}

TEST_F(KvManagerTest, AFinishedPrefixIsFoundAndShared) {
  const std::vector<TokenId> tokens = tokens_of(22);
  SequencePages a = sequence(tokens);
  compute(a, tokens);
  SequencePages b = sequence(tokens);
  const PrefixMatch match = kv.match(b, tokens);
  EXPECT_EQ(match.blocks, 5) << "of 22 tokens, five blocks leave two to compute";
  EXPECT_EQ(match.parked_pages, 1) << "the first sequence no longer reads its third window page";
  kv.adopt(b, tokens, match);
  EXPECT_EQ(b.groups[kFull].pages.size(), 5U);
  // The row at 20 sees 11..20.
  EXPECT_EQ(b.groups[kWindow].first_page, 2);
  EXPECT_EQ(b.groups[kWindow].pages.size(), 3U);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(a.groups[kFull].pages[i], b.groups[kFull].pages[i]);
  check({&a, &b});
  compute(b, tokens, 20);
  kv.release(a);
  check({&b});
  kv.release(b);
  check({});
  EXPECT_EQ(kv.available(), 40);
}

TEST_F(KvManagerTest, OnlyPagesOfNobodyElseAreHeldAlone) {
  const std::vector<TokenId> tokens = tokens_of(22);
  SequencePages a = sequence(tokens);
  compute(a, tokens);
  const KvManager::Holding alone = kv.held_alone(a);
  EXPECT_EQ(alone.pages, static_cast<std::int32_t>(a.groups[kFull].pages.size() +
                                                   a.groups[kWindow].pages.size()));
  EXPECT_EQ(alone.tokens, 6 * 4) << "tokens are counted in the full group only";
  SequencePages b = sequence(tokens);
  kv.adopt(b, tokens, kv.match(b, tokens));
  // Five full pages and the window's that b reads as well are shared now.
  EXPECT_EQ(kv.held_alone(a).tokens, 1 * 4);
  EXPECT_EQ(kv.held_alone(b).tokens, 0);
  EXPECT_EQ(kv.held_alone(b).pages, 1) << "the window page that a no longer reads";
  kv.release(a);
  EXPECT_EQ(kv.held_alone(b).tokens, 5 * 4);
}

TEST_F(KvManagerTest, ColdPagesAreEvictedBeforeOthers) {
  const std::vector<TokenId> warm = tokens_of(22);
  const std::vector<TokenId> cold = tokens_of(22, 1000);
  SequencePages a = sequence(warm);
  SequencePages b = sequence(cold);
  compute(a, warm);
  compute(b, cold);
  kv.release(b, PrefixCache::Value::kCold);  // the later one, and still the first to go
  kv.release(a);
  SequencePages other;
  ASSERT_TRUE(kv.grow(other, 4 * 14));
  EXPECT_EQ(kv.match(sequence(warm), warm).blocks, 5);
  EXPECT_LT(kv.match(sequence(cold), cold).blocks, 5);
}

TEST_F(KvManagerTest, AHitLeavesOneTokenToCompute) {
  const std::vector<TokenId> tokens = tokens_of(20);
  SequencePages a = sequence(tokens);
  compute(a, tokens);
  EXPECT_EQ(kv.match(sequence(tokens), tokens).blocks, 4);
}

TEST_F(KvManagerTest, AHitNeedsTheWindowPagesBeforeItsEnd) {
  // The window pages of the middle were given back; forty more tokens evicted them.
  const std::vector<TokenId> tokens = tokens_of(40);
  SequencePages a = sequence(tokens);
  compute(a, tokens);
  kv.release(a);
  SequencePages other;
  ASSERT_TRUE(kv.grow(other, 4 * 12));  // 24 pages: the free ones and cold window pages
  std::vector<TokenId> branch = tokens_of(40);
  branch[21] = 1000;
  const SequencePages b = sequence(branch);
  EXPECT_EQ(kv.match(b, branch).blocks, 0) << "five blocks are there, their window is not";
  const std::vector<TokenId> longer = tokens_of(50);
  EXPECT_EQ(kv.match(sequence(longer), longer).blocks, 10);
  check({&other});
}

TEST_F(KvManagerTest, TheWindowBeforeAPromptsEndOutlivesTheAnswer) {
  // Prompt of 24, answer of 40: the next turn shares the prompt but for its last three tokens.
  std::vector<TokenId> tokens = tokens_of(64);
  SequencePages a = sequence(std::vector<TokenId>(tokens.begin(), tokens.begin() + 24));
  a.checkpoint = 24;
  compute(a, tokens);
  kv.release(a);
  SequencePages other;
  ASSERT_TRUE(kv.grow(other, 4 * 14));  // free and cold pages, then the tail of the answer
  std::vector<TokenId> next = tokens_of(30);
  for (std::size_t i = 21; i < next.size(); ++i) next[i] = 500;
  EXPECT_EQ(kv.match(sequence(next), next).blocks, 5);
}

TEST(KvManager, TailsAreEvictedBeforeHeads) {
  KvConfig c = config();
  c.has_group[kWindow] = false;
  c.num_pages = 11;
  const BlockHasher hasher{BlockHash{7}};
  KvManager kv(c, hasher);
  const std::vector<TokenId> tokens = tokens_of(41);
  SequencePages a;
  a.chain = hasher.start("");
  hasher.extend(a.chain, tokens, 4);
  ASSERT_TRUE(kv.grow(a, 40));
  kv.confirm(a, tokens, 40);
  SequencePages probe;
  probe.chain = a.chain;
  kv.release(a);
  SequencePages other;
  for (std::int32_t taken = 0; taken < 10; ++taken) {
    ASSERT_TRUE(kv.grow(other, 4 * taken));
    EXPECT_EQ(kv.match(probe, tokens).blocks, 10 - taken);
  }
}

TEST_F(KvManagerTest, SaltsDoNotShare) {
  const std::vector<TokenId> tokens = tokens_of(22);
  SequencePages a = sequence(tokens, "a");
  compute(a, tokens);
  EXPECT_EQ(kv.match(sequence(tokens, "b"), tokens).blocks, 0);
  EXPECT_EQ(kv.match(sequence(tokens, "a"), tokens).blocks, 5);
}

TEST_F(KvManagerTest, ParkedPagesCountAsAvailableAndAreTakenWhenNeeded) {
  const std::vector<TokenId> tokens = tokens_of(22);
  SequencePages a = sequence(tokens);
  compute(a, tokens);
  kv.release(a);
  EXPECT_EQ(kv.available(), 40);
  const PrefixMatch match = kv.match(sequence(tokens), tokens);
  EXPECT_EQ(match.parked_pages, 8);
  SequencePages all;
  ASSERT_TRUE(kv.grow(all, 80));
  EXPECT_EQ(kv.match(sequence(tokens), tokens).blocks, 0);
  check({&all});
}

TEST_F(KvManagerTest, FreedPagesAreReportedOnce) {
  SequencePages a;
  ASSERT_TRUE(kv.grow(a, 8));
  EXPECT_TRUE(kv.take_work().freed.empty());
  kv.release(a);
  EXPECT_EQ(kv.take_work().freed.size(), 4U);
  EXPECT_TRUE(kv.take_work().freed.empty());
}

TEST(KvManager, WithoutACacheNothingIsParked) {
  KvConfig c = config();
  c.prefix_caching = false;
  const BlockHasher hasher{BlockHash{7}};
  KvManager kv(c, hasher);
  const std::vector<TokenId> tokens = tokens_of(22);
  SequencePages a;
  a.chain = hasher.start("");
  hasher.extend(a.chain, tokens, 4);
  ASSERT_TRUE(kv.grow(a, 22));
  kv.confirm(a, tokens, 22);
  kv.release(a);
  EXPECT_EQ(kv.take_work().freed.size(), 12U);
  SequencePages b;
  b.chain = hasher.start("");
  hasher.extend(b.chain, tokens, 4);
  EXPECT_EQ(kv.match(b, tokens).blocks, 0);
}

class SwapTest : public KvManagerTest {
 protected:
  SwapTest() : KvManagerTest(20) {}
};

TEST_F(SwapTest, EvictedPrefixesGoToTheHostAndComeBack) {
  const std::vector<TokenId> tokens = tokens_of(22);
  SequencePages a = sequence(tokens);
  compute(a, tokens);
  kv.release(a);
  kv.take_work();
  SequencePages all;
  ASSERT_TRUE(kv.grow(all, 80));
  KvManager::PageWork work = kv.take_work();
  // Five full pages and the window's last four; its first was cold.
  EXPECT_EQ(work.copies.size(), 9U);
  for (const SwapCopy& copy : work.copies) {
    EXPECT_TRUE(copy.out);
    EXPECT_EQ(std::count(work.freed.begin(), work.freed.end(), copy.page), 0)
        << "poison must not overtake the copy";
  }
  PrefixMatch match = kv.match(sequence(tokens), tokens);
  EXPECT_EQ(match.blocks, 5);
  EXPECT_EQ(match.swapped_pages, 8);
  EXPECT_EQ(match.parked_pages, 0);
  kv.release(all);
  SequencePages b = sequence(tokens);
  kv.adopt(b, tokens, match);
  check({&b});
  work = kv.take_work();
  ASSERT_EQ(work.copies.size(), 8U);
  EXPECT_FALSE(work.copies[0].out);
  EXPECT_EQ(work.copies[0].page, b.groups[kFull].pages[0]);
  EXPECT_EQ(kv.pages_swapped_in(), 8U);
  // The host keeps its copy: pushed out again, nothing has to be copied.
  kv.release(b);
  ASSERT_TRUE(kv.grow(all, 80));
  EXPECT_TRUE(kv.take_work().copies.empty());
  match = kv.match(sequence(tokens), tokens);
  EXPECT_EQ(match.swapped_pages, 8);
}

TEST_F(SwapTest, MakingRoomForAHitNeverTakesTheHitAway) {
  // Two prefixes that fill the host pool: bringing one back pushes others out there.
  std::vector<std::vector<TokenId>> prompts;
  for (TokenId first = 0; first < 6; ++first) {
    prompts.push_back(tokens_of(34, 100 * first));
    SequencePages a = sequence(prompts.back());
    compute(a, prompts.back());
    kv.release(a);
  }
  for (int round = 0; round < 40; ++round) {
    const std::vector<TokenId>& tokens = prompts[static_cast<std::size_t>(round * 5 % 6)];
    SequencePages a = sequence(tokens);
    const PrefixMatch match = kv.match(a, tokens);
    ASSERT_LE(match.parked_pages + match.swapped_pages, kv.available());
    kv.adopt(a, tokens, match);
    EXPECT_EQ(a.groups[kFull].end_page(), match.blocks);
    check({&a});
    compute(a, tokens, match.blocks * 4);
    kv.release(a);
    check({});
  }
  EXPECT_GT(kv.pages_swapped_in(), 0U);
}

TEST_F(KvManagerTest, IntegrityCheckSeesALostPage) {
  SequencePages a;
  ASSERT_TRUE(kv.grow(a, 8));
  EXPECT_DEATH(check({}), "owners");
  SequencePages twice = a;
  EXPECT_DEATH(check({&a, &twice}), "owners");
}

}  // namespace
}  // namespace strata::kv
