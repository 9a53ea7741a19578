#include "kernels/cuda/step_upload.h"

#include <algorithm>

#include "base/check.h"

namespace strata::kernels::cuda {
namespace {

StepInputs inputs_at(std::byte* device, const StepLayout& layout) {
  return {reinterpret_cast<const StepRow*>(device + layout.rows),
          reinterpret_cast<const std::int32_t*>(device + layout.logits_rows),
          reinterpret_cast<const StepSeq*>(device + layout.seqs),
          reinterpret_cast<const std::int32_t*>(device + layout.pages)};
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
  auto* logits_rows = reinterpret_cast<std::int32_t*>(block + layout_.logits_rows);
  for (std::int32_t i = 0; i < step.plan().shape.logits_rows; ++i)
    logits_rows[i] = step.wants_logits(i) ? step.logits_row(i)->row : -1;
  auto* seqs = reinterpret_cast<StepSeq*>(block + layout_.seqs);
  auto* pages = reinterpret_cast<std::int32_t*>(block + layout_.pages);
  const auto room = static_cast<std::int64_t>((layout_.bytes - layout_.pages) / sizeof(*pages));
  std::int64_t used = 0;
  for (const SeqInput& seq : step.seqs()) {
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
  check(cudaMemcpyAsync(device_, block.memory.data(), bytes, cudaMemcpyHostToDevice, stream.get()),
        "uploading a step");
  block.copied.record(stream);
}

}  // namespace strata::kernels::cuda
