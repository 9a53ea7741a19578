// What the card draws and reports from logits made here, against HostSampler on the same logits.
// Skipped where there is no usable card.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "kernels/cuda/card_sampler.h"
#include "kernels/cuda/step_upload.h"
#include "tests/kernels/draw_cases.h"
#include "tests/support/micro_model.h"
#include "tests/support/test_backends.h"

namespace strata::test {
namespace {

using namespace kernels::cuda;
using kernels::HostSampler;
using kernels::HostStep;

constexpr std::int32_t kFullVocab = 201088;

class CudaDraws : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_cuda_backend()) GTEST_SKIP() << "no usable card";
  }
};

struct Ask {
  SamplingParams sampling;
  LogitsCase logits = LogitsCase::kTrained;
  std::int32_t top_n = -1;
  bool on_card = true;
  std::vector<TokenId> history = {};
  TokenId prompt_token = kNoToken;  // only its log-probability is asked for
};

// One sequence for each ask, one row of it a step.
class Draws {
 public:
  Draws(std::int32_t vocab, std::vector<Ask> asks, std::vector<TokenId> never_emit = {1, 2})
      : vocab_(vocab),
        asks_(std::move(asks)),
        options_(options_for(asks_.size())),
        layout_(make_activation_layout(config_for(vocab), options_)),
        arena_("test", layout_.bytes),
        upload_(options_, vocab, arena_.data() + layout_.inputs),
        card_(layout_, arena_.data(), vocab, never_emit, options_.max_logits_rows, stream_),
        host_(vocab, never_emit),
        card_step_(options_),
        host_step_(options_) {
    for (std::size_t i = 0; i < asks_.size(); ++i) admit(static_cast<std::int32_t>(i), asks_[i]);
  }

  void run(int steps, std::uint64_t key) {
    for (int step = 0; step < steps; ++step) {
      std::vector<std::vector<float>> rows;
      for (const Ask& ask : asks_) {
        plan_one_row(static_cast<std::int32_t>(rows.size()), ask);
        // Sequences see the same logits with different noise.
        rows.push_back(made_logits(ask.logits, vocab_, key + static_cast<std::uint64_t>(step)));
      }
      run(rows);
      for (std::size_t i = 0; i < asks_.size(); ++i)
        if (!ended_[i]) {
          EXPECT_EQ(upload_.logits(static_cast<std::int32_t>(i)).draw != DrawKind::kHost,
                    asks_[i].on_card)
              << "row " << i;
        }
      for (const RowResult& row : results_)
        if (row.finish != SlotFinish::kNone) ended_[static_cast<std::size_t>(row.row)] = true;
    }
  }

  // Runs what was planned.
  void run(const std::vector<std::vector<float>>& rows) {
    const auto count = static_cast<std::int32_t>(rows.size());
    plan_.shape = {.rows = static_cast<std::int32_t>(plan_.rows.size()),
                   .seqs = static_cast<std::int32_t>(plan_.seqs.size()),
                   .logits_rows = count};
    const StepPlan plan = std::exchange(plan_, {});
    card_step_.begin(plan);
    upload_.upload(card_step_, stream_);
    for (std::int32_t i = 0; i < count; ++i)
      copy_and_wait(stream_, logits(i), rows[static_cast<std::size_t>(i)].data(), row_bytes());
    card_.sample(card_step_, upload_, 0, count);
    host_step_.begin(plan);
    for (std::int32_t i = 0; i < count; ++i) {
      std::vector<float> row = rows[static_cast<std::size_t>(i)];
      host_.process(host_step_, i, row);
      const std::vector<float> expected = rows[static_cast<std::size_t>(i)];
      copy_and_wait(stream_, row.data(), logits(i), row_bytes());
      EXPECT_TRUE(std::equal(row.begin(), row.end(), expected.begin(),
                             [](float a, float b) { return order_of(a) == order_of(b); }))
          << "the logits of row " << i << " are not what they were";
    }
    results_ = card_step_.end().rows;
    compare(host_step_.end().rows);
    expect_clean_scratch();
  }

