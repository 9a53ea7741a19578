#include "engine/engine_core.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "engine/plan_builder.h"

namespace strata {
namespace {

constexpr std::size_t kMaxOpenSteps = 2;
constexpr Nanos kLogInterval = 1'000'000'000;
// The fixed part of a step's deadline when no flag sets it: once steps were measured, and before.
constexpr Nanos kDeadline = 4'000'000'000;
constexpr Nanos kFirstDeadline = 30'000'000'000;

void check_options(const EngineOptions& options, const ModelInfo& info) {
  const auto refuse = [](const char* what, std::int32_t value, std::int32_t least,
                         std::int32_t most) {
    if (value >= least && value <= most) return;
    throw StartupError(fmt::format("{} is {}, the model allows {} to {}", what, value, least, most),
                       fmt::format("choose another --{}", what));
  };
  refuse("max-num-seqs", options.max_num_seqs, 1, info.max_slots);
  refuse("max-num-batched-tokens", options.max_num_batched_tokens, 1, info.max_rows);
  refuse("max-model-len", options.max_model_len, 0, info.max_context);
  if (info.max_logits_rows < 1 || info.num_pages < 2)
    throw StartupError(fmt::format("the model has {} logits rows and {} KV pages",
                                   info.max_logits_rows, info.num_pages));
}

bool same_limits(const ModelInfo& a, const ModelInfo& b) {
  return a.vocab == b.vocab && a.max_context == b.max_context && a.window == b.window &&
         a.page_tokens == b.page_tokens && a.num_pages == b.num_pages &&
         a.num_swap_pages == b.num_swap_pages && a.max_slots == b.max_slots &&
         a.max_rows == b.max_rows && a.max_logits_rows == b.max_logits_rows &&
         a.kv_dtype == b.kv_dtype &&
         std::equal(std::begin(a.has_group), std::end(a.has_group), std::begin(b.has_group));
}

}  // namespace

EngineCore::EngineCore(std::unique_ptr<Model> model, const EngineOptions& options,
                       const Clock& clock, AdmissionCounters& counters, std::function<void()> wake)
    : options_(options),
      clock_(clock),
      counters_(counters),
      wake_(std::move(wake)),
      model_(std::move(model)),
      info_(model_->info()),
      limits_{options.max_num_seqs, options.max_num_batched_tokens},
      costs_(options.preemption) {
  check_options(options_, info_);
  max_model_len_ = options_.max_model_len > 0 ? options_.max_model_len : info_.max_context;
  kv_config_ = kv::KvConfig{.page_tokens = info_.page_tokens,
                            .window = info_.window,
                            .num_pages = info_.num_pages,
                            .num_swap_pages = info_.num_swap_pages,
                            .has_group = {info_.has_group[0], info_.has_group[1]},
                            .prefix_caching = options_.prefix_caching};
  totals_.model = info_;
  totals_.max_model_len = max_model_len_;
  totals_.total_pages = info_.num_pages - 1;
  make_scheduler();
  if (max_active() < options_.max_num_seqs)
    log_warn("{} sequences run at once instead of {}: a step has {} rows and {} logits rows",
             max_active(), options_.max_num_seqs, options_.max_num_batched_tokens,
             info_.max_logits_rows);
}

EngineCore::~EngineCore() { end_all(FinishReason::kAborted, std::nullopt); }

void EngineCore::make_scheduler() {
  SchedulerLimits limits;
  limits.max_slots = info_.max_slots;
  limits.max_rows = limits_.max_num_batched_tokens;
  limits.max_logits_rows = info_.max_logits_rows;
  limits.by_priority = options_.priority_scheduling;
  limits.max_active = max_active();
  scheduler_ = std::make_unique<Scheduler>(limits, kv_config_, hasher_, costs_);
}

std::int32_t EngineCore::max_active() const {
  return std::min({limits_.max_num_seqs, limits_.max_num_batched_tokens, info_.max_logits_rows});
}

void EngineCore::set_limits(const StepLimits& limits) {
  limits_ = limits;
  scheduler_->set_limits(max_active(), limits_.max_num_batched_tokens);
}

std::unique_ptr<Sequence> EngineCore::make_sequence(SeqId id, EngineRequest request,
                                                    std::shared_ptr<TokenStream> stream) const {
  auto seq = std::make_unique<Sequence>();
  seq->id = id;
  seq->tokens = std::move(request.prompt);
  seq->prompt_len = static_cast<std::int32_t>(seq->tokens.size()) - request.generated;
  seq->usage.prompt_tokens = seq->prompt_len;
  seq->timings.arrival = request.arrival;
  if (kv_config_.prefix_caching) {
    seq->pages.chain = hasher_.start(request.cache_salt);
    hasher_.extend(seq->pages.chain, seq->tokens, kv_config_.page_tokens);
  }
  seq->request = std::move(request);
  seq->stream = std::move(stream);
  return seq;
}

void EngineCore::add(std::unique_ptr<Sequence> seq) {
  scheduler_->enqueue(*seq);
  const SeqId id = seq->id;
  const bool is_new = sequences_.emplace(id, std::move(seq)).second;
  STRATA_CHECK(is_new, "sequence {} came twice", id);
}

void EngineCore::abort(SeqId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end() || found->second->phase == SeqPhase::kFinished) return;
  Sequence& seq = *found->second;
  finish(seq, FinishReason::kAborted);
  settle(seq);
}

