#include "kernels/cuda/step_upload.h"

#include <algorithm>

#include "base/check.h"
#include "base/random.h"

namespace strata::kernels::cuda {
namespace {

StepInputs inputs_at(std::byte* device, const StepLayout& layout) {
  return {reinterpret_cast<const StepRow*>(device + layout.rows),
          reinterpret_cast<const StepLogits*>(device + layout.logits),
          reinterpret_cast<const StepSeq*>(device + layout.seqs),
          reinterpret_cast<const std::int32_t*>(device + layout.pages)};
}

bool masks_stops(const SlotState& slot) {
  return slot.sampling.ignore_eos || slot.num_generated < slot.sampling.min_tokens;
}

// The card draws where nothing but a few ids is masked, no logit is changed and no log-probability
// is asked for.
bool card_draws(const SlotState& slot, const LogitsRow& row) {
  const SamplingParams& sampling = slot.sampling;
  if (row.kind == LogitsKind::kPromptLogprob || row.top_n >= 0 || row.mask_index >= 0) return false;
  if (!sampling.logit_bias.empty() || sampling.needs_history()) return false;
  if (masks_stops(slot) && sampling.stop_ids.size() > kMostMasked) return false;
  return sampling.greedy() ||
         (sampling.top_k <= 0 && sampling.top_p >= 1.0F && sampling.min_p <= 0.0F);
}

StepLogits logits_of(const HostStep& step, std::int32_t index) {
  StepLogits logits;
  if (!step.wants_logits(index)) return logits;
  const LogitsRow& row = *step.logits_row(index);
  const RowInput& input = step.rows()[static_cast<std::size_t>(row.row)];
  const SlotState& slot = step.slot(input.slot);
  logits.row = row.row;
  if (!card_draws(slot, row)) return logits;
  logits.draw = slot.sampling.greedy() ? DrawKind::kGreedy : DrawKind::kGumbel;
  if (logits.draw == DrawKind::kGumbel) {
    logits.scale = 1.0 / static_cast<double>(slot.sampling.temperature);
    logits.key = random_at(slot.sampling.seed, static_cast<std::uint64_t>(input.position));
  }
  if (masks_stops(slot))
    std::copy(slot.sampling.stop_ids.begin(), slot.sampling.stop_ids.end(), logits.masked);
  return logits;
}

}  // namespace

StepUpload::StepUpload(const BackendOptions& options, std::byte* device)
    : layout_(make_step_layout(options)),
      max_pages_(options.max_pages_per_seq),
      device_(device),
      inputs_(inputs_at(device, layout_)) {
  for (Block& block : ring_) block.memory = PinnedBuffer("activations", layout_.bytes);
}

std::size_t StepUpload::fill(const HostStep& step, std::byte* block) const {
  auto* rows = reinterpret_cast<StepRow*>(block + layout_.rows);
  for (const RowInput& row : step.rows()) *rows++ = {row.token, row.position, row.seq};
  auto* logits = reinterpret_cast<StepLogits*>(block + layout_.logits);
  for (std::int32_t i = 0; i < step.plan().shape.logits_rows; ++i) *logits++ = logits_of(step, i);
  auto* seqs = reinterpret_cast<StepSeq*>(block + layout_.seqs);
  auto* pages = reinterpret_cast<std::int32_t*>(block + layout_.pages);
  const auto room = static_cast<std::int64_t>((layout_.bytes - layout_.pages) / sizeof(*pages));
  std::int64_t used = 0;
  for (const SeqInput& seq : step.seqs()) {
    seqs->first_row = seq.first_row;
    seqs->num_rows = seq.n_rows;
    for (std::size_t g = 0; g < kNumKvGroups; ++g) {
      const PageTable& table = *seq.tables[g];
      const auto count = static_cast<std::int64_t>(table.pages.size());
      STRATA_CHECK(used + count <= room && count <= max_pages_,
                   "page tables of step {} are longer than {}", step.plan().id, max_pages_);
      seqs->table[g] = static_cast<std::int32_t>(used);
      seqs->first_page[g] = table.first_page;
      std::copy(table.pages.begin(), table.pages.end(), pages + used);
      used += count;
    }
    ++seqs;
  }
  return layout_.pages + static_cast<std::size_t>(used) * sizeof(*pages);
}

void StepUpload::upload(const HostStep& step, const Stream& stream) {
  const Block& block = ring_[next_];
  next_ = (next_ + 1) % ring_.size();
  block.copied.wait();
  const std::size_t bytes = fill(step, block.memory.data());
  filled_ = reinterpret_cast<const StepLogits*>(block.memory.data() + layout_.logits);
  check(cudaMemcpyAsync(device_, block.memory.data(), bytes, cudaMemcpyHostToDevice, stream.get()),
        "uploading a step");
  block.copied.record(stream);
}

}  // namespace strata::kernels::cuda
