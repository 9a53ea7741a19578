// The host sampler against the written definitions, on rows of logits made up here.
#include "kernels/host/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/random.h"

namespace strata::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// One sequence in one slot; every draw is a step of one row.
class SamplerTest : public testing::Test {
 protected:
  static BackendOptions options() {
    BackendOptions options;
    options.max_rows = 8;
    options.max_slots = 2;
    return options;
  }

  void admit(const SamplingParams& sampling, std::int32_t position = 0,
             std::vector<TokenId> history = {}, std::int32_t prompt_len = 0) {
    SlotUpdate update;
    update.slot = 1;
    update.sampling = sampling;
    update.position = position;
    update.max_new_tokens = 1 << 30;
    update.history = std::move(history);
    update.history_prompt_len = prompt_len;
    next_.slots.push_back(update);
  }

  RowResult draw(std::vector<float> logits, LogitsRow row = {},
                 std::vector<std::uint32_t> masks = {}) {
    HostSampler sampler(static_cast<std::int32_t>(logits.size()), never_emit_);
    sampler.set_masks(masks);
    StepPlan plan = std::move(next_);
    next_ = StepPlan{};
    plan.shape = {.rows = 1, .seqs = 1, .logits_rows = 1};
    plan.rows = {{.slot = 1, .token = {0}, .pos_offset = 0}};
    SeqSpan span;
    span.slot = 1;
    span.n_rows = 1;
    plan.seqs = {span};
    plan.logits = {row};
    step_.begin(plan);
    sampler.process(step_, 0, logits);
    return step_.end().rows.at(0);
  }

  // Shares of each id over `count` positions.
  std::vector<double> shares(const SamplingParams& sampling, const std::vector<float>& logits,
                             int count = 20000) {
    std::vector<double> share(logits.size(), 0.0);
    for (int i = 0; i < count; ++i) {
      admit(sampling, i);
      share[static_cast<std::size_t>(draw(logits).token)] += 1.0 / count;
    }
    return share;
  }

  // Every share within 5 standard deviations of the softmax over `kept` at `temperature`.
  static void expect_softmax(const std::vector<double>& share, const std::vector<float>& logits,
                             double temperature, const std::vector<bool>& kept, int count = 20000) {
    double total = 0.0;
    for (std::size_t i = 0; i < logits.size(); ++i)
      if (kept[i]) total += std::exp(logits[i] / temperature);
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const double p = kept[i] ? std::exp(logits[i] / temperature) / total : 0.0;
      EXPECT_NEAR(share[i], p, 5.0 * std::sqrt(p * (1.0 - p) / count)) << "id " << i;
    }
  }

  static SamplingParams greedy() {
    SamplingParams sampling;
    sampling.temperature = 0.0F;
    return sampling;
  }
  static SamplingParams at_temperature(float temperature) {
    SamplingParams sampling;
    sampling.temperature = temperature;
    sampling.seed = 11;
    return sampling;
  }

  std::vector<TokenId> never_emit_;
  HostStep step_{options()};
  StepPlan next_;
};

const std::vector<float> kLogits = {1.0F, 3.0F, -2.0F, 2.5F, 0.0F, 1.5F};

TEST_F(SamplerTest, GreedyTakesTheBestAndTheLowerIdOfEquals) {
  admit(greedy());
  EXPECT_EQ(draw(kLogits).token, 1);
  EXPECT_EQ(draw({-kInf, 2.0F, 5.0F, 5.0F, 5.0F}).token, 2);
  EXPECT_EQ(draw({-7.0F, -7.0F}).token, 0);
}

TEST_F(SamplerTest, GreedyPassesOverNan) {
  admit(greedy());
  EXPECT_EQ(draw({std::nanf(""), 1.0F, std::nanf(""), 2.0F}).token, 3);
}

TEST_F(SamplerTest, DrawsFollowTheSoftmax) {
  const std::vector<bool> all(kLogits.size(), true);
  expect_softmax(shares(at_temperature(1.0F), kLogits), kLogits, 1.0, all);
  expect_softmax(shares(at_temperature(0.5F), kLogits), kLogits, 0.5, all);
  expect_softmax(shares(at_temperature(3.0F), kLogits), kLogits, 3.0, all);
}

