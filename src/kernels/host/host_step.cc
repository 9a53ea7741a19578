#include "kernels/host/host_step.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace strata::kernels {
namespace {

std::unordered_map<TokenId, TokenCount> count_tokens(const SlotUpdate& update) {
  std::unordered_map<TokenId, TokenCount> counts;
  const auto prompt_len = static_cast<std::size_t>(update.history_prompt_len);
  for (std::size_t i = 0; i < update.history.size(); ++i) {
    TokenCount& count = counts[update.history[i]];
    if (i < prompt_len) count.in_prompt = true;
    else ++count.generated;
  }
  return counts;
}

bool is_stop_id(const SamplingParams& sampling, TokenId token) {
  return std::find(sampling.stop_ids.begin(), sampling.stop_ids.end(), token) !=
         sampling.stop_ids.end();
}

}  // namespace

HostStep::HostStep(const BackendOptions& options)
    : page_tokens_(options.page_tokens),
      max_rows_(options.max_rows),
      slots_(static_cast<std::size_t>(options.max_slots)) {
  rows_.reserve(static_cast<std::size_t>(options.max_rows));
}

SlotState& HostStep::slot_ref(SlotId slot) {
  STRATA_CHECK(slot >= 0 && static_cast<std::size_t>(slot) < slots_.size(), "slot {} of {}", slot,
               slots_.size());
  return slots_[static_cast<std::size_t>(slot)];
}

void HostStep::begin(const StepPlan& plan) {
  STRATA_CHECK(plan_ == nullptr, "step {} begun before the last one ended", plan.id);
  STRATA_CHECK(plan.shape.rows <= max_rows_, "{} rows, room for {}", plan.shape.rows, max_rows_);
  STRATA_CHECK(plan.rows.size() <= static_cast<std::size_t>(plan.shape.rows) &&
                   plan.logits.size() <= static_cast<std::size_t>(plan.shape.logits_rows),
               "plan {} is larger than its shape", plan.id);
  plan_ = &plan;
  result_ = StepResult{};
  result_.id = plan.id;
  last_skipped_ = kNoSlot;
  for (const SlotUpdate& update : plan.slots) apply_update(update);
  rows_.assign(static_cast<std::size_t>(plan.shape.rows), RowInput{});
  seqs_.clear();
  progress_.clear();
  for (const SeqSpan& span : plan.seqs) {
    if (span.slot == kNoSlot) continue;
    update_tables(span);
    if (!slot_ref(span.slot).finished) resolve_span(span);
  }
}

void HostStep::apply_update(const SlotUpdate& update) {
  SlotState& state = slot_ref(update.slot);
  switch (update.op) {
    case SlotOp::kRelease: state = SlotState{}; return;
    case SlotOp::kChange:
      STRATA_CHECK(state.admitted, "change of free slot {}", update.slot);
      state.sampling = update.sampling;
      return;
    case SlotOp::kAdmit:
      state = SlotState{};
      state.admitted = true;
      state.position = update.position;
      state.num_generated = update.num_generated;
      state.max_new_tokens = update.max_new_tokens;
      state.sampling = update.sampling;
      state.history = count_tokens(update);
      return;
  }
}

// `changed_from` counts logical pages. Entries below it are what the slot already has, but for
// those that fell out of the window, which are dropped from the front.
void HostStep::update_tables(const SeqSpan& span) {
  SlotState& state = slot_ref(span.slot);
  STRATA_CHECK(state.admitted, "plan {} names free slot {}", plan_->id, span.slot);
  for (std::size_t g = 0; g < kNumKvGroups; ++g) {
    PageTable& table = state.tables[g];
    const std::int32_t first = span.first_page[g];
    const std::int32_t end = first + span.num_pages[g];
    const std::int32_t kept_end =
        std::min(table.first_page + static_cast<std::int32_t>(table.pages.size()), end);
    const std::int32_t from = std::clamp(std::min(span.changed_from[g], kept_end), first, end);
    STRATA_CHECK(from == first || table.first_page <= first, "window of slot {} moved back",
                 span.slot);
    if (from > first)
      table.pages.erase(table.pages.begin(), table.pages.begin() + (first - table.first_page));
    table.first_page = first;
    const auto source = plan_->pages.begin() + span.table_offset[g];
    table.pages.resize(static_cast<std::size_t>(from - first));
    table.pages.insert(table.pages.end(), source + (from - first), source + (end - first));
  }
}