bool EngineCore::step() {
  bool progress = false;
  if (model_ != nullptr) {
    progress = collect();
    progress |= launch();
    report_queue();
    log_preemptions();
  }
  notify_touched();
  return progress;
}

bool EngineCore::collect() {
  bool progress = false;
  while (!open_.empty() && model_->poll(open_.front().ticket)) {
    const OpenStep open = std::move(open_.front());
    open_.pop_front();
    StepResult result = model_->wait(open.ticket);
    note_step(open, result.timings);
    apply(open, std::move(result));
    progress = true;
  }
  if (const auto left = time_to_deadline(); left && *left <= 0)
    throw StepOverdue(fmt::format("a step of {} rows did not finish within {:.1f} s",
                                  open_.front().rows, to_seconds(allowance(open_.front().rows))));
  return progress;
}

bool EngineCore::launch() {
  const std::size_t depth = options_.two_steps_in_flight ? kMaxOpenSteps : 1;
  bool progress = false;
  while (open_.size() < depth) {
    const Nanos begin = clock_.now();
    std::vector<ScheduledSpan> spans = scheduler_->schedule();
    if (spans.empty()) {
      totals_.step_times.schedule += clock_.now() - begin;
      break;
    }
    PlanInputs inputs{.id = next_step_++,
                      .spans = spans,
                      .released_slots = scheduler_->take_released_slots(),
                      .page_work = scheduler_->kv().take_work()};
    StepPlan plan = build_plan(info_, std::move(inputs));
    OpenStep open = advance(spans);
    open.copies = plan.copies.size();
    totals_.step_times.schedule += clock_.now() - begin;
    open.ticket = model_->submit(std::move(plan), wake_);
    open.submitted = clock_.now();
    count_rows(open.rows);
    open_.push_back(std::move(open));
    ++totals_.steps;
    progress = true;
  }
  return progress;
}

void EngineCore::count_rows(std::int32_t rows) {
  const auto count = static_cast<std::uint64_t>(rows);
  totals_.rows += count;
  const auto power = static_cast<std::size_t>(std::bit_width(count - 1));
  ++totals_.step_rows[std::min(power, totals_.step_rows.size() - 1)];
}

// Moves the sequences to where the submitted plan leaves them.
EngineCore::OpenStep EngineCore::advance(const std::vector<ScheduledSpan>& spans) {
  OpenStep open;
  const Nanos now = clock_.now();
  for (const ScheduledSpan& span : spans) {
    Sequence& seq = *span.seq;
    const bool samples = span.samples();
    open.entries.push_back({&seq, open.rows, span.n_rows, samples});
    open.rows += span.n_rows;
    if (span.kind == SpanKind::kPrefill) open.prompt_rows += span.n_rows;
    seq.logprobs_planned = std::max(seq.logprobs_planned, seq.planned_len + span.n_rows);
    seq.planned_len += span.n_rows;
    seq.pending_samples += samples ? 1 : 0;
    ++seq.open_tickets;
    if (span.kind == SpanKind::kPrefill && samples) seq.phase = SeqPhase::kDecoding;
    if (seq.timings.scheduled == 0) {
      seq.timings.scheduled = now;
      if (seq.request.continues == 0)
        totals_.prompt_tokens += static_cast<std::uint64_t>(seq.prompt_len);
      leave_queue(seq);
    }
  }
  return open;
}

