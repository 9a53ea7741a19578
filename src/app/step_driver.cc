#include "app/step_driver.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"
#include "engine/plan_builder.h"

namespace strata::app {
namespace {

std::int32_t divide_up(std::int32_t value, std::int32_t by) { return (value + by - 1) / by; }

std::int32_t full_group_pages(const ModelInfo& info, std::int32_t context) {
  return info.has_group[kFullGroup] ? divide_up(context, info.page_tokens) : 0;
}

// A step sees the window before its first row and its own rows, on partly used pages at both ends.
std::int32_t window_group_pages(const ModelInfo& info, std::int32_t context) {
  if (!info.has_group[kWindowGroup]) return 0;
  const std::int32_t seen = (info.window + info.max_rows) / info.page_tokens + 2;
  return std::min(seen, divide_up(context, info.page_tokens));
}

std::vector<TokenId> tokens_of(const StepResult& result) {
  std::vector<TokenId> tokens;
  for (const RowResult& row : result.rows) tokens.push_back(row.token);
  return tokens;
}

}  // namespace

std::int64_t StepDriver::pages_needed(const ModelInfo& info, std::int32_t batch,
                                      std::int32_t context) {
  return std::int64_t{batch} *
             (full_group_pages(info, context) + window_group_pages(info, context)) +
         1;
}

StepDriver::StepDriver(Model& model, std::int32_t batch, std::int32_t context)
    : model_(model),
      info_(model.info()),
      full_pages_(full_group_pages(info_, context)),
      window_pages_(window_group_pages(info_, context)),
      sequences_(static_cast<std::size_t>(batch)) {
  STRATA_CHECK(batch <= info_.max_slots && batch <= info_.max_rows);
  STRATA_CHECK(pages_needed(info_, batch, context) <= info_.num_pages);
}

void StepDriver::admit(std::int32_t max_new_tokens, std::int32_t context) {
  for (std::size_t i = 0; i < sequences_.size(); ++i) {
    sequences_[i].length = context;
    if (context > 0) fill_pages(static_cast<SlotId>(i));
    SlotUpdate update;
    update.op = SlotOp::kAdmit;
    update.slot = static_cast<SlotId>(i);
    update.sampling.temperature = 0.0F;
    update.sampling.ignore_eos = true;
    update.position = context;
    update.max_new_tokens = max_new_tokens;
    updates_.push_back(std::move(update));
  }
}

void StepDriver::fill_pages(SlotId slot) {
  const PageId full = kScrapPage + 1 + slot * (full_pages_ + window_pages_);
  const PageId window = full + full_pages_;
  for (std::int32_t page = 1; page < full_pages_; ++page)
    copies_.push_back({.src = full, .dst = full + page});
  for (std::int32_t page = 1; page < window_pages_; ++page)
    copies_.push_back({.src = window, .dst = window + page});
}

StepPlan StepDriver::new_plan() {
  StepPlan plan;
  plan.id = next_id_++;
  plan.slots = std::exchange(updates_, {});
  plan.copies = std::exchange(copies_, {});
  plan.kv = info_.kv_dtype;
  return plan;
}

void StepDriver::add_table(StepPlan& plan, SeqSpan& span, KvGroup group) const {
  const std::int32_t used = divide_up(span.kv_len_before + span.n_rows, info_.page_tokens);
  const std::int32_t own = full_pages_ + window_pages_;
  PageId base = kScrapPage + 1 + span.slot * own;
  std::int32_t first = 0;
  std::int32_t ring = full_pages_;
  if (group == kWindowGroup) {
    base += full_pages_;
    ring = window_pages_;
    first = std::max(0, span.kv_len_before - info_.window + 1) / info_.page_tokens;
  }
  span.table_offset[group] = static_cast<std::int32_t>(plan.pages.size());
  if (!info_.has_group[group]) return;
  span.first_page[group] = first;
  span.num_pages[group] = used - first;
  STRATA_CHECK(span.num_pages[group] <= ring);
  for (std::int32_t page = first; page < used; ++page) plan.pages.push_back(base + page % ring);
}

void StepDriver::add_span(StepPlan& plan, SlotId slot, SpanKind kind, std::int32_t rows) {
  SeqSpan span;
  span.slot = slot;
  span.kind = kind;
  span.first_row = static_cast<std::int32_t>(plan.rows.size());
  span.n_rows = rows;
  span.kv_len_before = sequences_[static_cast<std::size_t>(slot)].length;
  add_table(plan, span, kFullGroup);
  add_table(plan, span, kWindowGroup);
  plan.seqs.push_back(span);
  for (std::int32_t i = 0; i < rows; ++i)
    plan.rows.push_back({.slot = slot, .token = {}, .pos_offset = i});
  sequences_[static_cast<std::size_t>(slot)].length += rows;
}

Ticket StepDriver::submit(StepPlan plan) {
  plan.shape = shape_of(plan, info_);
  return model_.submit(std::move(plan), [] {});
}

int StepDriver::prefill(const std::vector<std::vector<TokenId>>& prompts) {
  STRATA_CHECK(prompts.size() == sequences_.size());
  int steps = 0;
  for (SlotId slot = 0; slot < static_cast<SlotId>(prompts.size()); ++slot) {
    const std::vector<TokenId>& tokens = prompts[static_cast<std::size_t>(slot)];
    const auto total = static_cast<std::int32_t>(tokens.size());
    for (std::int32_t done = 0; done < total; ++steps) {
      const std::int32_t chunk = std::min(total - done, info_.max_rows);
      StepPlan plan = new_plan();
      add_span(plan, slot, SpanKind::kPrefill, chunk);
      for (std::int32_t i = 0; i < chunk; ++i)
        plan.rows[static_cast<std::size_t>(i)].token.literal =
            tokens[static_cast<std::size_t>(done + i)];
      done += chunk;
      if (done == total) plan.logits.push_back({.row = chunk - 1});
      model_.wait(submit(std::move(plan)));
    }
  }
  return steps;
}

StepPlan StepDriver::decode_plan() {
  StepPlan plan = new_plan();
  for (SlotId slot = 0; slot < static_cast<SlotId>(sequences_.size()); ++slot) {
    add_span(plan, slot, SpanKind::kDecode, 1);
    plan.logits.push_back({.row = slot});
  }
  return plan;
}

std::vector<TokenId> StepDriver::decode() { return tokens_of(model_.wait(submit(decode_plan()))); }

void StepDriver::decode(int steps, const std::function<void(const std::vector<TokenId>&)>& each) {
  std::optional<Ticket> before;
  for (int step = 0; step < steps; ++step) {
    const Ticket ticket = submit(decode_plan());
    if (before) each(tokens_of(model_.wait(*before)));
    before = ticket;
  }
  if (before) each(tokens_of(model_.wait(*before)));
}

}  // namespace strata::app