  StepPlan& plan() { return plan_; }
  const std::vector<RowResult>& results() const { return results_; }

 private:
  static kernels::BackendOptions options_for(std::size_t slots) {
    kernels::BackendOptions options;
    options.max_slots = static_cast<std::int32_t>(slots);
    options.max_rows = options.max_logits_rows = options.max_slots + 4;
    options.max_pages_per_seq = 1;
    return options;
  }
  static ModelConfig config_for(std::int32_t vocab) {
    ModelConfig config = micro_config();
    config.vocab = vocab;
    return config;
  }
  float* logits(std::int32_t row) const {
    return reinterpret_cast<float*>(arena_.data() + layout_.logits) +
           static_cast<std::size_t>(row) * static_cast<std::size_t>(vocab_);
  }
  std::size_t row_bytes() const { return static_cast<std::size_t>(vocab_) * sizeof(float); }

  void admit(SlotId slot, const Ask& ask) {
    SlotUpdate update;
    update.slot = slot;
    update.sampling = ask.sampling;
    update.sampling.seed = 99 + static_cast<std::uint64_t>(slot);
    update.position = 5;
    update.max_new_tokens = 1 << 30;
    update.history = ask.history;
    update.history_prompt_len = static_cast<std::int32_t>(ask.history.size() / 2);
    plan_.slots.push_back(update);
    ended_.push_back(false);
  }
  void plan_one_row(std::int32_t row, const Ask& ask) {
    plan_.rows.push_back({.slot = row, .token = {0}, .pos_offset = 0});
    SeqSpan span;
    span.slot = row;
    span.kind = SpanKind::kDecode;
    span.first_row = row;
    span.n_rows = 1;
    plan_.seqs.push_back(span);
    const bool prompt = ask.prompt_token != kNoToken;
    plan_.logits.push_back({.row = row,
                            .kind = prompt ? LogitsKind::kPromptLogprob : LogitsKind::kSample,
                            .top_n = ask.top_n,
                            .mask_index = -1,
                            .asked = ask.prompt_token});
  }
  void compare(const std::vector<RowResult>& wanted) const {
    ASSERT_EQ(results_.size(), wanted.size());
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const RowResult& got = results_[i];
      EXPECT_EQ(got.token, wanted[i].token) << "row " << i;
      EXPECT_EQ(got.finish, wanted[i].finish) << "row " << i;
      EXPECT_EQ(got.has_logprob, wanted[i].has_logprob) << "row " << i;
      EXPECT_EQ(got.rank, wanted[i].rank) << "row " << i;
      expect_near(got.logprob, wanted[i].logprob, i);
      ASSERT_EQ(got.top.size(), wanted[i].top.size()) << "row " << i;
      for (std::size_t k = 0; k < got.top.size(); ++k) {
        EXPECT_EQ(got.top[k].token, wanted[i].top[k].token) << "row " << i << ", " << k;
        expect_near(got.top[k].logprob, wanted[i].top[k].logprob, i);
      }
    }
  }
  static void expect_near(float got, float wanted, std::size_t row) {
    if (std::isnan(wanted)) EXPECT_TRUE(std::isnan(got)) << "row " << row;
    else EXPECT_FLOAT_EQ(got, wanted) << "row " << row;
  }
  void expect_clean_scratch() const {
    const auto rows = static_cast<std::size_t>(options_.max_logits_rows);
    std::vector<std::byte> scratch(rows * sizeof(DrawScratch));
    copy_and_wait(stream_, scratch.data(), arena_.data() + layout_.draw_scratch, scratch.size());
    EXPECT_TRUE(std::all_of(scratch.begin(), scratch.end(), [](std::byte each) {
      return each == std::byte{0};
    })) << "scratch is left behind";
  }

  const std::int32_t vocab_;
  const std::vector<Ask> asks_;
  const kernels::BackendOptions options_;
  const ActivationLayout layout_;
  Stream stream_;
  DeviceArena arena_;
  StepUpload upload_;
  CardSampler card_;
  HostSampler host_;
  HostStep card_step_, host_step_;
  StepPlan plan_;
  std::vector<RowResult> results_;
  std::vector<bool> ended_;
};

