// What the card keeps of a row's candidates (kernels/cuda/draw_cut.h), computed here as its kernels
// do, against a full sort and against HostSampler. Needs no card.
#include "kernels/cuda/draw_cut.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/kernels/draw_cases.h"

namespace strata::test {
namespace {

using namespace kernels::cuda;

constexpr float kInf = std::numeric_limits<float>::infinity();

class Selection {
 public:
  Selection(const std::vector<float>& logits, const SamplingParams& sampling)
      : logits_(logits), scale_(1.0 / static_cast<double>(sampling.temperature)) {
    for (const float logit : logits) cut_.best = std::max(cut_.best, order_of(logit));
    if (!has_candidates(cut_)) return;
    const double reach = sampling.min_p > 0.0F ? std::log(static_cast<double>(sampling.min_p))
                                               : -kernels::kFarthestScore;
    narrow(cut_, lowest_in_reach(cut_.best, scale_, reach), kEveryId);
    if (sampling.top_k > 0)
      find({}, [&](std::uint64_t total) { return wanted_count(sampling.top_k, total); });
    if (sampling.top_p < 1.0F)
      find({.mass = true}, [&](std::uint64_t total) {
        return wanted_mass(static_cast<double>(sampling.top_p), total);
      });
  }
  const DrawCut& cut() const { return cut_; }
  std::vector<bool> kept() const {
    std::vector<bool> kept;
    for (std::size_t id = 0; id < logits_.size(); ++id)
      kept.push_back(order_of(logits_[id]) != 0 &&
                     keeps(cut_, order_of(logits_[id]), static_cast<std::int32_t>(id)));
    return kept;
  }

 private:
  template <class Wanted>
  void find(CutScan scan, Wanted&& wanted) {
    for (; scan.digit < kCutDigits; ++scan.digit) {
      std::vector<std::uint64_t> bins(kCutBins);
      for (std::size_t id = 0; id < logits_.size(); ++id) {
        const std::uint32_t order = order_of(logits_[id]);
        bins[cut_digit(order, scan.digit)] +=
            cut_value(cut_, scan, order, static_cast<std::int32_t>(id), scale_);
      }
      if (scan.digit == 0)
        cut_.wanted = wanted(std::accumulate(bins.begin(), bins.end(), std::uint64_t{0}));
      CutBin bin{kCutBins - 1, 0, 0};
      while (bin.above + bins[bin.digit] < cut_.wanted) bin.above += bins[bin.digit--];
      bin.value = bins[bin.digit];
      take_digit(cut_, bin);
      if (scan.last_digit()) end(kept_equals(cut_, scan, bin, scale_));
    }
    cut_.digits = 0;
  }
  void end(std::uint64_t kept) {
    std::int32_t last = kEveryId;
    for (std::size_t id = 0; kept > 0 && id < logits_.size(); ++id)
      if (order_of(logits_[id]) == cut_.digits && --kept == 0) last = static_cast<std::int32_t>(id);
    narrow(cut_, cut_.digits, last);
  }

