#include "kernels/cuda/card_sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace strata::kernels::cuda {
namespace {

std::vector<std::uint32_t> bits_of(const std::vector<TokenId>& ids, std::int32_t vocab) {
  std::vector<std::uint32_t> bits(static_cast<std::size_t>(vocab + 31) / 32);
  for (const TokenId id : ids) bits[static_cast<std::size_t>(id) / 32] |= 1U << (id % 32);
  return bits;
}

bool host_draws(const StepLogits& how) { return how.row >= 0 && how.draw == DrawKind::kHost; }

// As HostSampler reports.
void add_report(const DrawReport& report, RowResult& result) {
  const double log_total = report.best + std::log(report.sum);
  const auto logprob = [&](float logit) { return static_cast<float>(logit - log_total); };
  result.has_logprob = true;
  result.logprob = logprob(report.own);
  result.rank = report.rank;
  std::vector<std::pair<float, TokenId>> top;
  for (std::int32_t i = 0; i < report.num_top; ++i)
    top.emplace_back(report.top_logit[i], report.top_id[i]);
  std::sort(top.begin(), top.end(), [](const auto& a, const auto& b) {
    return a.first > b.first || (a.first == b.first && a.second < b.second);
  });
  for (const auto& [logit, id] : top) result.top.push_back({id, logprob(logit)});
}

}  // namespace

void DrawsAsked::add(const StepLogits& how) {
  changes |= how.num_changes > 0;
  filters |= how.filtered;
  counts |= how.top_k > 0;
  masses |= how.top_p < 1.0;
  reports |= how.top_n >= 0;
  best |= how.top_n > 0;
}

void launch_draws(cudaStream_t stream, const DrawsAsked& asked, const DrawArgs& args) {
  const auto digits = [&](bool report, bool mass, int from) {
    for (int digit = from; digit < kCutDigits; ++digit)
      launch_select(stream, args, report, {.mass = mass, .digit = digit});
  };
  if (asked.changes) launch_changes(stream, args, false);
  if (asked.filters) launch_select(stream, args, false, CutScan{});
  if (asked.counts) digits(false, false, 1);
  if (asked.masses) digits(false, true, 0);
  launch_draw(stream, args);
  if (asked.changes) launch_changes(stream, args, true);
  if (!asked.reports) return;
  launch_select(stream, args, true, CutScan{});
  if (asked.best) digits(true, false, 1);
  launch_report(stream, args);
}

CardSampler::CardSampler(const ActivationLayout& layout, std::byte* memory, std::int32_t vocab,
                         const std::vector<TokenId>& never_emit, std::int32_t head_rows,
                         const Stream& stream)
    : vocab_(vocab),
      stream_(stream),
      host_(vocab, never_emit),
      logits_("activations", static_cast<std::size_t>(head_rows) * static_cast<std::size_t>(vocab) *
                                 sizeof(float)),
      drawn_("activations", static_cast<std::size_t>(head_rows) * sizeof(DrawPart)),
      reports_("activations", static_cast<std::size_t>(head_rows) * sizeof(DrawReport)) {
  args_.logits = reinterpret_cast<float*>(memory + layout.logits);
  args_.banned = reinterpret_cast<const std::uint32_t*>(memory + layout.banned);
  args_.vocab = vocab;
  args_.parts = reinterpret_cast<DrawPart*>(memory + layout.draw_parts);
  args_.scratch = reinterpret_cast<DrawScratch*>(memory + layout.draw_scratch);
  args_.cuts = reinterpret_cast<DrawCut*>(memory + layout.draw_cuts);
  args_.raw_logits = reinterpret_cast<float*>(memory + layout.raw_logits);
  args_.out = reinterpret_cast<DrawPart*>(memory + layout.drawn);
  args_.reports = reinterpret_cast<DrawReport*>(memory + layout.draw_reports);
  const std::vector<std::uint32_t> bits = bits_of(never_emit, vocab);
  copy_and_wait(stream, memory + layout.banned, bits.data(), bits.size() * sizeof(bits[0]));
  check(cudaMemsetAsync(args_.scratch, 0, static_cast<std::size_t>(head_rows) * sizeof(DrawScratch),
                        stream.get()),
        "clearing");
}

std::span<float> CardSampler::fetch_logits(std::int32_t row) const {
  const auto vocab = static_cast<std::size_t>(vocab_);
  const std::size_t offset = static_cast<std::size_t>(row) * vocab;
  float* to = reinterpret_cast<float*>(logits_.data()) + offset;
  check(cudaMemcpyAsync(to, args_.logits + offset, vocab * sizeof(float), cudaMemcpyDeviceToHost,
                        stream_.get()),
        "reading logits");
  return {to, vocab};
}

RowResult CardSampler::result_of(const StepLogits& how, std::int32_t row) const {
  RowResult result;
  result.token = how.draw == DrawKind::kNone
                     ? how.asked
                     : reinterpret_cast<const DrawPart*>(drawn_.data())[row].id;
  if (how.top_n >= 0 && result.token >= 0)
    add_report(reinterpret_cast<const DrawReport*>(reports_.data())[row], result);
  return result;
}

// The one place where the host waits: for what the card drew, and for logits of the other rows,
// which the host's sampler draws from.
void CardSampler::sample(HostStep& step, const StepUpload& upload, std::int32_t first,
                         std::int32_t count) {
  DrawArgs args = args_;
  args.inputs = upload.inputs();
  args.first = first;
  args.count = count;
  DrawsAsked asked;
  for (std::int32_t i = first; i < first + count; ++i) asked.add(upload.logits(i));
  launch_draws(stream_.get(), asked, args);
  const auto fetch = [&](const PinnedBuffer& to, const void* from, std::size_t each) {
    check(cudaMemcpyAsync(to.data(), from, static_cast<std::size_t>(count) * each,
                          cudaMemcpyDeviceToHost, stream_.get()),
          "reading tokens");
  };
  fetch(drawn_, args.out, sizeof(DrawPart));
  if (asked.reports) fetch(reports_, args.reports, sizeof(DrawReport));
  std::array<std::span<float>, kMaxHeadRows> rows{};
  for (std::int32_t i = 0; i < count; ++i)
    if (host_draws(upload.logits(first + i))) rows[static_cast<std::size_t>(i)] = fetch_logits(i);
  stream_.synchronize();
  for (std::int32_t i = 0; i < count; ++i) {
    const std::int32_t index = first + i;
    const StepLogits& how = upload.logits(index);
    std::span<float> logits = rows[static_cast<std::size_t>(i)];
    if (step.wants_logits(index) && !host_draws(how)) {
      RowResult result = result_of(how, i);
      if (how.draw == DrawKind::kNone) {
        step.record_report(index, std::move(result));
        continue;
      }
      if (result.token >= 0) {
        step.record_token(index, std::move(result));
        continue;
      }
      logits = fetch_logits(i);  // no finite logit: the host's sampler knows what to do
      stream_.synchronize();
    }
    host_.process(step, index, logits);
  }
}

}  // namespace strata::kernels::cuda
