#include "kernels/host/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/random.h"

namespace strata::kernels {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

// Descending values; of equal ones the lower id first.
constexpr auto kBetter = [](const auto& a, const auto& b) {
  return a.score > b.score || (a.score == b.score && a.id < b.id);
};

// The lowest id of the maximum; id 0 if nothing is above -infinity. A NaN is above nothing.
std::int32_t argmax(std::span<const float> values) {
  float best = kMasked;
  std::size_t best_id = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] > best) {
      best = values[i];
      best_id = i;
    }
  }
  return static_cast<std::int32_t>(best_id);
}

// Fills `out` with the k best unmasked values, unordered. Linear: a buffer of twice the size is
// cut back to k whenever it is full, which raises the bar for the rest.
template <typename Candidate>
void select_top(std::span<const float> values, std::size_t k, std::vector<Candidate>& out) {
  out.clear();
  if (k == 0) return;
  const std::size_t room = 2 * k + 64;
  float bar = kMasked;
  const auto cut = [&] {
    std::nth_element(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(k - 1), out.end(),
                     kBetter);
    out.resize(k);
    bar = static_cast<float>(out[k - 1].score);
  };
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!(values[i] > bar)) continue;  // an equal value of a higher id is no better
    out.push_back({values[i], static_cast<TokenId>(i)});
    if (out.size() == room) cut();
  }
  if (out.size() > k) cut();
}

// The maximum of score + Gumbel noise over the candidates offered, which draws an id with
// probability proportional to exp(score).
class GumbelRace {
 public:
  GumbelRace(std::uint64_t seed, std::int32_t position)
      : key_(random_at(seed, static_cast<std::uint64_t>(position))) {}

  void offer(double score, TokenId id) {
    // noise = -log(-log(1 - v)) <= -log(v) for v in (0, 1), so this id can only win if
    // v <= exp(-gap) <= 2^-n: most ids are dismissed without a logarithm.
    const double gap = best_ - score;
    const int n = gap > 0.0 ? static_cast<int>(std::min(gap, 100.0) * 1.442695) : 0;
    if (n > 53) return;
    const std::uint64_t bits = random_at(key_, static_cast<std::uint64_t>(id)) >> 11;
    if ((bits >> (53 - n)) != 0) return;
    const double v = (static_cast<double>(bits) + 0.5) * 0x1.0p-53;
    const double total = score - std::log(-std::log1p(-v));
    if (total > best_) {
      best_ = total;
      winner_ = id;
    }
  }
  TokenId winner() const { return winner_; }

 private:
  const std::uint64_t key_;
  double best_ = -std::numeric_limits<double>::infinity();
  TokenId winner_ = kNoToken;
};

void apply_penalties(const SlotState& slot, std::span<float> logits) {
  const SamplingParams& sampling = slot.sampling;
  if (!sampling.needs_history()) return;
  for (const auto& [token, count] : slot.history) {
    float& logit = logits[static_cast<std::size_t>(token)];
    const float repetition = sampling.repetition_penalty;
    logit = logit > 0.0F ? logit / repetition : logit * repetition;
    if (count.generated == 0) continue;
    logit -= sampling.frequency_penalty * static_cast<float>(count.generated);
    logit -= sampling.presence_penalty;
  }
}

}  // namespace

HostSampler::HostSampler(std::int32_t vocab, std::vector<TokenId> never_emit)
    : vocab_(vocab), never_emit_(std::move(never_emit)) {
  for (const TokenId id : never_emit_)
    STRATA_CHECK(id >= 0 && id < vocab_, "never-emitted id {} of {}", id, vocab_);
}

void HostSampler::set_masks(std::span<const std::uint32_t> masks) {
  masks_.assign(masks.begin(), masks.end());
}

void HostSampler::process(HostStep& step, std::int32_t index, std::span<float> logits) {
  if (!step.wants_logits(index)) {
    step.skip(index);
    return;
  }
  STRATA_CHECK(logits.size() == static_cast<std::size_t>(vocab_));
  const LogitsRow& row = *step.logits_row(index);
  const RowInput& input = step.rows()[static_cast<std::size_t>(row.row)];
  const SlotState& slot = step.slot(input.slot);
  const bool prompt = row.kind == LogitsKind::kPromptLogprob;
  const bool wants_report = prompt || row.top_n >= 0;
  if (wants_report) raw_.assign(logits.begin(), logits.end());
  RowResult result;
  if (prompt) {
    result.token = row.asked;
  } else {
    mask(slot, row, logits);
    apply_penalties(slot, logits);
    result.token = choose(slot, input.position, logits);
  }
  if (wants_report) report(std::max(row.top_n, 0), result);
  if (prompt) step.record_report(index, std::move(result));
  else step.record_token(index, std::move(result));
}

// Masks and logit_bias, before penalties.
void HostSampler::mask(const SlotState& slot, const LogitsRow& row, std::span<float> logits) const {
  for (const TokenId id : never_emit_) logits[static_cast<std::size_t>(id)] = kMasked;
  if (row.mask_index >= 0) {
    const std::size_t words = (logits.size() + 31) / 32;
    const std::size_t first = static_cast<std::size_t>(row.mask_index) * words;
    STRATA_CHECK(first + words <= masks_.size(), "no late mask {}", row.mask_index);
    for (std::size_t word = 0; word < words; ++word) {
      const std::uint32_t allowed = masks_[first + word];
      if (allowed == ~0U) continue;
      const std::size_t end = std::min(logits.size(), word * 32 + 32);
      for (std::size_t i = word * 32; i < end; ++i)
        if (((allowed >> (i % 32)) & 1U) == 0) logits[i] = kMasked;
    }
  }
  const SamplingParams& sampling = slot.sampling;
  const auto known = [this](TokenId id) { return id >= 0 && id < vocab_; };
  if (sampling.ignore_eos || slot.num_generated < sampling.min_tokens)
    for (const TokenId id : sampling.stop_ids)
      if (known(id)) logits[static_cast<std::size_t>(id)] = kMasked;
  for (const auto& [id, bias] : sampling.logit_bias)
    if (known(id)) logits[static_cast<std::size_t>(id)] += bias;
}

