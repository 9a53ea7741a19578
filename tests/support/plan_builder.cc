#include "tests/support/plan_builder.h"

#include <algorithm>

#include "base/check.h"
#include "base/random.h"

namespace strata::test {

PlanBuilder::PlanBuilder(const ModelConfig& config, const kernels::BackendOptions& options)
    : page_tokens_(options.page_tokens), window_(config.window) {
  for (const bool windowed : config.windowed)
    has_group_[windowed ? kWindowGroup : kFullGroup] = true;
  for (PageId page = options.num_pages - 1; page > kScrapPage; --page) free_.push_back(page);
  std::sort(free_.begin(), free_.end(), [](PageId a, PageId b) {
    return mix64(static_cast<std::uint64_t>(a)) < mix64(static_cast<std::uint64_t>(b));
  });
  plan_.kv = options.kv_dtype;
}

PageId PlanBuilder::allocate() {
  STRATA_CHECK(!free_.empty(), "the test's pool is too small");
  const PageId page = free_.back();
  free_.pop_back();
  std::erase(poison_, page);
  return page;
}

void PlanBuilder::free_page(PageId page) {
  free_.insert(free_.begin(), page);
  poison_.push_back(page);
}

void PlanBuilder::admit(SlotId slot, SamplingParams sampling, Admission admission) {
  SlotUpdate update;
  update.op = SlotOp::kAdmit;
  update.slot = slot;
  update.sampling = std::move(sampling);
  update.position = admission.position;
  update.num_generated = admission.num_generated;
  update.max_new_tokens = admission.max_new_tokens;
  update.history = std::move(admission.history);
  update.history_prompt_len = admission.history_prompt_len;
  plan_.slots.push_back(std::move(update));
  slots_[slot].position = admission.position;
  for (Table& table : slots_[slot].tables) table.sent = 0;
}

void PlanBuilder::change(SlotId slot, SamplingParams sampling) {
  SlotUpdate update;
  update.op = SlotOp::kChange;
  update.slot = slot;
  update.sampling = std::move(sampling);
  plan_.slots.push_back(std::move(update));
}

void PlanBuilder::release(SlotId slot) {
  SlotUpdate update;
  update.op = SlotOp::kRelease;
  update.slot = slot;
  plan_.slots.push_back(std::move(update));
  for (const Table& table : slots_.at(slot).tables)
    for (const PageId page : table.pages) free_page(page);
  slots_.erase(slot);
}

void PlanBuilder::extend_tables(Slot& slot, std::int32_t end, SeqSpan& span) {
  for (std::size_t g = 0; g < kNumKvGroups; ++g) {
    if (!has_group_[g]) continue;
    Table& table = slot.tables[g];
    const std::int32_t oldest = g == kWindowGroup ? std::max(0, slot.position - window_ + 1) : 0;
    while (table.first_page < oldest / page_tokens_) {
      if (!table.pages.empty()) {
        free_page(table.pages.front());
        table.pages.erase(table.pages.begin());
      }
      ++table.first_page;
    }
    while (table.first_page + static_cast<std::int32_t>(table.pages.size()) <
           (end + page_tokens_ - 1) / page_tokens_)
      table.pages.push_back(allocate());
    const auto count = static_cast<std::int32_t>(table.pages.size());
    span.table_offset[g] = static_cast<std::int32_t>(plan_.pages.size());
    span.num_pages[g] = count;
    span.first_page[g] = table.first_page;
    span.changed_from[g] = std::max(table.sent, table.first_page);
    table.sent = table.first_page + count;
    plan_.pages.insert(plan_.pages.end(), table.pages.begin(), table.pages.end());
  }
}

void PlanBuilder::add_span(SlotId slot_id, SpanKind kind, std::span<const TokenSource> tokens) {
  Slot& slot = slots_.at(slot_id);
  SeqSpan span;
  span.slot = slot_id;
  span.kind = kind;
  span.first_row = static_cast<std::int32_t>(plan_.rows.size());
  span.n_rows = static_cast<std::int32_t>(tokens.size());
  span.kv_len_before = slot.position;
  extend_tables(slot, slot.position + span.n_rows, span);
  for (std::int32_t i = 0; i < span.n_rows; ++i)
    plan_.rows.push_back({slot_id, tokens[static_cast<std::size_t>(i)], i});
  plan_.seqs.push_back(span);
}

void PlanBuilder::add_logits(std::int32_t row, LogitsKind kind, std::int32_t top_n, TokenId asked) {
  LogitsRow logits;
  logits.row = row;
  logits.kind = kind;
  logits.top_n = top_n;
  logits.asked = asked;
  plan_.logits.push_back(logits);
}

void PlanBuilder::prefill(SlotId slot, std::span<const TokenId> tokens, Want want,
                          std::int32_t top_n) {
  const auto first = static_cast<std::int32_t>(plan_.rows.size());
  std::vector<TokenSource> sources;
  for (const TokenId token : tokens) sources.push_back({token});
  add_span(slot, SpanKind::kPrefill, sources);
  const auto count = static_cast<std::int32_t>(tokens.size());
  if (want == Want::kSample) add_logits(first + count - 1, LogitsKind::kSample, top_n, kNoToken);
  if (want == Want::kAllLogprobs)
    for (std::int32_t i = 0; i < count; ++i) {
      const bool last = i + 1 == count;
      add_logits(first + i, LogitsKind::kPromptLogprob, top_n,
                 last ? 0 : tokens[static_cast<std::size_t>(i + 1)]);
    }
}

void PlanBuilder::decode(SlotId slot, std::int32_t top_n) {
  const auto row = static_cast<std::int32_t>(plan_.rows.size());
  const TokenSource last;
  add_span(slot, SpanKind::kDecode, {&last, 1});
  add_logits(row, LogitsKind::kSample, top_n, kNoToken);
}

void PlanBuilder::verify(SlotId slot, std::span<const TokenId> drafts, std::int32_t top_n) {
  const auto row = static_cast<std::int32_t>(plan_.rows.size());
  std::vector<TokenSource> sources(1);
  for (const TokenId draft : drafts) sources.push_back({draft});
  add_span(slot, SpanKind::kVerify, sources);
  for (std::size_t i = 0; i <= drafts.size(); ++i)
    add_logits(row + static_cast<std::int32_t>(i), LogitsKind::kVerify, top_n,
               i < drafts.size() ? drafts[i] : kNoToken);
}

void PlanBuilder::pad(std::int32_t rows, std::int32_t seqs, std::int32_t logits_rows) {
  plan_.shape.rows += rows;
  plan_.shape.seqs += seqs;
  plan_.shape.logits_rows += logits_rows;
}

StepPlan PlanBuilder::take() {
  plan_.id = next_id_++;
  plan_.shape.rows += static_cast<std::int32_t>(plan_.rows.size());
  plan_.shape.seqs += static_cast<std::int32_t>(plan_.seqs.size());
  plan_.shape.logits_rows += static_cast<std::int32_t>(plan_.logits.size());
  plan_.poison = std::move(poison_);
  poison_.clear();
  for (const PageId page : moved_from_) free_page(page);  // the plan taken still copies from it
  moved_from_.clear();
  last_spans_ = plan_.seqs;
  StepPlan taken = std::move(plan_);
  plan_ = StepPlan{};
  plan_.kv = taken.kv;
  return taken;
}

void PlanBuilder::confirm(const StepResult& result) {
  for (const SeqSpan& span : last_spans_) {
    std::int32_t tokens = 0;
    bool skipped = false;
    for (const RowResult& row : result.rows) {
      if (row.slot != span.slot) continue;
      skipped = skipped || row.skipped;
      ++tokens;
    }
    if (skipped) continue;
    Slot& slot = slots_.at(span.slot);
    slot.position += span.kind == SpanKind::kVerify ? tokens : span.n_rows;
  }
}

std::vector<PageCopy> PlanBuilder::move_pages(SlotId slot) {
  std::vector<PageCopy> copies;
  for (Table& table : slots_.at(slot).tables) {
    for (PageId& page : table.pages) {
      const PageId moved = allocate();
      copies.push_back({page, moved, CopyKind::kDevice});
      moved_from_.push_back(page);
      page = moved;
    }
    table.sent = 0;
  }
  return copies;
}

}  // namespace strata::test
