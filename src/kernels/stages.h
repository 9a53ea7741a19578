// Backend: the seam between the model and the hardware. About nine fused stages named after the
// model, weights adopted once, one step at a time. Implementations: kernels/ref (the
// specification: double accumulation), kernels/cpu, kernels/cuda; tests add a RecordingBackend.
//
// Contract of a step: begin_step(plan), stage calls in forward.cc's order, end_step(). Called from
// the compute thread only. Stages read rows, positions, tables and slots from the step's inputs,
// which the backend holds; their arguments are a function of (ModelConfig, StepShape) alone, so a
// recorded call sequence replays for every plan of one shape. Rows with slot -1 are padding: they
// use the scrap page, select no expert and yield no result.
//
// Numbers: x and deltas are float32 [rows, hidden], row-major, on every backend. A stage that
// writes a delta overwrites it. Results may depend on neither batch, chunking nor thread count
// (ref and cpu: bitwise; cuda: see --deterministic).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/model_config.h"
#include "base/tensor_view.h"
#include "kernels/slab.h"
#include "plan/step_plan.h"

namespace strata::kernels {

enum class WeightFormat : std::uint8_t { kF32, kBf16, kI8g32, kF8, kMxfp4Slab, kBf16Slab };

// What a dense tensor is for: decides format, place and sharding axis. Closed set.
enum class Role : std::uint8_t {
  kEmbedding,
  kUnembedding,
  kFinalNorm,
  kAttnNorm,
  kQWeight,
  kQBias,
  kKWeight,
  kKBias,
  kVWeight,
  kVBias,
  kSinks,
  kOutWeight,
  kOutBias,
  kMlpNorm,
  kRouterWeight,
  kRouterBias,
};

// The part of a tensor a rank holds along `axis`, [begin, end) in elements, multiples of 32.
struct Shard {
  std::int32_t rank = 0;
  std::int32_t world = 1;
  std::int32_t axis = -1;  // -1: whole tensor
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

// Opaque outside the backend that made it; 0 is "none".
struct WeightHandle {
  std::uint32_t id = 0;
};

struct LayerWeights {
  WeightHandle attn_norm, q_weight, q_bias, k_weight, k_bias, v_weight, v_bias, sinks;
  WeightHandle out_weight, out_bias, mlp_norm, router_weight, router_bias;
};

struct ModelWeights {
  WeightHandle embedding, unembedding, final_norm;
  std::vector<LayerWeights> layers;
};

// A device address; the backend allocates and interprets it.
struct Buffer {
  void* data = nullptr;
  bool operator==(const Buffer&) const = default;
};

// Step buffers, allocated once for the largest shape.
struct Activations {
  Buffer x;           // [rows, hidden] f32: the residual stream
  Buffer q;           // [rows, q_dim]: rotated, unscaled queries, in the backend's dtype
  Buffer attn;        // [rows, q_dim]: attention output, in the backend's dtype
  Buffer delta_attn;  // [rows, hidden] f32
  Buffer delta_moe;   // [rows, hidden] f32: experts on the device
  Buffer delta_host;  // [rows, hidden] f32: experts of the host tier; empty without one
};

// Up to two deltas that a stage adds to x in its prologue, first `a`, then `b`; empty: none.
struct Deltas {
  Buffer a;
  Buffer b;
};

inline constexpr std::int32_t kMaxHeadRows = 64;  // logits of more rows are never held at once

enum class CutPoint : std::uint8_t { kAfterRoute, kBeforeSample };

struct BackendOptions {
  std::int32_t max_rows = 256;
  std::int32_t max_slots = 8;
  std::int32_t max_logits_rows = 64;
  std::int32_t page_tokens = 16;
  std::int32_t num_pages = 0;
  std::int32_t num_swap_pages = 0;
  std::int32_t max_pages_per_seq = 0;  // table length of the full group
  KvDtype kv_dtype = KvDtype::kF32;
  bool poison_freed_pages = false;
  bool record_graphs = false;  // cuda: replay recordings of steps of one shape
  bool early_launches = true;  // cuda: kernels may begin before those in front have ended
  bool tensor_cores = false;   // cuda: multiplies in 16 bits or integers, not in f32
};

// Per-stage totals since the last reset, for `strata bench`.
struct StageStats {
  std::string name;
  std::int64_t calls = 0;
  std::int64_t nanos = 0;
  std::int64_t weight_bytes = 0;  // weights read from memory, each counted once a call
  std::int64_t kv_bytes = 0;      // keys and values read from memory, likewise
  std::int64_t float_adds = 0;    // multiply-adds in float32 ...
  std::int64_t integer_adds = 0;  // ... and of weights with quantised activations
};

// An expert's slab as the backend reads it. `data` stays valid until the epoch that drops it ends.
struct ExpertSlab {
  const std::byte* data = nullptr;  // host address; nullptr: not resident here
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;  // "ref", "cpu avx512", "cuda sm90"