TEST_F(SamplerTest, RareIdsAreDrawnAsOftenAsTheyShould) {
  // 4000 ids of one part in 20000 each beside one of 80 %: the dismissal of unlikely ids is exact.
  std::vector<float> logits(4001, 0.0F);
  logits[7] = static_cast<float>(std::log(16000.0));
  int rare = 0;
  constexpr int kDraws = 5000;
  for (int i = 0; i < kDraws; ++i) {
    admit(at_temperature(1.0F), i);
    rare += draw(logits).token != 7 ? 1 : 0;
  }
  EXPECT_NEAR(rare / double{kDraws}, 0.2, 5.0 * std::sqrt(0.16 / kDraws));
}

TEST_F(SamplerTest, DrawIsAFunctionOfSeedAndPosition) {
  const std::vector<float> flat(1000, 0.0F);
  SamplingParams sampling = at_temperature(1.0F);
  const auto draw_at = [&](std::uint64_t seed, std::int32_t position) {
    sampling.seed = seed;
    admit(sampling, position);
    return draw(flat).token;
  };
  EXPECT_EQ(draw_at(1, 5), draw_at(1, 5));
  int equal = 0;
  for (int i = 0; i < 50; ++i) equal += draw_at(1, i) == draw_at(2, i) ? 1 : 0;
  for (int i = 0; i < 50; ++i) equal += draw_at(1, i) == draw_at(1, i + 1) ? 1 : 0;
  EXPECT_LT(equal, 5) << "one in a thousand agrees by chance";
}

TEST_F(SamplerTest, SmallChangesOfLogitsRarelyChangeADraw) {
  std::vector<float> logits(1000);
  for (std::size_t i = 0; i < logits.size(); ++i)
    logits[i] = static_cast<float>(uniform_double(random_at(4, i)) * 8.0);
  std::vector<float> nudged = logits;
  for (std::size_t i = 0; i < logits.size(); ++i)
    nudged[i] += static_cast<float>(uniform_double(random_at(5, i)) * 1e-3);
  int changed = 0;
  for (int i = 0; i < 1000; ++i) {
    admit(at_temperature(1.0F), i);
    const TokenId before = draw(logits).token;
    admit(at_temperature(1.0F), i);
    changed += draw(nudged).token != before ? 1 : 0;
  }
  EXPECT_LT(changed, 5);
}

TEST_F(SamplerTest, TopKKeepsTheBestAndLowerIdsOfEquals) {
  SamplingParams sampling = at_temperature(1.0F);
  sampling.top_k = 3;
  expect_softmax(shares(sampling, kLogits), kLogits, 1.0, {false, true, false, true, false, true});
  const std::vector<float> flat(6, 1.0F);
  expect_softmax(shares(sampling, flat), flat, 1.0, {true, true, true, false, false, false});
  sampling.top_k = 1;
  admit(sampling);
  EXPECT_EQ(draw(kLogits).token, 1);
}

TEST_F(SamplerTest, TopPKeepsTheSmallestSetThatReachesTheShare) {
  // Probabilities 0.5, 0.25, 0.15, 0.1.
  std::vector<float> logits;
  for (const double p : {0.1, 0.5, 0.15, 0.25}) logits.push_back(static_cast<float>(std::log(p)));
  SamplingParams sampling = at_temperature(1.0F);
  sampling.top_p = 0.74F;
  expect_softmax(shares(sampling, logits), logits, 1.0, {false, true, false, true});
  sampling.top_p = 0.76F;
  expect_softmax(shares(sampling, logits), logits, 1.0, {false, true, true, true});
  sampling.top_p = 1e-6F;
  admit(sampling);
  EXPECT_EQ(draw(logits).token, 1) << "one id is always left";
}

TEST_F(SamplerTest, TopPOfEqualIdsKeepsTheLowerOnes) {
  const std::vector<float> flat(8, -3.0F);
  SamplingParams sampling = at_temperature(1.0F);
  sampling.top_p = 0.45F;  // four of eight reach it
  expect_softmax(shares(sampling, flat), flat, 1.0,
                 {true, true, true, true, false, false, false, false});
}

