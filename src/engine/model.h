// Model: the seam between engine and model. Engine thread only, except release_tail's masks being
// prepared elsewhere. At most two tickets are open, waited for in order; pages and slots a plan
// names belong to it until its ticket was waited for.
//
// Implementations: model/TransformerModel (drives 1..R rank backends), engine/ScriptedModel,
// and engine/FaultModel, a decorator.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/ids.h"
#include "plan/step_plan.h"

namespace strata {

struct Ticket {
  StepId id = 0;
};

// What the engine needs to know to plan; constant after construction.
struct ModelInfo {
  std::string name;
  std::int32_t vocab = 0;
  std::int32_t max_context = 0;     // positions the model and its page tables can address
  std::int32_t window = 0;          // of the window group, in tokens
  std::int32_t page_tokens = 16;    // tokens of a KV page
  std::int32_t num_pages = 0;       // pool size of both groups together, scrap page included
  std::int32_t num_swap_pages = 0;  // host pool for swapped pages
  bool has_group[kNumKvGroups] = {true, true};
  std::int32_t max_slots = 0;
  std::int32_t max_rows = 0;  // rows of one step: --max-num-batched-tokens
  std::int32_t max_logits_rows = 0;
  KvDtype kv_dtype = KvDtype::kF32;
  std::string backend;  // "cpu avx512", "ref", "scripted", ...
};

class Model {
 public:
  virtual ~Model() = default;
  virtual ModelInfo info() const = 0;

  // Queues the plan and returns at once. `on_done` is called from any thread when poll() would
  // turn true; it must only wake the engine. Throws DeviceError when the device is dead.
  virtual Ticket submit(StepPlan plan, std::function<void()> on_done) = 0;

  // REQUIRES a plan with late_masks: lets its sampling run with these bit masks
  // (mask_index-major, (vocab + 31) / 32 words each, bit set = allowed).
  virtual void release_tail(Ticket ticket, std::span<const std::uint32_t> masks) = 0;

  virtual bool poll(Ticket ticket) = 0;

  // Blocks until the step is done. Throws DeviceError or MemoryError when the step failed; the
  // model is then dead and must be rebuilt.
  virtual StepResult wait(Ticket ticket) = 0;
};

}  // namespace strata
