#include "tests/unit/engine/paged_model.h"

#include <fmt/core.h>

#include <algorithm>
#include <stdexcept>

#include "base/random.h"

namespace strata::test {
namespace {

template <typename... Args>
void require(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) throw std::logic_error(fmt::format(format, std::forward<Args>(args)...));
}

std::uint64_t fold(std::uint64_t hash, TokenId token) {
  return mix64(hash + 0x9e3779b97f4a7c15ULL * static_cast<std::uint64_t>(token + 1));
}

TokenId token_of(const ModelInfo& info, std::uint64_t seed, std::uint64_t full,
                 std::uint64_t window, std::int32_t position) {
  const std::uint64_t hash = random_at(seed ^ full, window + static_cast<std::uint64_t>(position));
  return static_cast<TokenId>(hash % static_cast<std::uint64_t>(info.vocab));
}

}  // namespace

ModelInfo small_model_info() {
  ModelInfo info;
  info.name = "paged";
  info.vocab = 50;
  info.max_context = 256;
  info.window = 10;
  info.page_tokens = 4;
  info.num_pages = 64;
  info.max_slots = 6;
  info.max_rows = 24;
  info.max_logits_rows = 16;
  info.backend = "test";
  return info;
}

std::vector<TokenId> expected_answer(const ModelInfo& info, const EngineRequest& request) {
  std::vector<TokenId> tokens = request.prompt;
  std::vector<TokenId> answer;
  std::uint64_t full = 0;
  std::size_t folded = 0;
  while (static_cast<std::int32_t>(answer.size()) < request.max_new_tokens) {
    for (; folded < tokens.size(); ++folded) full = fold(full, tokens[folded]);
    const auto position = static_cast<std::int32_t>(tokens.size()) - 1;
    std::uint64_t window = 0;
    for (std::int32_t p = std::max(0, position - info.window + 1); p <= position; ++p)
      window = fold(window, tokens[static_cast<std::size_t>(p)]);
    const TokenId token =
        token_of(info, request.sampling.seed, info.has_group[kFullGroup] ? full : 0,
                 info.has_group[kWindowGroup] ? window : 0, position);
    tokens.push_back(token);
    answer.push_back(token);
    if (token == kStopToken && !request.sampling.stop_ids.empty()) break;
  }
  return answer;
}

PagedModel::PagedModel(const ModelInfo& info, std::function<bool()> ready)
    : info_(info),
      ready_(std::move(ready)),
      slots_(static_cast<std::size_t>(info.max_slots)),
      cells_(static_cast<std::size_t>(info.num_pages * info.page_tokens)),
      host_cells_(static_cast<std::size_t>(info.num_swap_pages * info.page_tokens)) {}

PagedModel::Slot& PagedModel::slot(SlotId id) {
  require(id >= 0 && id < info_.max_slots, "slot {}", id);
  return slots_[static_cast<std::size_t>(id)];
}

const PagedModel::Cell& PagedModel::cell(const Table& table, std::int32_t position) const {
  const std::int32_t page = position / info_.page_tokens - table.first_page;
  require(page >= 0 && page < static_cast<std::int32_t>(table.pages.size()),
          "position {} is outside of a table of {} pages from {}", position, table.pages.size(),
          table.first_page);
  return cells_[static_cast<std::size_t>(table.pages[static_cast<std::size_t>(page)] *
                                             info_.page_tokens +
                                         position % info_.page_tokens)];
}

PagedModel::Cell& PagedModel::cell(const Table& table, std::int32_t position) {
  return const_cast<Cell&>(std::as_const(*this).cell(table, position));
}

void PagedModel::check_shape(const StepPlan& plan) const {
  const auto check = [](std::size_t count, std::int32_t bucket, std::int32_t max) {
    const auto n = static_cast<std::int32_t>(count);
    const bool power = (bucket & (bucket - 1)) == 0;
    require(n <= bucket && bucket <= max && (power || bucket == max) && (n == 0 || bucket < 2 * n),
            "bucket {} of {}, at most {}", bucket, n, max);
  };
  require(!plan.rows.empty(), "a plan without rows");
  check(plan.rows.size(), plan.shape.rows, info_.max_rows);
  check(plan.seqs.size(), plan.shape.seqs, info_.max_slots);
  check(plan.logits.size(), plan.shape.logits_rows, info_.max_logits_rows);
  const bool sorted =
      std::is_sorted(plan.logits.begin(), plan.logits.end(),
                     [](const LogitsRow& a, const LogitsRow& b) { return a.row < b.row; });
  require(sorted, "logits rows are not in row order");
  bool prefill = false;
  for (const SeqSpan& span : plan.seqs) {
    prefill |= span.kind == SpanKind::kPrefill;
    require(!prefill || span.kind == SpanKind::kPrefill, "decode behind prefill");
  }
}

