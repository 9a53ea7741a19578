#include "kernels/cuda/step_upload.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/random.h"
#include "kernels/host/sampler.h"

namespace strata::kernels::cuda {
namespace {

StepInputs inputs_at(std::byte* device, const StepLayout& layout) {
  return {reinterpret_cast<const StepRow*>(device + layout.rows),
          reinterpret_cast<const StepLogits*>(device + layout.logits),
          reinterpret_cast<const StepSeq*>(device + layout.seqs),
          reinterpret_cast<const std::int32_t*>(device + layout.pages),
          reinterpret_cast<const StepChange*>(device + layout.changes)};
}

void set_filters(const SamplingParams& sampling, StepLogits& logits) {
  logits.filtered = sampling.top_k > 0 || sampling.top_p < 1.0F || sampling.min_p > 0.0F;
  logits.top_k = std::max(sampling.top_k, 0);
  logits.top_p = static_cast<double>(sampling.top_p);
  logits.reach =
      sampling.min_p > 0.0F ? std::log(static_cast<double>(sampling.min_p)) : -kFarthestScore;
}

// Tokens that earlier rows of a verify span will have drawn when the row is.
std::int32_t drawn_before(const HostStep& step, const LogitsRow& row) {
  const RowInput& input = step.rows()[static_cast<std::size_t>(row.row)];
  return row.kind == LogitsKind::kVerify
             ? row.row - step.seqs()[static_cast<std::size_t>(input.seq)].first_row
             : 0;
}

}  // namespace

StepChange* StepUpload::change_of(TokenId id) {
  std::int32_t& place = place_of_change_[static_cast<std::size_t>(id)];
  if (place < 0) {
    if (num_changes_ == kMostChanges) return nullptr;
    place = num_changes_++;
    changes_[place] = StepChange{.id = id};
  }
  return changes_ + place;
}

bool StepUpload::add_changes(const SlotState& slot, bool masks_stops) {
  const SamplingParams& sampling = slot.sampling;
  const auto known = [this](TokenId id) {
    return id >= 0 && static_cast<std::size_t>(id) < place_of_change_.size();
  };
  if (masks_stops && sampling.stop_ids.size() > kMostMasked) {
    for (const TokenId id : sampling.stop_ids) {
      if (!known(id)) continue;
      StepChange* change = change_of(id);
      if (change == nullptr) return false;
      change->bias = -std::numeric_limits<float>::infinity();
    }
  }
  for (const auto& [id, bias] : sampling.logit_bias) {
    if (!known(id)) continue;
    StepChange* change = change_of(id);
    // Two biases would be rounded once, not twice.
    if (change == nullptr || (change->bias != 0.0F && std::isfinite(change->bias))) return false;
    change->bias += bias;
  }
  if (!sampling.needs_history()) return true;
  for (const auto& [id, count] : slot.history) {
    if (count.generated == 0 && sampling.repetition_penalty == 1.0F) continue;
    StepChange* change = change_of(id);
    if (change == nullptr) return false;
    change->repetition = sampling.repetition_penalty;
    if (count.generated == 0) continue;
    change->frequency = sampling.frequency_penalty * static_cast<float>(count.generated);
    change->presence = sampling.presence_penalty;
  }
  return true;
}

// The host's sampler keeps what the card has no room for, rows with a late mask, and rows whose
// history is not known yet.
StepLogits StepUpload::logits_of(const HostStep& step, std::int32_t index) {
  StepLogits logits;
  if (!step.wants_logits(index)) return logits;
  const LogitsRow& row = *step.logits_row(index);
  const RowInput& input = step.rows()[static_cast<std::size_t>(row.row)];
  const SlotState& slot = step.slot(input.slot);
  const SamplingParams& sampling = slot.sampling;
  const bool prompt = row.kind == LogitsKind::kPromptLogprob;
  logits.row = row.row;
  if (row.top_n > kMostTop || (!prompt && row.mask_index >= 0)) return logits;
  StepLogits drawn = logits;
  drawn.top_n = prompt ? std::max(row.top_n, 0) : row.top_n;
  if (prompt) {
    drawn.draw = DrawKind::kNone;
    drawn.asked = row.asked;
    return drawn;
  }
  const std::int32_t before = drawn_before(step, row);
  if (before > 0 && sampling.needs_history()) return logits;
  const bool masks_stops = sampling.ignore_eos || slot.num_generated + before < sampling.min_tokens;
  first_change_ = num_changes_;
  const bool fits = add_changes(slot, masks_stops);
  for (std::int32_t i = first_change_; i < num_changes_; ++i)
    place_of_change_[static_cast<std::size_t>(changes_[i].id)] = -1;
  if (!fits) {
    num_changes_ = first_change_;
    return logits;
  }
  drawn.first_change = first_change_;
  drawn.num_changes = num_changes_ - first_change_;
  drawn.draw = sampling.greedy() ? DrawKind::kGreedy : DrawKind::kGumbel;
  if (drawn.draw == DrawKind::kGumbel) {
    drawn.scale = 1.0 / static_cast<double>(sampling.temperature);
    drawn.key = random_at(sampling.seed, static_cast<std::uint64_t>(input.position));
    set_filters(sampling, drawn);
  }
  if (masks_stops && sampling.stop_ids.size() <= kMostMasked)
    std::copy(sampling.stop_ids.begin(), sampling.stop_ids.end(), drawn.masked);
  return drawn;
}

StepUpload::StepUpload(const BackendOptions& options, std::int32_t vocab, std::byte* device)
    : layout_(make_step_layout(options)),
      max_pages_(options.max_pages_per_seq),
      device_(device),
      inputs_(inputs_at(device, layout_)),
      place_of_change_(static_cast<std::size_t>(vocab), -1) {
  for (Block& block : ring_) block.memory = PinnedBuffer("activations", layout_.bytes);
}

std::size_t StepUpload::fill(const HostStep& step, std::byte* block) {
  auto* rows = reinterpret_cast<StepRow*>(block + layout_.rows);
  for (const RowInput& row : step.rows()) *rows++ = {row.token, row.position, row.seq};
  changes_ = reinterpret_cast<StepChange*>(block + layout_.changes);
  num_changes_ = 0;
  auto* logits = reinterpret_cast<StepLogits*>(block + layout_.logits);
  for (std::int32_t i = 0; i < step.plan().shape.logits_rows; ++i) *logits++ = logits_of(step, i);
  auto* seqs = reinterpret_cast<StepSeq*>(block + layout_.seqs);
  auto* pages = reinterpret_cast<std::int32_t*>(block + layout_.pages);
  const auto room = static_cast<std::int64_t>((layout_.changes - layout_.pages) / sizeof(*pages));
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
  if (num_changes_ > 0)
    check(cudaMemcpyAsync(device_ + layout_.changes, changes_,
                          static_cast<std::size_t>(num_changes_) * sizeof(StepChange),
                          cudaMemcpyHostToDevice, stream.get()),
          "uploading a step");
  block.copied.record(stream);
}

}  // namespace strata::kernels::cuda
