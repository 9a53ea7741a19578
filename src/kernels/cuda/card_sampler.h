// CardSampler: draws tokens on the card, as HostSampler would from the same logits, and hands the
// rows that the card does not draw to it. Launches what the rows of a step ask for and no more:
// plain draws are two kernels.
//
// Owned by the backend; compute thread only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "kernels/cuda/cuda_layout.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/step_upload.h"
#include "kernels/host/host_step.h"
#include "kernels/host/sampler.h"

namespace strata::kernels::cuda {

// What some row of a call asks for.
struct DrawsAsked {
  bool changes = false;                                  // logit_bias or penalties
  bool filters = false, counts = false, masses = false;  // any; top-k; top-p
  bool reports = false, best = false;  // log-probabilities; of the best ids as well
  void add(const StepLogits& how);
};
// Everything that rows are drawn and reported by, on `stream`.
void launch_draws(cudaStream_t stream, const DrawsAsked& asked, const DrawArgs& args);

class CardSampler {
 public:
  // `memory` is the activations arena of `layout`, with room for `head_rows` rows of logits.
  CardSampler(const ActivationLayout& layout, std::byte* memory, std::int32_t vocab,
              const std::vector<TokenId>& never_emit, std::int32_t head_rows, const Stream& stream);

  void set_masks(std::span<const std::uint32_t> masks) { host_.set_masks(masks); }
  void clear_masks() { host_.clear_masks(); }

  // Logits rows [first, first + count) of `step`, whose logits are the arena's. Waits for the card
  // and records a result for each row that wants one.
  void sample(HostStep& step, const StepUpload& upload, std::int32_t first, std::int32_t count);

 private:
  // Queues the copy of row `row` of the call, to its place on the host.
  std::span<float> fetch_logits(std::int32_t row) const;
  RowResult result_of(const StepLogits& how, std::int32_t row) const;

  const std::int32_t vocab_;
  const Stream& stream_;
  DrawArgs args_{};  // but for the inputs and the rows
  HostSampler host_;
  PinnedBuffer logits_;   // f32 [head rows, vocab]
  PinnedBuffer drawn_;    // DrawPart [head rows]
  PinnedBuffer reports_;  // DrawReport [head rows]
};

}  // namespace strata::kernels::cuda