TEST_F(SamplerTest, MinPKeepsWhatIsNearTheBestAfterTemperature) {
  std::vector<float> logits;
  for (const double p : {0.6, 0.25, 0.1, 0.05}) logits.push_back(static_cast<float>(std::log(p)));
  SamplingParams sampling = at_temperature(1.0F);
  sampling.min_p = 0.2F;  // 0.12 and above
  expect_softmax(shares(sampling, logits), logits, 1.0, {true, true, false, false});
  sampling.temperature = 2.0F;  // ratios become square roots: 0.408 stays, 0.289 stays
  expect_softmax(shares(sampling, logits), logits, 2.0, {true, true, true, true});
  sampling.min_p = 1.0F;
  admit(sampling);
  EXPECT_EQ(draw(logits).token, 0);
}

TEST_F(SamplerTest, FiltersCombine) {
  std::vector<float> logits;
  for (const double p : {0.4, 0.3, 0.2, 0.1}) logits.push_back(static_cast<float>(std::log(p)));
  SamplingParams sampling = at_temperature(1.0F);
  sampling.top_k = 3;     // of 0.4, 0.3, 0.2 together 0.9 ...
  sampling.top_p = 0.7F;  // ... the first two are 0.78
  expect_softmax(shares(sampling, logits), logits, 1.0, {true, true, false, false});
}

// The kept set, worked out the slow way by a full sort.
std::vector<bool> kept_by_sorting(const std::vector<float>& logits, const SamplingParams& s) {
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  const auto weight = [&](std::size_t id) {
    return std::exp((static_cast<double>(logits[id]) - logits[order[0]]) / s.temperature);
  };
  while (weight(order.back()) < static_cast<double>(s.min_p)) order.pop_back();
  if (s.top_k > 0) order.resize(std::min(order.size(), static_cast<std::size_t>(s.top_k)));
  double total = 0.0;
  for (const std::size_t id : order) total += weight(id);
  std::vector<bool> kept(logits.size(), false);
  double reached = 0.0;
  for (const std::size_t id : order) {
    if (reached >= static_cast<double>(s.top_p) * total) break;
    kept[id] = true;
    reached += weight(id);
  }
  return kept;
}

TEST_F(SamplerTest, LargeVocabulariesKeepTheSameSetAsAFullSort) {
  constexpr std::size_t kVocab = 5000;
  for (int round = 0; round < 12; ++round) {
    std::vector<float> logits(kVocab);
    const double spread = round % 3 == 0 ? 0.5 : 6.0;
    for (std::size_t i = 0; i < kVocab; ++i) {
      const auto key = static_cast<std::uint64_t>(round);
      logits[i] = static_cast<float>(spread * (uniform_double(random_at(key, 3 * i)) +
                                               uniform_double(random_at(key, 3 * i + 1)) -
                                               uniform_double(random_at(key, 3 * i + 2))));
    }
    SamplingParams sampling = at_temperature(round % 2 == 0 ? 1.0F : 0.6F);
    sampling.top_p = round % 4 == 0 ? 1.0F : 0.2F + 0.06F * static_cast<float>(round);
    sampling.top_k = round % 3 == 1 ? 40 * round : 0;
    sampling.min_p = round % 4 < 2 ? 0.05F : 0.0F;
    const std::vector<bool> kept = kept_by_sorting(logits, sampling);
    const auto size = std::count(kept.begin(), kept.end(), true);
    // A draw from the kept set renormalised must equal a draw with the others masked.
    for (int i = 0; i < 40; ++i) {
      admit(sampling, i);
      const TokenId token = draw(logits).token;
      EXPECT_TRUE(kept[static_cast<std::size_t>(token)]) << "round " << round;
      std::vector<float> masked = logits;
      for (std::size_t id = 0; id < kVocab; ++id)
        if (!kept[id]) masked[id] = -kInf;
      admit(at_temperature(sampling.temperature), i);
      EXPECT_EQ(draw(masked).token, token) << "round " << round << ", " << size << " ids kept";
    }
  }
}