std::vector<Ask> plain_asks(LogitsCase logits) {
  std::vector<Ask> asks(2, Ask{.sampling = {}, .logits = logits});
  asks[0].sampling.temperature = 0.0F;
  return asks;
}

TEST_F(CudaDraws, FilteredDrawsAreTheHosts) {
  for (const std::int32_t vocab : {3, 384, 5000, kFullVocab}) {
    for (const LogitsCase kind : kDrawable) {
      SCOPED_TRACE(testing::Message() << vocab << " ids, case " << static_cast<int>(kind));
      std::vector<Ask> asks = plain_asks(kind);
      for (const SamplingParams& sampling : made_filters())
        asks.push_back({.sampling = sampling, .logits = kind});
      Draws(vocab, asks, vocab > 3 ? std::vector<TokenId>{1, vocab - 1} : std::vector<TokenId>{})
          .run(vocab < kFullVocab ? 12 : 3, 7);
    }
  }
}

// The first that reports in a step makes no other row report.
TEST_F(CudaDraws, ReportsAreTheHosts) {
  for (const std::int32_t vocab : {384, kFullVocab}) {
    for (const LogitsCase kind : kDrawable) {
      SCOPED_TRACE(testing::Message() << vocab << " ids, case " << static_cast<int>(kind));
      std::vector<Ask> asks = plain_asks(kind);
      for (const std::int32_t top_n : {0, 1, 5, 20, kMostTop, kMostTop + 1}) {
        asks.push_back({.sampling = filtered(1.0F, 0, 0.9F, 0.0F),
                        .logits = kind,
                        .top_n = top_n,
                        .on_card = top_n <= kMostTop});
        asks.push_back({.sampling = {}, .logits = kind, .top_n = top_n, .prompt_token = 100});
        asks.back().on_card = top_n <= kMostTop;
      }
      asks.push_back({.sampling = {}, .logits = kind, .prompt_token = 7});
      Draws(vocab, asks).run(vocab < kFullVocab ? 6 : 2, 21);
    }
  }
}

TEST_F(CudaDraws, ChangedLogitsAreTheHosts) {
  for (const std::int32_t vocab : {384, kFullVocab}) {
    for (const LogitsCase kind : {LogitsCase::kTrained, LogitsCase::kTies, LogitsCase::kHoles}) {
      SCOPED_TRACE(testing::Message() << vocab << " ids, case " << static_cast<int>(kind));
      std::vector<TokenId> history;
      for (std::uint64_t i = 0; i < 400; ++i)
        history.push_back(static_cast<TokenId>(random_at(3, i) % 384));
      std::vector<Ask> asks = plain_asks(kind);
      const auto add = [&](auto&& change) -> Ask& {
        asks.push_back({.sampling = {}, .logits = kind, .history = history});
        change(asks.back().sampling);
        return asks.back();
      };
      add([](SamplingParams& s) { s.repetition_penalty = 1.3F; });
      add([](SamplingParams& s) { s.frequency_penalty = 0.7F, s.temperature = 0.0F; });
      add([](SamplingParams& s) { s.presence_penalty = -1.5F, s.top_k = 20; });
      add([](SamplingParams& s) {
        s.repetition_penalty = 0.8F, s.frequency_penalty = 0.3F, s.presence_penalty = 0.4F;
        s.top_p = 0.9F;
        for (TokenId id = 0; id < 300; ++id)
          s.logit_bias.emplace_back(id, 0.01F * static_cast<float>(id % 11));
        s.logit_bias.emplace_back(1000000, 3.0F);
      }).top_n = 5;
      add([](SamplingParams& s) { s.logit_bias = {{5, 100.0F}, {2, 100.0F}}; });
      add([](SamplingParams& s) { s.logit_bias = {{5, 9.0F}, {5, 9.0F}}; }).on_card = false;
      add([](SamplingParams& s) {
        s.temperature = 3.0F, s.ignore_eos = true;
        for (TokenId id = 40; id < 380; ++id) s.stop_ids.push_back(id);
        s.logit_bias = {{44, 50.0F}, {30, 2.0F}};
      });
      Draws(vocab, asks).run(vocab < kFullVocab ? 12 : 4, 33);
    }
  }
}