void HostStep::resolve_span(const SeqSpan& span) {
  SlotState& state = slot_ref(span.slot);
  const auto seq_index = static_cast<std::int32_t>(seqs_.size());
  SeqInput seq{.slot = span.slot,
               .kind = span.kind,
               .first_row = span.first_row,
               .n_rows = span.n_rows,
               .first_position = state.position,
               .tables = {&state.tables[kFullGroup], &state.tables[kWindowGroup]}};
  for (std::int32_t i = span.first_row; i < span.first_row + span.n_rows; ++i) {
    const Row& row = plan_->rows[static_cast<std::size_t>(i)];
    STRATA_CHECK(row.slot == span.slot && row.pos_offset == i - span.first_row,
                 "row {} of plan {} does not belong to its span", i, plan_->id);
    const TokenId token = row.token.literal == kNoToken ? state.last_token : row.token.literal;
    STRATA_CHECK(token >= 0, "slot {} has no last token for row {}", span.slot, i);
    rows_[static_cast<std::size_t>(i)] =
        RowInput{span.slot, token, state.position + row.pos_offset, seq_index};
  }
  seqs_.push_back(seq);
  progress_.push_back({});
}

const LogitsRow* HostStep::logits_row(std::int32_t index) const {
  if (static_cast<std::size_t>(index) >= plan_->logits.size()) return nullptr;
  return &plan_->logits[static_cast<std::size_t>(index)];
}

bool HostStep::wants_logits(std::int32_t index) const {
  const LogitsRow* logits = logits_row(index);
  if (logits == nullptr) return false;
  const std::int32_t seq = rows_[static_cast<std::size_t>(logits->row)].seq;
  return seq >= 0 && !progress_[static_cast<std::size_t>(seq)].ended;
}

void HostStep::record_token(std::int32_t index, RowResult result) {
  const LogitsRow& logits = *logits_row(index);
  const RowInput& row = rows_[static_cast<std::size_t>(logits.row)];
  SlotState& state = slot_ref(row.slot);
  SpanProgress& progress = progress_[static_cast<std::size_t>(row.seq)];
  state.last_token = result.token;
  ++state.num_generated;
  ++state.history[result.token].generated;
  ++progress.tokens;
  if (is_stop_id(state.sampling, result.token)) result.finish = SlotFinish::kStopId;
  else if (state.num_generated >= state.max_new_tokens) result.finish = SlotFinish::kLength;
  state.finished = result.finish != SlotFinish::kNone;
  const bool mismatch = logits.kind == LogitsKind::kVerify && result.token != logits.asked;
  progress.ended = state.finished || mismatch;
  emit(index, std::move(result));
}

void HostStep::record_report(std::int32_t index, RowResult result) {
  emit(index, std::move(result));
}

void HostStep::skip(std::int32_t index) {
  const LogitsRow* logits = logits_row(index);
  if (logits == nullptr) return;
  if (rows_[static_cast<std::size_t>(logits->row)].seq >= 0) return;  // behind a mismatch
  const SlotId slot = plan_->rows[static_cast<std::size_t>(logits->row)].slot;
  if (logits->kind == LogitsKind::kVerify && slot == last_skipped_) return;
  last_skipped_ = slot;
  RowResult result;
  result.skipped = true;
  emit(index, std::move(result));
}

void HostStep::emit(std::int32_t index, RowResult result) {
  result.row = logits_row(index)->row;
  result.slot = plan_->rows[static_cast<std::size_t>(result.row)].slot;
  result_.rows.push_back(std::move(result));
}

StepResult HostStep::end() {
  for (std::size_t i = 0; i < seqs_.size(); ++i) {
    SlotState& state = slot_ref(seqs_[i].slot);
    switch (seqs_[i].kind) {
      case SpanKind::kPrefill: state.position += seqs_[i].n_rows; break;
      case SpanKind::kDecode: state.position += 1; break;
      case SpanKind::kVerify: state.position += progress_[i].tokens; break;
    }
  }
  plan_ = nullptr;
  return std::move(result_);
}

}  // namespace strata::kernels
