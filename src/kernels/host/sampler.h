// HostSampler: draws tokens from rows of float32 logits, for the backends on the host.
//
// One row: raw log-probabilities if asked; then ids that may never be emitted, the row's late mask
// and (under min_tokens or ignore_eos) stop ids are masked; logit_bias; repetition, frequency and
// presence penalties; temperature 0 takes the maximum (ties to the lower id), else temperature,
// min-p, top-k, top-p and a draw. If no id with a finite logit is left, the slot's first stop id
// is taken (id 0 without one) and a line is logged: the sequence ends instead of the server.
//
// The draw is the maximum of logit / temperature + Gumbel noise, and the noise of an id is a
// function of (seed, position of the row, id) alone. So a draw depends on neither batch, step,
// draft nor on how the vocabulary is split, and small changes of logits rarely change it.
//
// Owned by a backend; compute thread only. Linear in the vocabulary, nothing is fully sorted.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "kernels/host/host_step.h"

namespace strata::kernels {

// Candidates whose score is further below the best are left out where candidates are filtered at
// all: 200,000 ids beyond this distance have a share of 1e-12 together.
inline constexpr double kFarthestScore = 40.0;

class HostSampler {
 public:
  HostSampler(std::int32_t vocab, std::vector<TokenId> never_emit);

  // Late masks of this step: mask_index-major, (vocab + 31) / 32 words each, bit set = allowed.
  void set_masks(std::span<const std::uint32_t> masks);
  void clear_masks() { masks_.clear(); }

  // Handles logits row `index` of the step: records its result in `step`. `logits` [vocab] is
  // overwritten. Rows must come in order of `index`; call it for every index of the bucket, rows
  // for which step.wants_logits(index) is false never read `logits` (it may be empty).
  void process(HostStep& step, std::int32_t index, std::span<float> logits);

 private:
  struct Candidate {
    double score;  // logit / temperature
    TokenId id;
  };

  void mask(const SlotState& slot, const LogitsRow& row, std::span<float> logits) const;
  TokenId choose(const SlotState& slot, std::int32_t position, std::span<const float> logits);
  void collect(const SamplingParams& sampling, double best, std::span<const float> logits);
  void keep_top_p(double top_p, double best);
  void report(std::int32_t top_n, RowResult& result);

  const std::int32_t vocab_;
  const std::vector<TokenId> never_emit_;
  std::vector<std::uint32_t> masks_;
  std::vector<float> raw_;             // scratch: the row as the head made it
  std::vector<Candidate> candidates_;  // scratch
};

}  // namespace strata::kernels