TEST_F(CudaDraws, StopIdsWaitForMinTokens) {
  for (const std::size_t stops : {1U, 4U, 5U}) {
    SamplingParams sampling = filtered(1.0F, 40, 0.9F, 0.0F);
    sampling.min_tokens = 3;
    sampling.logit_bias = {{9, 100.0F}};  // wins as soon as it may come
    for (std::size_t i = 0; i < stops; ++i)
      sampling.stop_ids.push_back(static_cast<TokenId>(9 + i));
    Draws draws(5000, {{.sampling = sampling}});
    draws.run(3, 1);
    EXPECT_EQ(draws.results()[0].finish, SlotFinish::kNone);
    draws.run(1, 1);
    EXPECT_EQ(draws.results()[0].token, 9);
    EXPECT_EQ(draws.results()[0].finish, SlotFinish::kStopId);
  }
}

// Rows behind an accepted draft are drawn with one token more.
TEST_F(CudaDraws, VerifyRowsCountTheDraftsBeforeThem) {
  SamplingParams sampling;
  sampling.temperature = 0.0F;
  sampling.min_tokens = 1;
  sampling.stop_ids = {8};
  std::vector<Ask> asks(2, Ask{.sampling = sampling});
  asks[1].sampling.frequency_penalty = 0.5F;
  Draws draws(384, asks);
  std::vector<float> row(384, 0.0F);
  row[8] = 3.0F;
  row[5] = 2.8F;
  row[6] = 2.5F;
  for (const SlotId slot : {0, 1}) {
    SeqSpan span;
    span.slot = slot;
    span.kind = SpanKind::kVerify;
    span.first_row = slot * 2;
    span.n_rows = 2;
    draws.plan().seqs.push_back(span);
    for (const std::int32_t i : {0, 1}) {
      draws.plan().rows.push_back({.slot = slot, .token = {i == 0 ? 0 : 5}, .pos_offset = i});
      draws.plan().logits.push_back({.row = slot * 2 + i,
                                     .kind = LogitsKind::kVerify,
                                     .top_n = -1,
                                     .mask_index = -1,
                                     .asked = i == 0 ? 5 : kNoToken});
    }
  }
  std::vector<float> second = row;
  second[8] = 0.0F;
  draws.run({row, row, row, second});
  ASSERT_EQ(draws.results().size(), 4U);
  EXPECT_EQ(draws.results()[1].token, 8);
  EXPECT_EQ(draws.results()[3].token, 6) << "the draft is penalised";
}

TEST_F(CudaDraws, WithNothingToDrawTheSequenceEnds) {
  for (const LogitsCase kind : {LogitsCase::kNone, LogitsCase::kInf}) {
    std::vector<Ask> asks = plain_asks(kind);
    for (const SamplingParams& sampling : made_filters())
      asks.push_back({.sampling = sampling, .logits = kind, .top_n = 3});
    asks.push_back({.sampling = {}, .logits = kind, .top_n = 3, .prompt_token = 100});
    for (Ask& ask : asks) ask.sampling.stop_ids = {6};
    Draws draws(384, asks);
    draws.run(1, 4);
    for (std::size_t i = 0; i + 1 < asks.size(); ++i)
      EXPECT_EQ(draws.results()[i].finish, SlotFinish::kStopId) << "row " << i;
  }
}

}  // namespace
}  // namespace strata::test
