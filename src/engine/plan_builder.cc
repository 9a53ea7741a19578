#include "engine/plan_builder.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace strata {
namespace {

static_assert(static_cast<int>(kFullGroup) == kv::kFull &&
              static_cast<int>(kWindowGroup) == kv::kWindow && kNumKvGroups == kv::kNumGroups);

SlotUpdate admit_update(const Sequence& seq) {
  SlotUpdate update;
  update.op = SlotOp::kAdmit;
  update.slot = seq.slot;
  update.seq = seq.id;
  update.sampling = seq.request.sampling;
  update.position = seq.planned_len;
  update.num_generated = seq.generated();
  update.max_new_tokens = seq.request.max_new_tokens;
  if (seq.request.sampling.needs_history()) {
    update.history = seq.tokens;
    update.history_prompt_len = seq.prompt_len;
  }
  return update;
}

void add_tables(StepPlan& plan, SeqSpan& span, Sequence& seq, const ModelInfo& info) {
  const kv::KvConfig window{.page_tokens = info.page_tokens, .window = info.window};
  for (std::size_t g = 0; g < kNumKvGroups; ++g) {
    kv::GroupTable& table = seq.pages.groups[g];
    // Window pages that the span's rows cannot read may be given back while it runs.
    const std::int32_t needed =
        g == kWindowGroup ? kv::first_window_page(window, seq.planned_len) : 0;
    const std::int32_t first = std::clamp(needed, table.first_page, table.end_page());
    span.table_offset[g] = static_cast<std::int32_t>(plan.pages.size());
    span.first_page[g] = first;
    span.num_pages[g] = table.end_page() - first;
    span.changed_from[g] = std::max(table.changed_from, first);
    plan.pages.insert(plan.pages.end(), table.pages.begin() + (first - table.first_page),
                      table.pages.end());
    table.changed_from = table.end_page();
  }
}

void add_rows(StepPlan& plan, const ScheduledSpan& item, std::int32_t first_row) {
  const Sequence& seq = *item.seq;
  for (std::int32_t i = 0; i < item.n_rows; ++i) {
    Row row{.slot = seq.slot, .token = {}, .pos_offset = i};
    if (item.kind == SpanKind::kPrefill)
      row.token.literal = seq.tokens[static_cast<std::size_t>(seq.planned_len + i)];
    plan.rows.push_back(row);
  }
  const std::int32_t reports = seq.logprob_rows(item.n_rows);
  const std::int32_t first_report = std::max(seq.planned_len, seq.logprobs_planned);
  for (std::int32_t position = first_report; position < first_report + reports; ++position) {
    plan.logits.push_back({.row = first_row + position - seq.planned_len,
                           .kind = LogitsKind::kPromptLogprob,
                           .top_n = seq.request.prompt_top_logprobs,
                           .mask_index = -1,
                           .asked = seq.tokens[static_cast<std::size_t>(position) + 1]});
  }
  if (!item.samples()) return;
  plan.logits.push_back({.row = first_row + item.n_rows - 1,
                         .kind = LogitsKind::kSample,
                         .top_n = seq.request.sampling.top_logprobs,
                         .mask_index = -1,
                         .asked = kNoToken});
}

}  // namespace

StepPlan build_plan(const ModelInfo& info, PlanInputs inputs) {
  StepPlan plan;
  plan.id = inputs.id;
  plan.kv = info.kv_dtype;
  plan.poison = std::move(inputs.page_work.freed);
  for (const kv::SwapCopy& copy : inputs.page_work.copies) {
    if (copy.out) plan.copies.push_back({copy.page, copy.host, CopyKind::kSwapOut});
    else plan.copies.push_back({copy.host, copy.page, CopyKind::kSwapIn});
  }
  // A slot may be released and admitted by one plan: in this order.
  for (const SlotId slot : inputs.released_slots) {
    SlotUpdate update;
    update.op = SlotOp::kRelease;
    update.slot = slot;
    plan.slots.push_back(std::move(update));
  }
  for (const ScheduledSpan& item : inputs.spans) {
    Sequence& seq = *item.seq;
    if (!seq.slot_admitted) plan.slots.push_back(admit_update(seq));
    seq.slot_admitted = true;
    SeqSpan span;
    span.slot = seq.slot;
    span.kind = item.kind;
    span.first_row = static_cast<std::int32_t>(plan.rows.size());
    span.n_rows = item.n_rows;
    span.kv_len_before = seq.planned_len;
    add_tables(plan, span, seq, info);
    add_rows(plan, item, span.first_row);
    plan.seqs.push_back(span);
  }
  plan.shape = shape_of(plan, info);
  return plan;
}

StepShape shape_of(const StepPlan& plan, const ModelInfo& info) {
  const auto bucket = [](std::size_t count, std::int32_t most) {
    const auto n = static_cast<std::int32_t>(count);
    STRATA_CHECK(n <= most, "{} of at most {}", n, most);
    return shape_bucket(n, most);
  };
  return {.rows = bucket(plan.rows.size(), info.max_rows),
          .seqs = bucket(plan.seqs.size(), info.max_slots),
          .logits_rows = bucket(plan.logits.size(), info.max_logits_rows)};
}

}  // namespace strata
