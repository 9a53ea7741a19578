// Writes a step's StepInputs: into one of three page-locked blocks, then to the device in one copy,
// and one more where logits are changed.
// Compute thread only.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/step_inputs.h"
#include "kernels/host/host_step.h"

namespace strata::kernels::cuda {

class StepUpload {
 public:
  // `device` has make_step_layout(options).bytes.
  StepUpload(const BackendOptions& options, std::int32_t vocab, std::byte* device);

  const StepInputs& inputs() const { return inputs_; }
  // Logits row `index` of the step that was uploaded last.
  const StepLogits& logits(std::int32_t index) const { return filled_[index]; }
  // Puts the copy on `stream`; kernels behind it see the step.
  void upload(const HostStep& step, const Stream& stream);

 private:
  struct Block {
    PinnedBuffer memory;
    Event copied;
  };
  // Returns the bytes used, but for the changes.
  std::size_t fill(const HostStep& step, std::byte* block);
  StepLogits logits_of(const HostStep& step, std::int32_t index);
  // False where there is no room for them, or an id has two biases.
  bool add_changes(const SlotState& slot, bool masks_stops);
  StepChange* change_of(TokenId id);

  const StepLayout layout_;
  const std::int32_t max_pages_;  // of one sequence and group
  std::byte* const device_;
  const StepInputs inputs_;
  std::array<Block, 3> ring_;
  std::size_t next_ = 0;
  const StepLogits* filled_ = nullptr;
  StepChange* changes_ = nullptr;  // of the block that is being filled
  std::int32_t num_changes_ = 0;
  std::int32_t first_change_ = 0;              // of the row
  std::vector<std::int32_t> place_of_change_;  // [vocab], of the row's in changes_; -1: none
};

}  // namespace strata::kernels::cuda
