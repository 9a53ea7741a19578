#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "app/bench_report.h"
#include "app/step_driver.h"
#include "base/json.h"

namespace strata::app {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Keeps every plan and answers each logits row with the number of the step.
class PlanRecorder final : public Model {
 public:
  explicit PlanRecorder(ModelInfo info) : info_(std::move(info)) {}
  ModelInfo info() const override { return info_; }
  Ticket submit(StepPlan plan, std::function<void()> on_done) override {
    plans.push_back(std::move(plan));
    on_done();
    return {plans.back().id};
  }
  void release_tail(Ticket, std::span<const std::uint32_t>) override {}
  bool poll(Ticket) override { return true; }
  StepResult wait(Ticket ticket) override {
    StepResult result;
    result.id = ticket.id;
    for (const LogitsRow& row : plans.back().logits) {
      RowResult out;
      out.row = row.row;
      out.slot = plans.back().rows[static_cast<std::size_t>(row.row)].slot;
      out.token = static_cast<TokenId>(ticket.id);
      result.rows.push_back(std::move(out));
    }
    return result;
  }
  std::deque<StepPlan> plans;

 private:
  const ModelInfo info_;
};

ModelInfo small_model() {
  ModelInfo info;
  info.vocab = 100;
  info.window = 8;
  info.page_tokens = 4;
  info.max_slots = 3;
  info.max_rows = 6;
  info.max_logits_rows = 6;
  info.num_pages = 64;
  return info;
}

std::vector<PageId> table(const StepPlan& plan, const SeqSpan& span, KvGroup group) {
  const auto begin = plan.pages.begin() + span.table_offset[group];
  return {begin, begin + span.num_pages[group]};
}

TEST(StepDriver, SplitsPromptsIntoChunksAndSamplesTheLastRow) {
  PlanRecorder model(small_model());
  StepDriver driver(model, 2, 16);
  driver.admit(3);
  EXPECT_EQ(driver.prefill({{1, 2, 3, 4, 5, 6, 7, 8}, {9, 9}}), 3);
  ASSERT_EQ(model.plans.size(), 3U);
  EXPECT_EQ(model.plans[0].slots.size(), 2U);
  EXPECT_TRUE(model.plans[1].slots.empty());
  EXPECT_EQ(model.plans[0].shape, (StepShape{.rows = 6, .seqs = 1, .logits_rows = 0}));
  EXPECT_EQ(model.plans[1].shape, (StepShape{.rows = 2, .seqs = 1, .logits_rows = 1}));
  EXPECT_EQ(model.plans[1].rows[0].token.literal, 7);
  EXPECT_EQ(model.plans[1].logits[0].row, 1);
  EXPECT_EQ(model.plans[1].seqs[0].kv_len_before, 6);
  EXPECT_EQ(model.plans[2].seqs[0].slot, 1);
  EXPECT_EQ(model.plans[2].rows[1].token.literal, 9);
}

TEST(StepDriver, DecodesEverySequenceInOneStep) {
  PlanRecorder model(small_model());
  StepDriver driver(model, 3, 16);
  driver.admit(3);
  driver.prefill({{1, 2, 3}, {4, 5, 6}, {7, 8, 9}});
  EXPECT_THAT(driver.decode(), ElementsAre(4, 4, 4));
  const StepPlan& plan = model.plans.back();
  EXPECT_EQ(plan.shape, (StepShape{.rows = 4, .seqs = 3, .logits_rows = 4}));
  for (const Row& row : plan.rows) EXPECT_EQ(row.token.literal, kNoToken);
  for (const SeqSpan& span : plan.seqs) {
    EXPECT_EQ(span.kind, SpanKind::kDecode);
    EXPECT_EQ(span.kv_len_before, 3);
  }
}

TEST(StepDriver, NeverSharesPagesAndCoversEveryVisibleToken) {
  PlanRecorder model(small_model());
  constexpr std::int32_t kContext = 40;
  StepDriver driver(model, 3, kContext);
  driver.admit(20);
  driver.prefill(std::vector<std::vector<TokenId>>(3, std::vector<TokenId>(20, 1)));
  for (int step = 0; step < 20; ++step) driver.decode();
  const std::int64_t pages = StepDriver::pages_needed(model.info(), 3, kContext);
  std::map<PageId, SlotId> owner;
  for (const StepPlan& plan : model.plans) {
    for (const SeqSpan& span : plan.seqs) {
      const std::int32_t end = span.kv_len_before + span.n_rows;
      for (const KvGroup group : {kFullGroup, kWindowGroup}) {
        const auto own = table(plan, span, group);
        EXPECT_EQ(std::set<PageId>(own.begin(), own.end()).size(), own.size());
        EXPECT_EQ((span.first_page[group] + span.num_pages[group] - 1), (end - 1) / 4);
        for (const PageId page : own) {
          EXPECT_GT(page, kScrapPage);
          EXPECT_LT(page, pages);
          EXPECT_EQ(owner.try_emplace(page, span.slot).first->second, span.slot);
        }
      }
      EXPECT_EQ(span.first_page[kFullGroup], 0);
      EXPECT_LE(span.first_page[kWindowGroup] * 4, std::max(0, span.kv_len_before - 7));
    }
  }
}

TEST(StepDriver, ReadmittedSequencesStartAtZero) {
  PlanRecorder model(small_model());
  StepDriver driver(model, 1, 16);
  driver.admit(1);
  driver.prefill({{1, 2}});
  driver.admit(5);
  driver.prefill({{3}});
  EXPECT_EQ(model.plans.back().slots[0].max_new_tokens, 5);
  EXPECT_EQ(model.plans.back().seqs[0].kv_len_before, 0);
}

TEST(StepDriver, TakesAContextAsComputedAndFillsItsPages) {
  PlanRecorder model(small_model());
  StepDriver driver(model, 2, 32);
  driver.admit(3, 20);
  driver.prefill({{1, 2}, {3, 4}});
  const StepPlan& plan = model.plans.front();
  EXPECT_EQ(plan.slots[1].position, 20);
  EXPECT_EQ(plan.seqs[0].kv_len_before, 20);
  std::set<PageId> filled;
  for (const PageCopy& copy : plan.copies) {
    EXPECT_LT(copy.src, copy.dst);
    filled.insert({copy.src, copy.dst});
  }
  for (const StepPlan& each : model.plans)
    for (const PageId page : each.pages) EXPECT_EQ(filled.count(page), 1U) << page;
  EXPECT_TRUE(model.plans.back().copies.empty());
}

BenchReport report_of_two_steps() {
  BenchReport report;
  report.model = "m";
  report.backend = "cpu avx2";
  report.processor = "a \"fast\" one";
  report.batch = 8;
  report.roof = 20e9;
  report.token_hash = 0xabc;
  report.decode.name = "decode";
  report.decode.tokens = 16;
  report.decode.steps = 2;
  report.decode.seconds = 0.5;
  report.peaks = {100e9, 400e9};
  report.decode.stages = {
      {.name = "experts",
       .calls = 48,
       .nanos = 200'000'000,
       .weight_bytes = 3'000'000'000,
       .integer_adds = 4'000'000'000},
      {.name = "head", .calls = 2, .nanos = 100'000'000, .weight_bytes = 2'000'000'000}};
  report.prompt.name = "prompt";
  return report;
}

TEST(BenchReport, RatesFollowFromCounts) {
  const BenchReport report = report_of_two_steps();
  EXPECT_DOUBLE_EQ(report.decode.tokens_per_second(), 32.0);
  EXPECT_EQ(report.decode.weight_bytes_per_step(), 2'500'000'000);
  EXPECT_DOUBLE_EQ(report.decode.bytes_per_second(), 10e9);
  EXPECT_EQ(report.prompt.tokens_per_second(), 0.0);
  EXPECT_EQ(report.prompt.weight_bytes_per_step(), 0);
}

TEST(BenchReport, TableShowsStagesAndTheShareOfTheRoof) {
  const std::string text = format_report(report_of_two_steps());
  EXPECT_THAT(text, HasSubstr("32.00 tok/s"));
  EXPECT_THAT(text, HasSubstr("50 % of the measured roof"));
  EXPECT_THAT(text, HasSubstr("1500.000"));  // MB of expert weights a step
  EXPECT_THAT(text, HasSubstr("token hash 0000000000000abc"));
}

TEST(BenchReport, ARoofIsWhatTakesLonger) {
  BenchReport report = report_of_two_steps();
  kernels::StageStats stage{.name = "attend", .nanos = 500'000'000, .weight_bytes = 4'000'000'000};
  stage.kv_bytes = 1'000'000'000;  // 0.25 s of reading together
  EXPECT_DOUBLE_EQ(roof_share(stage, report).share, 0.5);
  EXPECT_TRUE(roof_share(stage, report).reading);
  stage.float_adds = 20'000'000'000;    // 0.2 s
  stage.integer_adds = 40'000'000'000;  // 0.1 s
  EXPECT_DOUBLE_EQ(roof_share(stage, report).share, 0.6);
  EXPECT_FALSE(roof_share(stage, report).reading);
  report.roof = report.peaks.floats = report.peaks.integers = 0.0;  // not measured
  EXPECT_EQ(roof_share(stage, report).share, 0.0);
}

TEST(BenchReport, SaysWhenOthersLoadTheMachine) {
  BenchReport report = report_of_two_steps();
  EXPECT_THAT(format_report(report), testing::Not(HasSubstr("other programs")));
  report.other_processors = 0.7;
  EXPECT_THAT(format_report(report), HasSubstr("other programs kept 0.70 processors busy"));
}

TEST(BenchReport, JsonIsOneLineThatParses) {
  const std::string text = report_json(report_of_two_steps());
  EXPECT_EQ(text.find('\n'), std::string::npos);
  const auto json = parse_json(text, "report");
  ASSERT_TRUE(json) << json.error().message;
  EXPECT_EQ((*json)["decode_tok_s"], 32.0);
  EXPECT_EQ((*json)["decode_weight_bytes_per_step"], 2'500'000'000);
  EXPECT_EQ((*json)["decode_weight_bytes_by_stage"]["head"], 1'000'000'000);
  EXPECT_TRUE((*json)["prompt_weight_bytes_by_stage"].empty());
  EXPECT_EQ((*json)["processor"], "a \"fast\" one");
  EXPECT_EQ((*json)["disturbed"], false);
}

}  // namespace
}  // namespace strata::app
