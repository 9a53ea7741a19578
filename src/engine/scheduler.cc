#include "engine/scheduler.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "base/check.h"

namespace strata {
namespace {

// Prompts computed side by side: enough that a short one does not wait for a long one's end.
constexpr std::int32_t kMaxPartialPrefills = 4;

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, const kv::KvConfig& kv,
                     const kv::BlockHasher& hasher, const PreemptionCosts& costs)
    : limits_(limits), costs_(costs), kv_(kv, hasher) {
  for (SlotId slot = limits.max_slots - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

void Scheduler::set_limits(std::int32_t max_active, std::int32_t max_rows) {
  limits_.max_active = max_active;
  limits_.max_rows = max_rows;
}

void Scheduler::enqueue(Sequence& seq) {
  STRATA_CHECK(seq.phase == SeqPhase::kWaiting && seq.slot == kNoSlot);
  waiting_.insert(key_of(seq));
  ++queue_version_;
}

void Scheduler::dequeue(Sequence& seq) {
  STRATA_CHECK(waiting_.erase(key_of(seq)) == 1, "sequence {} is not queued", seq.id);
  ++queue_version_;
}

std::int32_t Scheduler::num_active() const {
  return static_cast<std::int32_t>(std::count_if(running_.begin(), running_.end(),
                                                 [](const Sequence* s) { return s->active(); }));
}

void Scheduler::release(Sequence& seq) {
  STRATA_CHECK(seq.open_tickets == 0 && seq.slot != kNoSlot, "sequence {}", seq.id);
  kv_.release(seq.pages,
              seq.drops_pages ? kv::PrefixCache::Value::kCold : kv::PrefixCache::Value::kKeep);
  free_slots_.push_back(seq.slot);
  if (seq.slot_admitted) released_slots_.push_back(seq.slot);
  seq.slot = kNoSlot;
  seq.slot_admitted = false;
  running_.erase(std::find(running_.begin(), running_.end(), &seq));
  if (seq.phase != SeqPhase::kPreempting) return;
  seq.phase = SeqPhase::kWaiting;
  enqueue(seq);
}

std::vector<SlotId> Scheduler::take_released_slots() {
  std::vector<SlotId> out;
  out.swap(released_slots_);
  return out;
}

std::vector<ScheduledSpan> Scheduler::schedule() {
  std::vector<ScheduledSpan> spans;
  Budget budget{limits_.max_rows, limits_.max_logits_rows - limits_.max_active};
  plan_decodes(budget, spans);
  admit_waiting(budget.rows);
  plan_prefills(budget, spans);
  const bool in_flight = std::any_of(running_.begin(), running_.end(),
                                     [](const Sequence* s) { return s->open_tickets > 0; });
  if (!spans.empty() || in_flight) return spans;
  // Prompts hold all pages and none can go on: the youngest makes room for the others.
  const auto wants_rows = [](const Sequence* s) { return s->prefill_left() > 0; };
  while (spans.empty() && std::any_of(running_.begin(), running_.end(), wants_rows)) {
    preempt_youngest();
    plan_prefills(budget, spans);
  }
  return spans;
}

void Scheduler::plan_decodes(Budget& budget, std::vector<ScheduledSpan>& spans) {
  // By index over a copy: preempting an idle sequence takes it out of running_.
  const std::vector<Sequence*> candidates = running_;
  for (Sequence* seq : candidates) {
    if (!seq->wants_decode() || budget.rows == 0) continue;
    if (!kv_.grow(seq->pages, seq->planned_len + 1) && !make_room(*seq)) continue;
    spans.push_back({seq, SpanKind::kDecode, 1});
    --budget.rows;
  }
}

// Pages for one more row of `seq`, an older one before a younger one. False: not in this step.
bool Scheduler::make_room(Sequence& seq) {
  while (true) {
    // Pages are on their way back: those of sequences that are leaving, and the window pages that
    // seq's own open steps still read.
    const bool pending = std::any_of(running_.begin(), running_.end(),
                                     [](const Sequence* s) { return !s->active(); });
    if (pending || seq.open_tickets > 0) return false;
    preempt_youngest();
    if (!seq.active()) return false;  // it was the youngest itself
    if (kv_.grow(seq.pages, seq.planned_len + 1)) return true;
  }
}

void Scheduler::preempt_youngest() {
  const auto youngest = std::find_if(running_.rbegin(), running_.rend(),
                                     [](const Sequence* s) { return s->active(); });
  STRATA_CHECK(youngest != running_.rend() && num_active() > 1,
               "{} pages are not enough for one sequence that was admitted", kv_.capacity());
  preempt(**youngest);
}

void Scheduler::preempt(Sequence& seq) {
  seq.phase = SeqPhase::kPreempting;
  // Without host memory there is no choice: its pages stay in the cache while there is room.
  const bool can_swap = kv_.config().prefix_caching && kv_.config().num_swap_pages > 0;
  const kv::KvManager::Holding held = kv_.held_alone(seq.pages);
  seq.drops_pages = can_swap && !costs_.swap_is_cheaper(held.pages, held.tokens);
  ++(can_swap && !seq.drops_pages ? counters_.swapped : counters_.recomputed);
  if (seq.open_tickets == 0) release(seq);
}

// Pages that prompts being computed will still take.
std::int32_t Scheduler::pages_promised() const {
  std::int32_t pages = 0;
  for (const Sequence* seq : running_) {
    if (seq->phase != SeqPhase::kPrefilling) continue;
    const std::int32_t all = kv::min_pages(kv_.config(), seq->prefill_target);
    pages +=
        std::max(0, all - static_cast<std::int32_t>(seq->pages.groups[kv::kFull].pages.size() +
                                                    seq->pages.groups[kv::kWindow].pages.size()));
  }
  return pages;
}

void Scheduler::admit_waiting(std::int32_t prefill_rows) {
  std::int32_t partial = 0;
  std::int32_t rows_wanted = 0;
  for (const Sequence* seq : running_) {
    partial += seq->prefill_left() > 0 ? 1 : 0;
    rows_wanted += seq->prefill_left();
  }
  while (!waiting_.empty() && !free_slots_.empty() && num_active() < limits_.max_active &&
         prefill_rows > 0 && (rows_wanted < prefill_rows || partial < kMaxPartialPrefills)) {
    Sequence& seq = *std::get<Sequence*>(*waiting_.begin());
    const bool nothing_new = seq.id == blocked_.id && kv_.available() <= blocked_.available;
    if (nothing_new && !running_.empty()) return;
    if (!try_admit(seq)) {
      blocked_ = {seq.id, kv_.available()};
      return;
    }
    ++partial;
    rows_wanted += seq.prefill_left();
  }
}

bool Scheduler::try_admit(Sequence& seq) {
  kv::PrefixMatch match;
  const bool reports = seq.request.prompt_logprobs && seq.logprobs_planned < seq.prompt_len - 1;
  if (!reports) match = kv_.match(seq.pages, seq.tokens);
  // Its prompt, what others were promised, and a page a group for every running answer to grow:
  // without that headroom a newcomer would be preempted at once.
  const std::int32_t hit_pages =
      kv::min_pages(kv_.config(), match.blocks * kv_.config().page_tokens);
  const std::int32_t fresh =
      kv::min_pages(kv_.config(), static_cast<std::int32_t>(seq.tokens.size())) - hit_pages;
  std::int32_t needed = std::max(0, fresh) + match.parked_pages + match.swapped_pages;
  if (!running_.empty())
    needed += pages_promised() + kv::kNumGroups * static_cast<std::int32_t>(running_.size());
  if (needed > kv_.available()) return false;
  start(seq, match);
  return true;
}

void Scheduler::start(Sequence& seq, const kv::PrefixMatch& match) {
  dequeue(seq);
  seq.phase = SeqPhase::kPrefilling;
  seq.drops_pages = false;
  seq.slot = free_slots_.back();
  free_slots_.pop_back();
  seq.prefill_target = static_cast<std::int32_t>(seq.tokens.size());
  kv_.adopt(seq.pages, seq.tokens, match);
  seq.pages.checkpoint = seq.prompt_len;
  seq.planned_len = match.blocks * kv_.config().page_tokens;
  seq.confirmed_len = seq.planned_len;
  if (seq.admissions++ == 0) {
    seq.usage.cached_tokens = seq.planned_len;
    // The prompt of an answer that goes on was counted when it began.
    const bool is_new = seq.request.continues == 0;
    counters_.prefix_query_tokens += static_cast<std::uint64_t>(is_new ? seq.prompt_len : 0);
    counters_.prefix_hit_tokens += static_cast<std::uint64_t>(is_new ? seq.planned_len : 0);
  }
  const auto place =
      std::lower_bound(running_.begin(), running_.end(), &seq,
                       [this](Sequence* a, Sequence* b) { return key_of(*a) < key_of(*b); });
  running_.insert(place, &seq);
}

// The oldest prompt gets at least half of the rows; the others share the rest, those with the
// least to do first, and what nobody needs goes back to the oldest.
std::vector<std::int32_t> Scheduler::share_rows(const std::vector<Sequence*>& prefilling,
                                                std::int32_t rows) const {
  std::vector<std::int32_t> share(prefilling.size());
  share[0] = std::min(prefilling[0]->prefill_left(), (rows + 1) / 2);
  std::int32_t left = rows - share[0];
  std::vector<std::size_t> order(prefilling.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return prefilling[a]->prefill_left() < prefilling[b]->prefill_left();
  });
  for (const std::size_t i : order) {
    const std::int32_t more = std::min(prefilling[i]->prefill_left() - share[i], left);
    share[i] += more;
    left -= more;
  }
  return share;
}

void Scheduler::plan_prefills(Budget& budget, std::vector<ScheduledSpan>& spans) {
  std::vector<Sequence*> prefilling;
  std::copy_if(running_.begin(), running_.end(), std::back_inserter(prefilling),
               [](const Sequence* seq) { return seq->prefill_left() > 0; });
  if (prefilling.empty() || budget.rows == 0) return;
  const std::vector<std::int32_t> share = share_rows(prefilling, budget.rows);
  // A chunk never takes the page that an answer beside it needs next.
  const auto reserve = static_cast<std::int32_t>(
      kv::kNumGroups * std::count_if(running_.begin(), running_.end(), [](const Sequence* seq) {
        return seq->phase == SeqPhase::kDecoding;
      }));
  for (std::size_t i = 0; i < prefilling.size(); ++i) {
    Sequence& seq = *prefilling[i];
    std::int32_t rows = share[i];
    // Each sequence has a logits row of its own; reports beyond that come from the spare ones.
    if (seq.logprob_rows(rows) > 0) rows = std::min(rows, 1 + budget.spare_logits);
    rows = kv_.reachable_length(seq.pages, seq.planned_len, seq.planned_len + rows, reserve) -
           seq.planned_len;
    if (rows <= 0) continue;
    STRATA_CHECK(kv_.grow(seq.pages, seq.planned_len + rows));
    const ScheduledSpan span{&seq, SpanKind::kPrefill, rows};
    budget.rows -= rows;
    budget.spare_logits -= std::max(0, seq.logprob_rows(rows) + (span.samples() ? 1 : 0) - 1);
    spans.push_back(span);
  }
}

}  // namespace strata