void EngineCore::apply(const OpenStep& open, StepResult result) {
  std::size_t next = 0;
  for (const StepEntry& entry : open.entries) {
    Sequence& seq = *entry.seq;
    --seq.open_tickets;
    seq.confirmed_len += entry.n_rows;
    seq.pending_samples -= entry.samples ? 1 : 0;
    // Behind its end a sequence's rows may not have been computed: nothing to confirm.
    if (seq.phase != SeqPhase::kFinished)
      scheduler_->kv().confirm(seq.pages, seq.tokens, seq.confirmed_len);
    std::vector<PromptLogprob> reports;
    const std::int32_t last_row = entry.first_row + entry.n_rows - 1;
    for (; next < result.rows.size() && result.rows[next].row <= last_row; ++next) {
      RowResult& row = result.rows[next];
      if (row.skipped || seq.phase == SeqPhase::kFinished) continue;
      if (entry.samples && row.row == last_row) take_token(seq, std::move(row));
      else reports.push_back({row.token, row.logprob, row.rank, std::move(row.top)});
    }
    if (seq.prefill_target > seq.confirmed_len && seq.phase == SeqPhase::kPrefilling) {
      seq.stream->set_progress(-1, seq.confirmed_len);
      touch(seq);
    }
    if (!reports.empty()) {
      seq.logprobs_reported += static_cast<std::int32_t>(reports.size());
      seq.stream->push_prompt(std::move(reports));
      touch(seq);
    }
    if (seq.request.max_new_tokens == 0 && seq.confirmed_len == seq.prefill_target &&
        seq.phase != SeqPhase::kFinished)
      finish(seq, FinishReason::kLength);
    settle(seq);
  }
}

void EngineCore::take_token(Sequence& seq, RowResult row) {
  seq.tokens.push_back(row.token);
  ++totals_.generated_tokens;
  if (seq.timings.first_token == 0) seq.timings.first_token = clock_.now();
  const bool taken =
      seq.stream->push({row.token, row.has_logprob, row.logprob, std::move(row.top)});
  touch(seq);
  if (!taken) {
    log_warn("request {}: cut off, its client reads too slowly", seq.request.request_id);
    finish(seq, FinishReason::kError,
           Error{ErrorCode::kTimeout,
                 "the client read too slowly and was cut off",
                 {},
                 "slow_reader",
                 0});
  } else if (row.finish == SlotFinish::kStopId) {
    finish(seq, FinishReason::kStop, {}, row.token);
  } else if (row.finish == SlotFinish::kLength || seq.generated() >= seq.request.max_new_tokens) {
    finish(seq, FinishReason::kLength);
  }
}

// The stream gets its end now; slot and pages follow in settle().
void EngineCore::finish(Sequence& seq, FinishReason reason, const std::optional<Error>& error,
                        TokenId stop_token) {
  if (seq.phase == SeqPhase::kWaiting) scheduler_->dequeue(seq);
  seq.phase = SeqPhase::kFinished;
  leave_queue(seq);
  seq.usage.generated_tokens = seq.generated();
  seq.timings.finished = clock_.now();
  seq.stream->end({reason, stop_token, error, seq.usage, seq.timings});
  touch(seq);
  --counters_.live;
  ++counters_.ended;
}

// The one place where slots and pages return: when the last step that names them was waited for.
void EngineCore::settle(Sequence& seq) {
  if (seq.active() || seq.phase == SeqPhase::kWaiting || seq.open_tickets > 0) return;
  if (seq.slot != kNoSlot) scheduler_->release(seq);
  if (seq.phase == SeqPhase::kFinished) sequences_.erase(seq.id);
}

void EngineCore::leave_queue(Sequence& seq) {
  if (!seq.counted_as_waiting) return;
  seq.counted_as_waiting = false;
  --counters_.waiting_requests;
  counters_.waiting_tokens -= seq.prompt_len;
}