TokenId HostSampler::choose(const SlotState& slot, std::int32_t position,
                            std::span<const float> logits) {
  const SamplingParams& sampling = slot.sampling;
  const TokenId first = argmax(logits);
  if (!std::isfinite(logits[static_cast<std::size_t>(first)])) {
    log_warn("no id can be drawn at position {}: the sequence is ended", position);
    return sampling.stop_ids.empty() ? 0 : sampling.stop_ids.front();
  }
  if (sampling.greedy()) return first;

  const double scale = 1.0 / static_cast<double>(sampling.temperature);
  const double best = static_cast<double>(logits[static_cast<std::size_t>(first)]) * scale;
  GumbelRace race(sampling.seed, position);
  race.offer(best, first);  // sets a high bar at once
  if (sampling.top_k <= 0 && sampling.top_p >= 1.0F && sampling.min_p <= 0.0F) {
    for (std::size_t i = 0; i < logits.size(); ++i)
      race.offer(static_cast<double>(logits[i]) * scale, static_cast<TokenId>(i));
    return race.winner();
  }
  collect(sampling, best, logits);
  if (sampling.top_p < 1.0F) keep_top_p(static_cast<double>(sampling.top_p), best);
  for (const Candidate& candidate : candidates_) race.offer(candidate.score, candidate.id);
  return race.winner();
}

// The candidates that min-p and top-k leave. Both keep the best of a descending order, so which
// comes first does not matter.
void HostSampler::collect(const SamplingParams& sampling, double best,
                          std::span<const float> logits) {
  const double scale = 1.0 / static_cast<double>(sampling.temperature);
  const double floor = sampling.min_p > 0.0F ? best + std::log(static_cast<double>(sampling.min_p))
                                             : best - kFarthestScore;
  if (sampling.top_k > 0) {
    select_top(logits, static_cast<std::size_t>(sampling.top_k), candidates_);
    for (Candidate& candidate : candidates_) candidate.score *= scale;
    std::erase_if(candidates_, [&](const Candidate& each) { return each.score < floor; });
    return;
  }
  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double score = static_cast<double>(logits[i]) * scale;
    if (score >= floor) candidates_.push_back({score, static_cast<TokenId>(i)});
  }
}

// Keeps the smallest set of best candidates whose share of the mass reaches `top_p`. Candidates
// are binned by their distance from the best, and only the bin in which the share is reached has
// to be sorted.
void HostSampler::keep_top_p(double top_p, double best) {
  constexpr int kBinsPerUnit = 16;
  constexpr int kBins = 64 * kBinsPerUnit;
  const auto bin_of = [&](const Candidate& each) {
    return static_cast<std::size_t>(std::min((best - each.score) * kBinsPerUnit, kBins - 1.0));
  };
  const auto mass_of = [&](const Candidate& each) {
    return static_cast<double>(std::exp(static_cast<float>(each.score - best)));
  };
  std::array<double, kBins> mass{};
  for (const Candidate& each : candidates_) mass[bin_of(each)] += mass_of(each);
  double total = 0.0;
  for (const double bin_mass : mass) total += bin_mass;

  const double wanted = top_p * total;
  double reached = 0.0;
  std::size_t bin = 0;
  while (bin + 1 < kBins && reached + mass[bin] < wanted) reached += mass[bin++];

  std::erase_if(candidates_, [&](const Candidate& each) { return bin_of(each) > bin; });
  const auto edge = std::partition(candidates_.begin(), candidates_.end(),
                                   [&](const Candidate& each) { return bin_of(each) < bin; });
  std::sort(edge, candidates_.end(), kBetter);
  auto end = edge;
  while (end != candidates_.end() && (reached < wanted || end == candidates_.begin()))
    reached += mass_of(*end++);
  candidates_.erase(end, candidates_.end());
}

// Raw log-probabilities, summed in double in id order.
void HostSampler::report(std::int32_t top_n, RowResult& result) {
  const float best = raw_[static_cast<std::size_t>(argmax(raw_))];
  double sum = 0.0;
  for (const float value : raw_) sum += std::exp(static_cast<double>(value) - best);
  const double log_total = best + std::log(sum);
  const auto logprob = [&](double value) { return static_cast<float>(value - log_total); };

  const float own = raw_[static_cast<std::size_t>(result.token)];
  result.has_logprob = true;
  result.logprob = logprob(own);
  result.rank = 1;
  for (std::size_t i = 0; i < raw_.size(); ++i)
    if (raw_[i] > own || (raw_[i] == own && i < static_cast<std::size_t>(result.token)))
      ++result.rank;

  select_top(std::span<const float>(raw_), static_cast<std::size_t>(top_n), candidates_);
  std::sort(candidates_.begin(), candidates_.end(), kBetter);
  for (const Candidate& each : candidates_) result.top.push_back({each.id, logprob(each.score)});
}

}  // namespace strata::kernels