void PagedModel::apply(const SlotUpdate& update) {
  Slot& state = slot(update.slot);
  if (update.op == SlotOp::kRelease) {
    require(state.admitted, "release of free slot {}", update.slot);
    state = Slot{};
    return;
  }
  require(update.op == SlotOp::kAdmit && !state.admitted, "slot {} is taken", update.slot);
  require(update.seq != 0, "an admission without a sequence");
  state = Slot{};
  state.admitted = true;
  state.seq = update.seq;
  state.position = update.position;
  state.generated = update.num_generated;
  state.max_new_tokens = update.max_new_tokens;
  state.sampling = update.sampling;
}

void PagedModel::copy(const PageCopy& copy) {
  const bool out = copy.kind == CopyKind::kSwapOut;
  const PageId page = out ? copy.src : copy.dst;
  const PageId host = out ? copy.dst : copy.src;
  require(page > kScrapPage && page < info_.num_pages, "copy of page {}", page);
  require(host >= 0 && host < info_.num_swap_pages, "copy of host page {}", host);
  const auto device_cells = cells_.begin() + page * info_.page_tokens;
  const auto host_cells = host_cells_.begin() + host * info_.page_tokens;
  if (out) std::copy_n(device_cells, info_.page_tokens, host_cells);
  else std::copy_n(host_cells, info_.page_tokens, device_cells);
}

void PagedModel::check_span(const StepPlan& plan, const SeqSpan& span, std::int32_t expected_row) {
  const Slot& state = slot(span.slot);
  require(state.admitted, "slot {} was not admitted", span.slot);
  require(span.first_row == expected_row && span.n_rows > 0, "span of slot {}", span.slot);
  require(state.finished || span.kv_len_before == state.position, "slot {} at {}, the plan says {}",
          span.slot, state.position, span.kv_len_before);
  for (std::int32_t i = 0; i < span.n_rows; ++i) {
    const Row& row = plan.rows.at(static_cast<std::size_t>(span.first_row + i));
    require(row.slot == span.slot && row.pos_offset == i, "row {} of slot {}", i, span.slot);
    require((row.token.literal == kNoToken) == (span.kind == SpanKind::kDecode), "token source");
  }
}

void PagedModel::take_tables(const StepPlan& plan, const SeqSpan& span) {
  const std::int32_t end =
      (span.kv_len_before + span.n_rows + info_.page_tokens - 1) / info_.page_tokens;
  for (std::size_t g = 0; g < kNumKvGroups; ++g) {
    Table& old = slot(span.slot).tables[g];
    Table table;
    table.first_page = span.first_page[g];
    const auto begin = plan.pages.begin() + span.table_offset[g];
    table.pages.assign(begin, begin + span.num_pages[g]);
    if (!info_.has_group[g]) {
      require(table.pages.empty(), "pages of a group that the model does not have");
      continue;
    }
    const std::int32_t first_key = std::max(0, span.kv_len_before - info_.window + 1);
    const std::int32_t first = g == kFullGroup ? 0 : first_key / info_.page_tokens;
    require(table.first_page == first && first + span.num_pages[g] == end,
            "table of group {} is [{}, {}), needs [{}, {})", g, table.first_page,
            table.first_page + span.num_pages[g], first, end);
    for (std::int32_t page = first; page < std::min(span.changed_from[g], end); ++page) {
      require(
          page >= old.first_page && old.pages.at(static_cast<std::size_t>(page - old.first_page)) ==
                                        table.pages[static_cast<std::size_t>(page - first)],
          "page {} of group {} changed without notice", page, g);
    }
    old = std::move(table);
  }
}

// Pages that get new rows belong to this sequence alone, in this plan and in open ones.
void PagedModel::check_owners(const StepPlan& plan, const SeqSpan& span) const {
  for (std::size_t g = 0; g < kNumKvGroups; ++g) {
    if (!info_.has_group[g]) continue;
    const std::int32_t first = span.kv_len_before / info_.page_tokens;
    for (std::int32_t i = first - span.first_page[g]; i < span.num_pages[g]; ++i) {
      const PageId page = plan.pages[static_cast<std::size_t>(span.table_offset[g] + i)];
      require(page > kScrapPage && page < info_.num_pages, "page {}", page);
      const auto named = std::count(plan.pages.begin(), plan.pages.end(), page);
      require(named == 1, "page {} is written and named {} times", page, named);
      const SeqId seq = slots_[static_cast<std::size_t>(span.slot)].seq;
      for (const Open& open : open_) {
        const auto found = open.pages.find(page);
        require(found == open.pages.end() || found->second == seq,
                "page {} of sequence {} is still named by an open step of {}", page, seq,
                found == open.pages.end() ? 0 : found->second);
      }
    }
  }
}