void EngineCore::touch(Sequence& seq) {
  if (seq.touched_in == step_calls_) return;
  seq.touched_in = step_calls_;
  touched_.push_back(seq.stream);
}

void EngineCore::notify_touched() {
  for (const std::shared_ptr<TokenStream>& stream : touched_) stream->notify();
  touched_.clear();
  ++step_calls_;
}

void EngineCore::report_queue() {
  if (scheduler_->queue_version() == reported_queue_version_) return;
  reported_queue_version_ = scheduler_->queue_version();
  std::int32_t position = 0;
  scheduler_->for_each_waiting([&](Sequence& seq) {
    if (seq.queue_position != position) {
      seq.queue_position = position;
      seq.stream->set_progress(position, -1);
      touch(seq);
    }
    ++position;
  });
}

// At most one line a second: under pressure there are many.
void EngineCore::log_preemptions() {
  const std::uint64_t count = scheduler_->counters().swapped + scheduler_->counters().recomputed;
  const Nanos now = clock_.now();
  if (count == logged_preemptions_ || now - last_preemption_log_ < kLogInterval) return;
  log_warn("engine: KV pages ran out, {} sequences made room; {} run, {} wait",
           count - logged_preemptions_, scheduler_->num_active(), scheduler_->num_waiting());
  logged_preemptions_ = count;
  last_preemption_log_ = now;
}

void EngineCore::fail_started(const Error& error) {
  end(scheduler_->with_slot(), FinishReason::kError, error);
}

void EngineCore::end_all(FinishReason reason, const std::optional<Error>& error) {
  std::vector<Sequence*> left;
  for (const auto& [id, seq] : sequences_) left.push_back(seq.get());
  end(left, reason, error);
}

void EngineCore::end(const std::vector<Sequence*>& sequences, FinishReason reason,
                     const std::optional<Error>& error) {
  open_.clear();
  const std::vector<Sequence*> all = sequences;  // it may be the scheduler's own list
  for (Sequence* seq : all) {
    seq->open_tickets = 0;
    if (seq->phase != SeqPhase::kFinished) finish(*seq, reason, error);
    settle(*seq);
  }
  notify_touched();
}

void EngineCore::restart_started(std::int32_t max_restarts, const Error& error) {
  open_.clear();
  const std::vector<Sequence*> started = scheduler_->with_slot();
  for (Sequence* seq : started) {
    seq->open_tickets = 0;
    seq->pending_samples = 0;
    seq->logprobs_planned = seq->logprobs_reported;  // those of open steps never came
    const bool ends = seq->phase != SeqPhase::kFinished && seq->restarts++ >= max_restarts;
    if (ends) finish(*seq, FinishReason::kError, error);
    if (seq->phase != SeqPhase::kFinished) seq->phase = SeqPhase::kPreempting;
    settle(*seq);
  }
  notify_touched();
}

std::unique_ptr<Model> EngineCore::detach_model() {
  STRATA_CHECK(open_.empty() && scheduler_->with_slot().empty());
  return std::move(model_);
}

void EngineCore::attach_model(std::unique_ptr<Model> model) {
  if (!same_limits(info_, model->info()))
    throw StartupError("the rebuilt model has other limits than the first one");
  add_counters(totals_);
  make_scheduler();
  logged_preemptions_ = 0;
  nanos_per_row_ = 0;
  for (const auto& [id, seq] : sequences_) scheduler_->enqueue(*seq);
  reported_queue_version_ = 0;
  model_ = std::move(model);
}

// When the running step began: steps run one after the other.
Nanos EngineCore::front_started() const { return std::max(open_.front().submitted, last_done_); }

// A fixed part, and ten times what so many rows take here. Before the first step that is unknown:
// then 32 rows may take as long as the fixed part.
Nanos EngineCore::allowance(std::int32_t rows) const {
  const bool known = nanos_per_row_ > 0;
  double fixed = options_.step_deadline_ms * 1e6;
  if (options_.step_deadline_ms < 0)
    fixed = static_cast<double>(known ? kDeadline : kFirstDeadline);
  const double per_row = known ? 10 * nanos_per_row_ : fixed / 32;
  return static_cast<Nanos>(fixed + per_row * rows);
}