TEST_F(SamplerTest, PenaltiesFollowTheirDefinitions) {
  // Prompt: 0, 1. Generated: 1, 3, 3.
  const std::vector<TokenId> history = {0, 1, 1, 3, 3};
  // The smallest bias that makes id 5 (logit 0, never seen) win shows what id `i` was worth.
  const auto worth = [&](SamplingParams sampling, TokenId id) {
    float low = -50.0F;
    float high = 50.0F;
    for (int i = 0; i < 40; ++i) {
      const float middle = 0.5F * (low + high);
      std::vector<float> logits(6, -kInf);
      logits[static_cast<std::size_t>(id)] = kLogits[static_cast<std::size_t>(id)];
      logits[5] = middle;
      admit(sampling, 0, history, 2);
      (draw(logits).token == 5 ? high : low) = middle;
    }
    return 0.5 * (static_cast<double>(low) + static_cast<double>(high));
  };
  SamplingParams sampling = greedy();
  sampling.presence_penalty = 0.5F;
  EXPECT_NEAR(worth(sampling, 0), 1.0, 1e-4) << "prompt tokens do not count";
  EXPECT_NEAR(worth(sampling, 1), 2.5, 1e-4);
  EXPECT_NEAR(worth(sampling, 3), 2.0, 1e-4) << "once, however often";
  sampling = greedy();
  sampling.frequency_penalty = 0.5F;
  EXPECT_NEAR(worth(sampling, 1), 2.5, 1e-4);
  EXPECT_NEAR(worth(sampling, 3), 1.5, 1e-4) << "each time";
  sampling = greedy();
  sampling.repetition_penalty = 2.0F;
  EXPECT_NEAR(worth(sampling, 0), 0.5, 1e-4) << "prompt tokens count";
  EXPECT_NEAR(worth(sampling, 3), 1.25, 1e-4);
  EXPECT_NEAR(worth(sampling, 2), -2.0, 1e-4) << "not seen";
  sampling.frequency_penalty = 1.0F;
  EXPECT_NEAR(worth(sampling, 3), 2.5 / 2.0 - 2.0, 1e-4) << "repetition first";
}

TEST_F(SamplerTest, DrawnTokensEnterTheHistory) {
  SamplingParams sampling = greedy();
  sampling.frequency_penalty = 1.0F;
  admit(sampling);
  const std::vector<float> logits = {3.0F, 2.5F, 1.2F};
  std::vector<TokenId> drawn;
  for (int i = 0; i < 5; ++i) drawn.push_back(draw(logits).token);
  EXPECT_EQ(drawn, (std::vector<TokenId>{0, 1, 0, 1, 2}));
}

TEST_F(SamplerTest, RepetitionPenaltyMakesNegativeLogitsMoreNegative) {
  SamplingParams sampling = greedy();
  sampling.repetition_penalty = 2.0F;
  admit(sampling, 0, {0}, 1);
  EXPECT_EQ(draw({-1.0F, -1.5F}).token, 1);
}

TEST_F(SamplerTest, LogitBiasMovesAndBans) {
  SamplingParams sampling = greedy();
  sampling.logit_bias = {{2, 100.0F}, {1, -100.0F}, {999, 5.0F}};
  admit(sampling);
  EXPECT_EQ(draw(kLogits).token, 2);
  sampling.logit_bias = {{1, -100.0F}};
  admit(sampling);
  EXPECT_EQ(draw(kLogits).token, 3);
}

TEST_F(SamplerTest, StopIdsWaitForMinTokens) {
  SamplingParams sampling = greedy();
  sampling.stop_ids = {1, 3};
  sampling.min_tokens = 2;
  admit(sampling);
  EXPECT_EQ(draw(kLogits).token, 5);
  EXPECT_EQ(draw(kLogits).token, 5);
  const RowResult third = draw(kLogits);
  EXPECT_EQ(third.token, 1);
  EXPECT_EQ(third.finish, SlotFinish::kStopId);
}

TEST_F(SamplerTest, IgnoreEosMasksStopIdsForGood) {
  SamplingParams sampling = greedy();
  sampling.stop_ids = {1};
  sampling.ignore_eos = true;
  admit(sampling);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(draw(kLogits).token, 3);
}