void PagedModel::write_rows(const StepPlan& plan, const SeqSpan& span) {
  Slot& state = slot(span.slot);
  if (state.finished) return;
  for (std::int32_t i = 0; i < span.n_rows; ++i) {
    const TokenId literal = plan.rows[static_cast<std::size_t>(span.first_row + i)].token.literal;
    const TokenId token = literal == kNoToken ? state.last : literal;
    require(token >= 0 && token < info_.vocab, "token {}", token);
    for (std::size_t g = 0; g < kNumKvGroups; ++g) {
      if (info_.has_group[g])
        cell(state.tables[g], state.position + i) = Cell{token, state.position + i};
    }
  }
}

TokenId PagedModel::draw(const Slot& state, std::int32_t position) const {
  std::array<std::uint64_t, kNumKvGroups> hash{};
  for (std::size_t g = 0; g < kNumKvGroups; ++g) {
    if (!info_.has_group[g]) continue;
    const std::int32_t first = g == kFullGroup ? 0 : std::max(0, position - info_.window + 1);
    for (std::int32_t p = first; p <= position; ++p) {
      const Cell& read = cell(state.tables[g], p);
      require(read.position == p, "group {} of sequence {} holds position {} at {}", g, state.seq,
              read.position, p);
      hash[g] = fold(hash[g], read.token);
    }
  }
  return token_of(info_, state.sampling.seed, hash[kFullGroup], hash[kWindowGroup], position);
}

RowResult PagedModel::run_logits(const StepPlan& plan, const LogitsRow& logits) {
  const Row& row = plan.rows.at(static_cast<std::size_t>(logits.row));
  Slot& state = slot(row.slot);
  RowResult result;
  result.row = logits.row;
  result.slot = row.slot;
  result.skipped = state.finished;
  if (result.skipped) return result;
  const std::int32_t position = state.position + row.pos_offset;
  if (logits.kind == LogitsKind::kPromptLogprob) {
    result.token = logits.asked;
    result.logprob = static_cast<float>(-position);
    result.rank = draw(state, position) + 1;  // reads what a real model would
    return result;
  }
  result.token = draw(state, position);
  state.last = result.token;
  ++state.generated;
  const std::vector<TokenId>& stops = state.sampling.stop_ids;
  if (std::find(stops.begin(), stops.end(), result.token) != stops.end())
    result.finish = SlotFinish::kStopId;
  else if (state.generated >= state.max_new_tokens) result.finish = SlotFinish::kLength;
  return result;
}

Ticket PagedModel::submit(StepPlan plan, std::function<void()> on_done) {
  require(open_.size() < 2, "a third step");
  require(plan.id > last_plan_.id, "plan {} after {}", plan.id, last_plan_.id);
  ++steps_;
  check_shape(plan);
  for (const SlotUpdate& update : plan.slots) apply(update);
  for (const PageId page : plan.poison)
    std::fill_n(cells_.begin() + page * info_.page_tokens, info_.page_tokens, Cell{});
  for (const PageCopy& each : plan.copies) copy(each);
  Open open;
  open.result.id = plan.id;
  std::int32_t row = 0;
  for (const SeqSpan& span : plan.seqs) {
    check_span(plan, span, row);
    row += span.n_rows;
    take_tables(plan, span);
    check_owners(plan, span);
    for (std::size_t g = 0; g < kNumKvGroups; ++g) {
      for (std::int32_t i = 0; i < span.num_pages[g]; ++i)
        open.pages[plan.pages[static_cast<std::size_t>(span.table_offset[g] + i)]] =
            slot(span.slot).seq;
    }
    write_rows(plan, span);
  }
  require(row == static_cast<std::int32_t>(plan.rows.size()), "{} rows without a span",
          plan.rows.size() - static_cast<std::size_t>(row));
  for (const LogitsRow& logits : plan.logits) open.result.rows.push_back(run_logits(plan, logits));
  for (const SeqSpan& span : plan.seqs)
    if (!slot(span.slot).finished) slot(span.slot).position += span.n_rows;
  for (const RowResult& result : open.result.rows)
    slot(result.slot).finished |= result.finish != SlotFinish::kNone;
  last_plan_ = plan;
  if (on_plan) on_plan(plan);
  open_.push_back(std::move(open));
  if (on_done) on_done();
  return Ticket{plan.id};
}

bool PagedModel::poll(Ticket ticket) {
  require(!open_.empty() && ticket.id == open_.front().result.id, "poll of step {}", ticket.id);
  return !ready_ || ready_();
}

StepResult PagedModel::wait(Ticket ticket) {
  require(!open_.empty() && ticket.id == open_.front().result.id, "wait for step {}", ticket.id);
  StepResult result = std::move(open_.front().result);
  open_.pop_front();
  return result;
}

}  // namespace strata::test
