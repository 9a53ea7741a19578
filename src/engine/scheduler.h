// Scheduler: who gets rows of the next step, and slots and pages to run with.
//
// One token budget a step: every decoding sequence first, the rest goes to prompts in chunks. It
// owns the queue, the slots and the pages; sequences themselves belong to EngineCore. Pages and
// slots come back in one place, release(). Engine thread only.
#pragma once

#include <cstdint>
#include <set>
#include <tuple>
#include <vector>

#include "engine/preemption_costs.h"
#include "engine/sequence.h"
#include "kv/kv_manager.h"

namespace strata {

struct SchedulerLimits {
  std::int32_t max_active = 1;       // sequences that may have rows in a step
  std::int32_t max_slots = 1;        // at least max_active; more while finished ones drain
  std::int32_t max_rows = 1;         // at least max_active
  std::int32_t max_logits_rows = 1;  // at least max_active
  bool by_priority = false;
};

class Scheduler {
 public:
  // `hasher` and `costs` must outlive the scheduler.
  Scheduler(const SchedulerLimits& limits, const kv::KvConfig& kv, const kv::BlockHasher& hasher,
            const PreemptionCosts& costs);

  // From the next plan on; what runs beyond a lower limit goes on.
  void set_limits(std::int32_t max_active, std::int32_t max_rows);

  void enqueue(Sequence& seq);  // REQUIRES kWaiting; a preempted one goes before younger ones
  void dequeue(Sequence& seq);  // REQUIRES kWaiting

  // Spans of the next plan, decode before prefill, with pages behind them. Moves waiting sequences
  // to slots and preempts the youngest when pages run out. Empty when nothing can run before an
  // open ticket is waited for, or nothing wants to.
  std::vector<ScheduledSpan> schedule();

  // Returns slot and pages. REQUIRES a slot and no open ticket. A preempted sequence is queued
  // again; a finished one is forgotten.
  void release(Sequence& seq);

  // Slots released since the last call and not in use now: the next plan tells the device.
  std::vector<SlotId> take_released_slots();

  kv::KvManager& kv() { return kv_; }
  const kv::KvManager& kv() const { return kv_; }
  std::int32_t num_active() const;
  std::int32_t num_waiting() const { return static_cast<std::int32_t>(waiting_.size()); }
  const std::vector<Sequence*>& with_slot() const { return running_; }
  struct Counters {
    std::uint64_t swapped = 0;              // preemptions that keep the pages
    std::uint64_t recomputed = 0;           // preemptions that drop them
    std::uint64_t prefix_query_tokens = 0;  // prompt tokens of admitted sequences, each once
    std::uint64_t prefix_hit_tokens = 0;
  };
  const Counters& counters() const { return counters_; }

  // The queue in order; its version changes whenever the order or the members do.
  template <typename Fn>
  void for_each_waiting(Fn&& fn) const {
    for (const Key& key : waiting_) fn(*std::get<Sequence*>(key));
  }
  std::uint64_t queue_version() const { return queue_version_; }

 private:
  using Key = std::tuple<std::int32_t, SeqId, Sequence*>;  // priority, age
  Key key_of(Sequence& seq) const {
    return {limits_.by_priority ? seq.request.priority : 0, seq.age(), &seq};
  }
  struct Budget {
    std::int32_t rows;
    std::int32_t spare_logits;  // beyond one a sequence
  };

  void plan_decodes(Budget& budget, std::vector<ScheduledSpan>& spans);
  void plan_prefills(Budget& budget, std::vector<ScheduledSpan>& spans);
  bool make_room(Sequence& seq);
  void preempt_youngest();
  void preempt(Sequence& seq);
  void admit_waiting(std::int32_t prefill_rows);
  bool try_admit(Sequence& seq);
  void start(Sequence& seq, const kv::PrefixMatch& match);
  std::int32_t pages_promised() const;
  std::vector<std::int32_t> share_rows(const std::vector<Sequence*>& prefilling,
                                       std::int32_t rows) const;

  SchedulerLimits limits_;
  const PreemptionCosts& costs_;
  kv::KvManager kv_;
  std::set<Key> waiting_;
  std::vector<Sequence*> running_;  // hold a slot, oldest first
  std::vector<SlotId> free_slots_;
  std::vector<SlotId> released_slots_;
  std::uint64_t queue_version_ = 0;
  Counters counters_;
  // The head of the queue when it last did not fit, and what was available then.
  struct Blocked {
    SeqId id = 0;
    std::int32_t available = 0;
  } blocked_;
};

}  // namespace strata