TEST_F(SamplerTest, ChangeReplacesSamplingOnly) {
  admit(greedy());
  EXPECT_EQ(draw(kLogits).token, 1);
  SlotUpdate update;
  update.op = SlotOp::kChange;
  update.slot = 1;
  update.sampling = greedy();
  update.sampling.frequency_penalty = 2.0F;
  next_.slots.push_back(update);
  EXPECT_EQ(draw(kLogits).token, 3) << "the token drawn before counts";
}

TEST_F(SamplerTest, MaskAllowsOnlyItsBits) {
  std::vector<float> logits(70, 1.0F);
  logits[3] = 9.0F;
  LogitsRow row;
  row.mask_index = 1;
  std::vector<std::uint32_t> masks(6, 0xffffffffU);  // two masks of three words
  masks[3] = masks[4] = 0;
  masks[5] = 1U << 4;  // id 68
  admit(greedy());
  EXPECT_EQ(draw(logits, row, masks).token, 68);
  row.mask_index = 0;
  EXPECT_EQ(draw(logits, row, masks).token, 3);
}

TEST_F(SamplerTest, WithNothingLeftTheSequenceEnds) {
  SamplingParams sampling = at_temperature(1.0F);
  sampling.stop_ids = {4};
  admit(sampling);
  const RowResult result = draw({std::nanf(""), -kInf, std::nanf(""), -kInf, -kInf});
  EXPECT_EQ(result.token, 4);
  EXPECT_EQ(result.finish, SlotFinish::kStopId);
}

TEST_F(SamplerTest, LogprobsAreRawWithRankAndBest) {
  SamplingParams sampling = greedy();
  sampling.temperature = 0.25F;
  sampling.top_k = 1;
  sampling.logit_bias = {{1, -100.0F}};
  never_emit_ = {3};
  LogitsRow row;
  row.top_n = 3;
  admit(sampling);
  const RowResult result = draw(kLogits, row);
  double total = 0.0;
  for (const float logit : kLogits) total += std::exp(static_cast<double>(logit));
  const auto logprob = [&](std::size_t id) {
    return static_cast<float>(static_cast<double>(kLogits[id]) - std::log(total));
  };
  EXPECT_EQ(result.token, 5);
  EXPECT_EQ(result.rank, 3);
  ASSERT_TRUE(result.has_logprob);
  EXPECT_FLOAT_EQ(result.logprob, logprob(5));
  ASSERT_EQ(result.top.size(), 3U);
  const std::array<TokenId, 3> best = {1, 3, 5};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(result.top[i].token, best[i]);
    EXPECT_FLOAT_EQ(result.top[i].logprob, logprob(static_cast<std::size_t>(best[i])));
  }
}

TEST_F(SamplerTest, NoReportUnlessAsked) {
  admit(greedy());
  const RowResult result = draw(kLogits);
  EXPECT_FALSE(result.has_logprob);
  EXPECT_EQ(result.rank, 0);
  EXPECT_TRUE(result.top.empty());
  LogitsRow row;
  row.top_n = 0;
  EXPECT_TRUE(draw(kLogits, row).has_logprob) << "the chosen token's alone";
}

TEST_F(SamplerTest, PromptLogprobDrawsNothing) {
  admit(greedy());
  LogitsRow row;
  row.kind = LogitsKind::kPromptLogprob;
  row.asked = 2;
  const RowResult result = draw(kLogits, row);
  EXPECT_EQ(result.token, 2);
  EXPECT_EQ(result.rank, 6);
  EXPECT_EQ(step_.slot(1).num_generated, 0);
  EXPECT_EQ(step_.slot(1).last_token, kNoToken);
}

TEST_F(SamplerTest, TopListOfManyEqualsIsInIdOrder) {
  admit(greedy());
  LogitsRow row;
  row.top_n = 20;
  const RowResult result = draw(std::vector<float>(3000, 0.5F), row);
  ASSERT_EQ(result.top.size(), 20U);
  for (std::size_t i = 0; i < 20; ++i) EXPECT_EQ(result.top[i].token, static_cast<TokenId>(i));
  EXPECT_FLOAT_EQ(result.logprob, static_cast<float>(-std::log(3000.0)));
}

}  // namespace
}  // namespace strata::kernels