std::optional<Nanos> EngineCore::time_to_deadline() const {
  if (open_.empty() || options_.step_deadline_ms == 0) return std::nullopt;
  return front_started() + allowance(open_.front().rows) - clock_.now();
}

void EngineCore::note_step(const OpenStep& open, const StepTimings& timings) {
  StepTimes& times = totals_.step_times;
  ++times.steps;
  times.compute += timings.begin_ns + timings.compute_ns;
  times.sample += timings.sample_ns;
  costs_.note(open.prompt_rows, open.rows, open.copies, timings);
  const Nanos now = clock_.now();
  const double pace =
      static_cast<double>(now - std::max(open.submitted, last_done_)) / std::max(open.rows, 1);
  nanos_per_row_ = std::max(pace, 0.8 * nanos_per_row_ + 0.2 * pace);
  last_done_ = now;
}

// What the present scheduler counted, on top of its predecessors.
void EngineCore::add_counters(EngineInfo& info) const {
  const Scheduler::Counters& counters = scheduler_->counters();
  info.preemptions += counters.swapped + counters.recomputed;
  info.preemptions_swapped += counters.swapped;
  info.preemptions_recomputed += counters.recomputed;
  info.prefix_query_tokens += counters.prefix_query_tokens;
  info.prefix_hit_tokens += counters.prefix_hit_tokens;
  info.pages_swapped_out += scheduler_->kv().pages_swapped_out();
  info.pages_swapped_in += scheduler_->kv().pages_swapped_in();
}

EngineInfo EngineCore::snapshot() const {
  EngineInfo info = totals_;
  add_counters(info);
  info.loaded = model_ != nullptr;
  info.running = scheduler_->num_active();
  info.waiting = scheduler_->num_waiting();
  info.free_pages = scheduler_->kv().available();
  return info;
}

EngineCore::KvUse EngineCore::kv_use() const {
  KvUse use;
  for (const Sequence* seq : scheduler_->with_slot()) {
    for (int g = 0; g < kv::kNumGroups; ++g) {
      const auto pages = static_cast<std::int64_t>(seq->pages.groups[g].pages.size());
      if (pages == 0) continue;
      use.held_tokens += pages * kv_config_.page_tokens;
      const std::int32_t window =
          g == kv::kWindow ? std::max(0, seq->confirmed_len + 1 - kv_config_.window) : 0;
      use.live_tokens += seq->planned_len - window;
    }
  }
  return use;
}

void EngineCore::check_integrity() const {
  std::vector<const kv::SequencePages*> tables;
  std::vector<bool> slot_used(static_cast<std::size_t>(info_.max_slots));
  for (const auto& [id, seq] : sequences_) {
    tables.push_back(&seq->pages);
    const bool waiting = seq->phase == SeqPhase::kWaiting;
    STRATA_CHECK(waiting == (seq->slot == kNoSlot) && (!waiting || seq->pages.empty()),
                 "sequence {} in slot {}", id, seq->slot);
    STRATA_CHECK(seq->active() || waiting || seq->open_tickets > 0, "sequence {} lingers", id);
    STRATA_CHECK(seq->confirmed_len <= seq->planned_len || waiting, "sequence {}", id);
    if (waiting) continue;
    const kv::GroupTable& window = seq->pages.groups[kv::kWindow];
    STRATA_CHECK(!seq->active() || window.pages.empty() ||
                     seq->confirmed_len - window.first_page * kv_config_.page_tokens <=
                         kv_config_.window + kv_config_.page_tokens - 1,
                 "sequence {} holds window pages from {} at position {}", id, window.first_page,
                 seq->confirmed_len);
    STRATA_CHECK(!slot_used[static_cast<std::size_t>(seq->slot)], "slot {}", seq->slot);
    slot_used[static_cast<std::size_t>(seq->slot)] = true;
    std::int32_t named = 0;
    for (const OpenStep& open : open_) {
      named += static_cast<std::int32_t>(
          std::count_if(open.entries.begin(), open.entries.end(),
                        [&](const StepEntry& entry) { return entry.seq == seq.get(); }));
    }
    STRATA_CHECK(named == seq->open_tickets, "sequence {} is in {} open steps, counts {}", id,
                 named, seq->open_tickets);
  }
  scheduler_->kv().check_integrity(tables);
}

}  // namespace strata