  // ---- Start-up, before the first step. All throw StartupError or MemoryError.
  // Reads the tensor's shard through view.source into the backend's own layout. Several views of
  // one role and layer never come. Callable from one thread, in any order of tensors.
  virtual WeightHandle adopt(const TensorView& view, Role role, LayerId layer,
                             const Shard& shard) = 0;
  // Allocates KV pages, activations, slots and scratch for `options`; call once, after weights.
  virtual void prepare(const BackendOptions& options) = 0;
  virtual const Activations& activations() const = 0;

  // Called once, when the shapes of steps worth recording were seen: from here on a step takes no
  // memory of its own.
  virtual void ready() {}

  // ---- Between steps: the device's view of where experts are (ExpertStore only).
  virtual void set_expert(LayerId layer, ExpertId expert, const ExpertSlab& slab) = 0;

  // ---- One step.
  // Takes over `plan` until end_step: applies slot updates, page copies and poison.
  virtual void begin_step(const StepPlan& plan) = 0;
  // x = embedding rows of the step's tokens.
  virtual void embed(const StepShape& shape, WeightHandle embedding, Buffer x) = 0;
  // x += deltas; q, k, v = rotary(W norm(x) + b); k and v go to their pages; q is written out.
  virtual void attn_qkv(const StepShape& shape, LayerId layer, const LayerWeights& weights,
                        Buffer x, const Deltas& deltas, Buffer q) = 0;
  // Softmax attention over the slot's pages with the sink term; window or full by layer.
  virtual void attend(const StepShape& shape, LayerId layer, const LayerWeights& weights, Buffer q,
                      Buffer attn) = 0;
  // delta = W_o attn (+ bias on rank 0).
  virtual void attn_out(const StepShape& shape, LayerId layer, const LayerWeights& weights,
                        Buffer attn, Buffer delta) = 0;
  // x += deltas; the backend keeps norm(x), chosen experts and their softmax weights.
  virtual void route(const StepShape& shape, LayerId layer, const LayerWeights& weights, Buffer x,
                     const Deltas& deltas) = 0;
  // delta = weighted sum of the resident chosen experts (+ their biases on rank 0).
  virtual void experts(const StepShape& shape, LayerId layer, Buffer delta) = 0;
  // delta = the chosen experts that are not resident, computed on the host tier; does nothing
  // where there is no such tier (activations().delta_host is empty).
  virtual void experts_host(const StepShape& shape, LayerId layer, Buffer delta) = 0;
  // Logits of logits rows [first, first + count), count <= kMaxHeadRows: final norm of x + deltas
  // and unembedding. x is not written. The logits stay with the backend, for `sample`.
  virtual void head(const StepShape& shape, const ModelWeights& weights, Buffer x,
                    const Deltas& deltas, std::int32_t first, std::int32_t count) = 0;
  // Masks ids that may never be emitted, applies bias, penalties and masks, draws, writes back to
  // slots, for the logits rows `head` just produced.
  virtual void sample(const StepShape& shape, std::int32_t first, std::int32_t count) = 0;
  // A place where a recording may end and the host may wait.
  virtual void cut(CutPoint point, LayerId layer) = 0;
  // Gives the tail its late masks; called at the latest inside cut(kBeforeSample).
  virtual void set_masks(std::span<const std::uint32_t> masks) = 0;
  // Advances slots (see SpanKind) and returns the results.
  virtual StepResult end_step() = 0;

  // ---- Diagnosis.
  virtual std::vector<StageStats> take_stats() = 0;
  // Copy rows of an activation buffer (f32 [rows, width]) to and from the host, for tests and
  // dumps.
  virtual void read_f32(Buffer buffer, std::span<float> out) = 0;
  virtual void write_f32(Buffer buffer, std::span<const float> values) = 0;
};

// What a backend knows from its construction on, before the first weight arrives. never_emit:
// padding rows, start-of-text, reserved ids.
struct BackendContext {
  ModelConfig config;
  std::vector<TokenId> never_emit;
  std::int32_t rank = 0;
  std::int32_t world = 1;
  WeightFormat dense = WeightFormat::kBf16;  // of matrices but the embedding and the router
  bool int8_activations = false;             // --cpu-act int8: of integer products
};

}  // namespace strata::kernels
