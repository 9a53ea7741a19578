// Sequence: everything the engine knows of one request. Engine thread only; made on the thread
// that submits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/engine.h"
#include "engine/token_stream.h"
#include "kv/kv_manager.h"

namespace strata {

enum class SeqPhase : std::uint8_t {
  kWaiting,     // queued: new, or preempted and to be recomputed
  kPrefilling,  // has a slot; tokens [planned_len, prefill_target) are still to be computed
  kDecoding,    // has a slot; one row a step, its token the slot's last
  kPreempting,  // gives slot and pages back with its last ticket, then waits again
  kFinished,    // its stream has its end; slot and pages return with its last ticket
};

struct Sequence {
  SeqId id = 0;
  EngineRequest request;  // its prompt was moved into `tokens`
  std::shared_ptr<TokenStream> stream;

  SeqPhase phase = SeqPhase::kWaiting;
  SlotId slot = kNoSlot;
  bool slot_admitted = false;   // a submitted plan admitted it to its slot
  std::vector<TokenId> tokens;  // prompt, then what is known of the answer
  std::int32_t prompt_len = 0;
  std::int32_t prefill_target = 0;   // the row of token prefill_target - 1 is sampled
  std::int32_t planned_len = 0;      // positions in submitted plans
  std::int32_t confirmed_len = 0;    // positions in plans that were waited for
  std::int32_t pending_samples = 0;  // tokens that open tickets will yield
  std::int32_t open_tickets = 0;
  bool drops_pages = false;            // kPreempting: not worth a place in host memory
  std::int32_t logprobs_planned = 0;   // prompt rows whose log-probabilities were asked for
  std::int32_t logprobs_reported = 0;  // and came
  std::int32_t restarts = 0;           // after memory failures
  std::int32_t admissions = 0;         // 1, and one more for each preemption
  bool counted_as_waiting = true;      // in the admission counters
  std::int32_t queue_position = -1;    // as last reported
  std::uint64_t touched_in = 0;        // EngineCore::step() that last queued a notification
  kv::SequencePages pages;
  SequenceUsage usage;
  SequenceTimings timings;

  // Lower goes first. What continues an answer is as old as that.
  SeqId age() const { return request.continues > 0 ? request.continues : id; }
  std::int32_t generated() const { return static_cast<std::int32_t>(tokens.size()) - prompt_len; }
  bool active() const { return phase == SeqPhase::kPrefilling || phase == SeqPhase::kDecoding; }
  std::int32_t prefill_left() const {
    return phase == SeqPhase::kPrefilling ? prefill_target - planned_len : 0;
  }
  bool wants_decode() const {
    return phase == SeqPhase::kDecoding && generated() + pending_samples < request.max_new_tokens;
  }
  // Prompt rows among the next `n_rows` that report a log-probability.
  std::int32_t logprob_rows(std::int32_t n_rows) const {
    if (!request.prompt_logprobs) return 0;
    const std::int32_t first = std::max(planned_len, logprobs_planned);
    return std::max(0, std::min(planned_len + n_rows, prompt_len - 1) - first);
  }
};

// The rows of one sequence in the next plan.
struct ScheduledSpan {
  Sequence* seq = nullptr;
  SpanKind kind = SpanKind::kDecode;
  std::int32_t n_rows = 0;

  // Whether the span's last row draws a token.
  bool samples() const {
    return seq->request.max_new_tokens > 0 &&
           (kind == SpanKind::kDecode || seq->planned_len + n_rows == seq->prefill_target);
  }
};

}  // namespace strata