  const std::vector<float>& logits_;
  const double scale_;
  DrawCut cut_;
};

std::vector<bool> kept_by_sorting(const std::vector<float>& logits, const SamplingParams& s) {
  std::vector<std::size_t> order;
  for (std::size_t id = 0; id < logits.size(); ++id)
    if (logits[id] > -kInf) order.push_back(id);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  const double scale = 1.0 / static_cast<double>(s.temperature);
  const auto distance = [&](std::size_t id) {
    return static_cast<double>(logits[id]) * scale - static_cast<double>(logits[order[0]]) * scale;
  };
  const double reach = s.min_p > 0.0F ? std::log(static_cast<double>(s.min_p)) : -40.0;
  while (distance(order.back()) < reach) order.pop_back();
  if (s.top_k > 0) order.resize(std::min(order.size(), static_cast<std::size_t>(s.top_k)));
  const auto weight = [&](std::size_t id) {
    return static_cast<double>(std::exp(static_cast<float>(distance(id))));
  };
  double total = 0.0;
  for (const std::size_t id : order) total += weight(id);
  std::vector<bool> kept(logits.size(), false);
  double reached = 0.0;
  for (const std::size_t id : order) {
    if (s.top_p < 1.0F && reached >= static_cast<double>(s.top_p) * total) break;
    kept[id] = true;
    reached += weight(id);
  }
  return kept;
}

TEST(DrawCut, OrdersAreThoseOfFloats) {
  const std::vector<float> ascending = {std::numeric_limits<float>::lowest(),
                                        -2.0F,
                                        -1.0F,
                                        -std::numeric_limits<float>::denorm_min(),
                                        0.0F,
                                        std::numeric_limits<float>::denorm_min(),
                                        1.0F,
                                        std::nextafter(1.0F, 2.0F),
                                        std::numeric_limits<float>::max(),
                                        kInf};
  for (std::size_t i = 0; i < ascending.size(); ++i) {
    EXPECT_EQ(logit_of(order_of(ascending[i])), ascending[i]);
    EXPECT_GT(order_of(ascending[i]), i == 0 ? 0U : order_of(ascending[i - 1]));
  }
  EXPECT_EQ(order_of(-0.0F), order_of(0.0F));
  EXPECT_EQ(order_of(kInf), kInfiniteOrder);
  for (const float none : {-kInf, std::nanf(""), -std::nanf("")}) EXPECT_EQ(order_of(none), 0U);
}

TEST(DrawCut, KeepsWhatAFullSortKeeps) {
  for (const std::int32_t vocab : {3, 384, 20000}) {
    for (const LogitsCase kind : kDrawable) {
      const std::vector<float> logits = made_logits(kind, vocab, 7);
      for (const SamplingParams& sampling : made_filters()) {
        const std::vector<bool> wanted = kept_by_sorting(logits, sampling);
        const std::vector<bool> kept = Selection(logits, sampling).kept();
        EXPECT_EQ(kept, wanted) << std::count(kept.begin(), kept.end(), true) << " instead of "
                                << std::count(wanted.begin(), wanted.end(), true) << " of case "
                                << static_cast<int>(kind) << ", " << vocab << " ids, top_k "
                                << sampling.top_k << ", top_p " << sampling.top_p;
      }
    }
  }
}

// A draw among what is kept is HostSampler's draw.
TEST(DrawCut, DrawsAreTheHosts) {
  constexpr std::int32_t kVocab = 2000;
  for (const LogitsCase kind : kDrawable) {
    const std::vector<float> logits = made_logits(kind, kVocab, 9);
    for (const SamplingParams& sampling : made_filters()) {
      const std::vector<bool> kept = Selection(logits, sampling).kept();
      std::vector<float> masked = logits;
      for (std::size_t id = 0; id < masked.size(); ++id)
        if (!kept[id]) masked[id] = -kInf;
      SamplingParams plain;
      plain.temperature = sampling.temperature;
      for (int position = 0; position < 40; ++position)
        EXPECT_EQ(host_draw(masked, plain, position).token,
                  host_draw(logits, sampling, position).token)
            << "case " << static_cast<int>(kind) << ", top_k " << sampling.top_k << ", top_p "
            << sampling.top_p;
    }
  }
}

TEST(DrawCut, RowsWithoutCandidatesAreKnown) {
  for (const LogitsCase kind : {LogitsCase::kNone, LogitsCase::kInf})
    EXPECT_FALSE(
        has_candidates(Selection(made_logits(kind, 384, 1), filtered(1.0F, 3, 0.5F, 0.0F)).cut()));
}

// A filtered draw from the whole vocabulary has masses that add up to less than 2^64.
TEST(DrawCut, MassesOfTheLargestVocabularyHaveRoom) {
  const std::uint64_t one = mass_of(order_of(1.0F), order_of(1.0F), 1.0);
  EXPECT_EQ(one, std::uint64_t{1} << 44);
  EXPECT_EQ(one * (std::uint64_t{1} << 19) >> 19, one);
  EXPECT_EQ(mass_of(order_of(-60.0F), order_of(1.0F), 1.0), 0U);
}

}  // namespace
}  // namespace strata::test
