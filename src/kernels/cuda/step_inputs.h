// StepInputs: everything that changes from step to step, as the kernels see it. One block of device
// memory of fixed layout, written by one copy at the beginning of a step, so that the kernels'
// arguments are the same for every step of one shape.
//
//   [rows: max_rows][logits: max_logits_rows][seqs: max_slots][pages: what the step uses]
//   [changes: by a copy of their own, of what the step uses]
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/stages.h"

namespace strata::kernels::cuda {

struct StepRow {
  std::int32_t token;
  std::int32_t position;  // absolute
  std::int32_t seq;       // index into seqs; -1: padding
};

// How the token of a logits row is drawn.
enum class DrawKind : std::int32_t {
  kHost,    // by the host's sampler, from logits that are copied back
  kGreedy,  // on the card: the maximum
  kGumbel,  // on the card: the maximum of logit * scale + noise
  kNone     // not at all: the log-probability of `asked` is reported
};

inline constexpr std::int32_t kMostMasked = 4;       // ids of a row that the card leaves out
inline constexpr std::int32_t kMostTop = 64;         // best ids that the card reports
inline constexpr std::int32_t kMostChanges = 32768;  // of logits, of a step

struct StepLogits {
  std::int32_t row = -1;  // -1: nothing to compute
  DrawKind draw = DrawKind::kHost;
  double scale = 1.0;                                   // 1 / temperature
  std::uint64_t key = 0;                                // of the noise: see HostSampler
  std::int32_t masked[kMostMasked] = {-1, -1, -1, -1};  // stop ids that may not come yet
  // What is kept of the candidates, if anything is asked for.
  bool filtered = false;
  std::int32_t top_k = 0;  // 0: off
  double top_p = 1.0;      // 1: off
  double reach = 0.0;      // scores further below the best are out; <= 0
  // Log-probabilities.
  std::int32_t top_n = -1;  // -1: none
  std::int32_t asked = -1;  // of kNone
  // Of StepInputs::changes; ids of one row differ.
  std::int32_t first_change = 0;
  std::int32_t num_changes = 0;
};

// What logit_bias and penalties do to a logit, in the order of HostSampler.
struct StepChange {
  std::int32_t id;
  float bias = 0.0F;  // -infinity: masked
  float repetition = 1.0F;
  float frequency = 0.0F;  // times how often the id came
  float presence = 0.0F;
};

// Group g's entries for logical pages [first_page[g], ...) start at pages[table[g]].
struct StepSeq {
  std::int32_t table[kNumKvGroups];
  std::int32_t first_page[kNumKvGroups];
  std::int32_t first_row;  // of the step's
  std::int32_t num_rows;
};

// Addresses in device memory, constant after prepare().
struct StepInputs {
  const StepRow* rows;
  const StepLogits* logits;
  const StepSeq* seqs;
  const std::int32_t* pages;
  const StepChange* changes;
};

// Byte offsets of the parts, the same on both sides.
struct StepLayout {
  std::size_t rows = 0, logits = 0, seqs = 0, pages = 0, changes = 0;
  std::size_t bytes = 0;  // with room for the tables of all slots at full length
};

inline StepLayout make_step_layout(const BackendOptions& options) {
  const auto padded = [](std::int64_t bytes) {
    return (static_cast<std::size_t>(bytes) + 255) / 256 * 256;
  };
  StepLayout layout;
  layout.logits = padded(std::int64_t{options.max_rows} * std::int64_t{sizeof(StepRow)});
  layout.seqs = layout.logits +
                padded(std::int64_t{options.max_logits_rows} * std::int64_t{sizeof(StepLogits)});
  layout.pages =
      layout.seqs + padded(std::int64_t{options.max_slots} * std::int64_t{sizeof(StepSeq)});
  layout.changes = layout.pages + padded(std::int64_t{options.max_slots} * kNumKvGroups *
                                         options.max_pages_per_seq * 4);
  layout.bytes = layout.changes + padded(std::int64_t{kMostChanges} * sizeof(StepChange));
  return layout;
}

}  // namespace strata::kernels::cuda
