// Slots, spans and pages of a backend, seen through whole steps of a random micro model. What a
// sequence yields may depend on nothing but its tokens: every comparison here is exact.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "tests/support/micro_model.h"
#include "tests/support/step_runner.h"

namespace strata::test {
namespace {

constexpr std::int32_t kVocab = 384;

const MemoryCheckpoint& micro() {
  static const auto checkpoint = make_micro_checkpoint(micro_config(), 3);
  return *checkpoint;
}

class ModelSteps : public testing::TestWithParam<TestBackend> {
 protected:
  StepRunner make(std::vector<TokenId> never_emit = {}) const {
    return {GetParam(), micro(), small_options(), std::move(never_emit)};
  }
  // Log-probabilities after each token of `tokens`, alone in a fresh backend, in one step.
  std::vector<std::vector<float>> alone(std::span<const TokenId> tokens) const {
    StepRunner runner = make();
    runner.builder().admit(0);
    return runner.logprobs(0, tokens, tokens.size());
  }
  std::vector<TokenId> continuation(std::span<const TokenId> prompt, int count) const {
    StepRunner runner = make();
    runner.builder().admit(0, greedy());
    return runner.generate(0, prompt, count);
  }
  static SamplingParams greedy() {
    SamplingParams sampling;
    sampling.temperature = 0.0F;
    return sampling;
  }
};

TEST_P(ModelSteps, PrefillInChunksIsPrefillAtOnce) {
  const auto tokens = random_tokens(27, kVocab, 1);
  const auto whole = alone(tokens);
  for (const std::size_t chunk : {1U, 3U, 7U, 16U}) {
    StepRunner runner = make();
    runner.builder().admit(0);
    EXPECT_EQ(runner.logprobs(0, tokens, chunk), whole) << "chunks of " << chunk;
  }
}

TEST_P(ModelSteps, BatchIsEachSequenceAlone) {
  StepRunner runner = make();
  std::vector<std::vector<TokenId>> prompts;
  for (SlotId slot = 0; slot < 5; ++slot) {
    prompts.push_back(random_tokens(static_cast<std::size_t>(3 + 5 * slot), kVocab, 20));
    prompts.back()[0] = slot;
    runner.builder().admit(slot);
    runner.builder().prefill(slot, prompts.back(), Want::kAllLogprobs, kVocab);
  }
  const StepResult result = runner.run();
  std::size_t at = 0;
  for (const auto& prompt : prompts)
    for (const auto& expected : alone(prompt))
      EXPECT_TRUE(by_id(result.rows.at(at++)) == expected) << "logits row " << at - 1;
  EXPECT_EQ(at, result.rows.size());
}

TEST_P(ModelSteps, DecodeStepsAreRowsOfAPrefill) {
  const auto prompt = random_tokens(13, kVocab, 2);
  StepRunner runner = make();
  runner.builder().admit(0, greedy());
  runner.builder().prefill(0, prompt, Want::kSample, kVocab);
  std::vector<std::vector<float>> rows;
  std::vector<TokenId> all = prompt;
  for (int i = 0; i < 20; ++i) {
    const StepResult result = runner.run();
    rows.push_back(by_id(result.rows[0]));
    all.push_back(result.rows[0].token);
    EXPECT_EQ(result.rows[0].rank, 1) << "greedy takes the best id";
    runner.builder().decode(0, kVocab);
  }
  const auto whole = alone(all);
  for (std::size_t i = 0; i < rows.size(); ++i)
    EXPECT_EQ(rows[i], whole[prompt.size() - 1 + i]) << "token " << i;
}

TEST_P(ModelSteps, PaddingChangesNothing) {
  const auto tokens = random_tokens(11, kVocab, 3);
  StepRunner runner = make();
  runner.builder().admit(2);
  runner.builder().prefill(2, tokens, Want::kAllLogprobs, kVocab);
  runner.builder().pad(21, 3, 5);
  const StepResult result = runner.run();
  ASSERT_EQ(result.rows.size(), tokens.size());
  const auto expected = alone(tokens);
  for (std::size_t i = 0; i < tokens.size(); ++i) EXPECT_EQ(by_id(result.rows[i]), expected[i]);
}

TEST_P(ModelSteps, PaddingOnlyStepYieldsNothing) {
  StepRunner runner = make();
  runner.builder().pad(8, 1, 4);
  EXPECT_TRUE(runner.run().rows.empty());
}

TEST_P(ModelSteps, AcceptedDraftsAreTheGreedyContinuation) {
  const auto prompt = random_tokens(9, kVocab, 4);
  const auto expected = continuation(prompt, 16);
  StepRunner runner = make();
  runner.builder().admit(0, greedy());
  runner.builder().prefill(0, prompt, Want::kSample);
  std::vector<TokenId> got = {runner.run().rows[0].token};
  // Drafts of 0..3 right tokens, then a wrong one: 0..3 are accepted and one more token drawn.
  for (std::size_t right = 0; right < 4; ++right) {
    std::vector<TokenId> drafts(expected.begin() + static_cast<std::ptrdiff_t>(got.size()),
                                expected.begin() + static_cast<std::ptrdiff_t>(got.size() + right));
    drafts.push_back((expected[got.size() + right] + 1) % kVocab);
    runner.builder().verify(0, drafts);
    const StepResult result = runner.run();
    ASSERT_EQ(result.rows.size(), right + 1);
    for (const RowResult& row : result.rows) got.push_back(row.token);
  }
  // All drafts right: d + 1 tokens.
  const std::vector<TokenId> drafts(expected.begin() + static_cast<std::ptrdiff_t>(got.size()),
                                    expected.begin() + static_cast<std::ptrdiff_t>(got.size() + 2));
  runner.builder().verify(0, drafts);
  for (const RowResult& row : runner.run().rows) got.push_back(row.token);
  runner.builder().decode(0);
  got.push_back(runner.run().rows[0].token);
  EXPECT_EQ(got, std::vector<TokenId>(expected.begin(),
                                      expected.begin() + static_cast<std::ptrdiff_t>(got.size())));
  EXPECT_EQ(got.size(), 15U);
}

TEST_P(ModelSteps, SampledDraftsAreTheSampledContinuation) {
  const auto prompt = random_tokens(9, kVocab, 4);
  SamplingParams sampling;
  sampling.temperature = 2.0F;
  sampling.seed = 99;
  StepRunner plain = make();
  plain.builder().admit(0, sampling);
  const auto expected = plain.generate(0, prompt, 6);
  StepRunner runner = make();
  runner.builder().admit(5, sampling);
  std::vector<TokenId> got = runner.generate(5, prompt, 1);
  runner.builder().verify(5, std::span(expected).subspan(1, 4));
  for (const RowResult& row : runner.run().rows) got.push_back(row.token);
  EXPECT_EQ(got, expected);
}

TEST_P(ModelSteps, ReleasedSlotStartsAfresh) {
  StepRunner runner = make();
  runner.builder().admit(1, greedy());
  runner.generate(1, random_tokens(30, kVocab, 5), 5);
  runner.builder().release(1);  // its pages are poisoned
  const auto tokens = random_tokens(30, kVocab, 6);
  runner.builder().admit(1);
  EXPECT_EQ(runner.logprobs(1, tokens, 30), alone(tokens));
}

TEST_P(ModelSteps, MovedPagesServeAsWell) {
  const auto tokens = random_tokens(30, kVocab, 7);
  StepRunner runner = make();
  runner.builder().admit(0);
  auto rows = runner.logprobs(0, std::span(tokens).first(19), 19);
  runner.builder().plan().copies = runner.builder().move_pages(0);
  const auto rest = runner.logprobs(0, std::span(tokens).subspan(19), 4);
  rows.insert(rows.end(), rest.begin(), rest.end());
  EXPECT_EQ(rows, alone(tokens));
}

TEST_P(ModelSteps, SequenceComesBackFromTheSwapPool) {
  const auto tokens = random_tokens(30, kVocab, 8);
  StepRunner runner = make();
  PlanBuilder& builder = runner.builder();
  builder.admit(0);
  auto rows = runner.logprobs(0, std::span(tokens).first(18), 18);
  // Out: every page to a swap page. The pages move, so that the old ones are poisoned.
  const auto moves = builder.move_pages(0);
  PageId swap_page = 3;
  for (const PageCopy& move : moves)
    builder.plan().copies.push_back({move.src, swap_page++, CopyKind::kSwapOut});
  runner.run();
  // In, into another slot's life: released on the device, admitted at its position.
  swap_page = 3;
  for (const PageCopy& move : moves)
    builder.plan().copies.push_back({swap_page++, move.dst, CopyKind::kSwapIn});
  builder.admit(0, {}, {.position = 18});
  const auto rest = runner.logprobs(0, std::span(tokens).subspan(18), 12);
  rows.insert(rows.end(), rest.begin(), rest.end());
  EXPECT_EQ(rows, alone(tokens));
}

TEST_P(ModelSteps, StopIdFinishesTheSlotAndTheNextStepIsSkipped) {
  const auto prompt = random_tokens(9, kVocab, 4);
  const auto expected = continuation(prompt, 4);
  SamplingParams sampling = greedy();
  sampling.stop_ids = {expected[2]};
  StepRunner runner = make();
  runner.builder().admit(0, sampling);
  runner.builder().admit(1, greedy());
  EXPECT_EQ(runner.generate(0, prompt, 2), std::vector(expected.begin(), expected.begin() + 2));
  runner.builder().decode(0);
  EXPECT_EQ(runner.run().rows[0].finish, SlotFinish::kStopId);
  // Plans made before the engine knew: one result a span, skipped; others are not disturbed.
  runner.builder().verify(0, std::vector<TokenId>{1, 2, 3});
  runner.builder().prefill(1, prompt, Want::kSample);
  const StepResult result = runner.run();
  ASSERT_EQ(result.rows.size(), 2U);
  EXPECT_TRUE(result.rows[0].skipped);
  EXPECT_EQ(result.rows[0].slot, 0);
  EXPECT_EQ(result.rows[1].token, expected[0]);
}

TEST_P(ModelSteps, LengthFinishesTheSlotEvenInsideADraft) {
  const auto prompt = random_tokens(9, kVocab, 4);
  const auto expected = continuation(prompt, 6);
  StepRunner runner = make();
  runner.builder().admit(0, greedy(), {.max_new_tokens = 3});
  runner.generate(0, prompt, 1);
  runner.builder().verify(0, std::span(expected).subspan(1, 4));
  const StepResult result = runner.run();
  ASSERT_EQ(result.rows.size(), 2U) << "accepted drafts end with the last token allowed";
  EXPECT_EQ(result.rows[0].finish, SlotFinish::kNone);
  EXPECT_EQ(result.rows[1].finish, SlotFinish::kLength);
}

TEST_P(ModelSteps, NeverEmittedIdsAreNotDrawnButReported) {
  const auto prompt = random_tokens(9, kVocab, 4);
  const TokenId best = continuation(prompt, 1)[0];
  StepRunner runner = make({best});
  runner.builder().admit(0, greedy());
  runner.builder().prefill(0, prompt, Want::kSample, 2);
  const RowResult row = runner.run().rows[0];
  ASSERT_EQ(row.top.size(), 2U);
  EXPECT_EQ(row.top[0].token, best) << "logprobs are raw";
  EXPECT_EQ(row.top[1].token, row.token);
  EXPECT_EQ(row.rank, 2);
}

TEST_P(ModelSteps, LateMasksBindTheirRowsOnly) {
  const auto prompt = random_tokens(9, kVocab, 4);
  const TokenId best = continuation(prompt, 1)[0];
  StepRunner runner = make();
  for (const SlotId slot : {0, 1}) {
    runner.builder().admit(slot, greedy());
    runner.builder().prefill(slot, prompt, Want::kSample);
  }
  runner.builder().plan().logits[1].mask_index = 1;
  runner.builder().plan().late_masks = true;
  std::vector<std::uint32_t> masks(2 * kVocab / 32, 0U);
  masks[kVocab / 32 + 7] = 1U << 9;  // mask 1 allows id 7 * 32 + 9 alone
  const StepResult result = runner.run(masks);
  EXPECT_EQ(result.rows[0].token, best);
  EXPECT_EQ(result.rows[1].token, 7 * 32 + 9);
}

TEST_P(ModelSteps, DenseTensorsMayBeFloat32) {
  MemoryCheckpoint wide(micro_config());
  micro().stream([&wide](const TensorView& view) {
    std::vector<std::byte> bytes(view.num_bytes());
    view.source->read(0, bytes);
    const bool dense = view.dtype == DType::kBf16 && view.name.find("experts") == std::string::npos;
    if (!dense) return wide.add(view.name, view.dtype, view.shape, std::move(bytes));
    std::vector<std::byte> floats(bytes.size() * 2);  // a bf16 number is the upper half of a float
    for (std::size_t i = 0; i < bytes.size() / 2; ++i)
      std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(2 * i), 2,
                  floats.begin() + static_cast<std::ptrdiff_t>(4 * i + 2));
    wide.add(view.name, DType::kF32, view.shape, std::move(floats));
  });
  const auto tokens = random_tokens(11, kVocab, 12);
  StepRunner runner(GetParam(), wide);
  runner.builder().admit(0);
  EXPECT_EQ(runner.logprobs(0, tokens, tokens.size()), alone(tokens));
}

TEST_P(ModelSteps, StatsCountStagesAndWeightBytes) {
  StepRunner runner = make();
  runner.builder().admit(0);
  runner.backend().take_stats();
  runner.builder().prefill(0, random_tokens(5, kVocab, 1), Want::kSample);
  runner.run();
  std::map<std::string, kernels::StageStats> stats;
  for (const auto& each : runner.backend().take_stats()) stats[each.name] = each;
  EXPECT_EQ(stats["embed"].calls, 1);
  EXPECT_EQ(stats["attn_qkv"].calls, 4);
  EXPECT_EQ(stats["experts"].calls, 4);
  EXPECT_EQ(stats["head"].calls, 1);
  // Five rows read each dense matrix once: the unembedding is [384, 64] bf16.
  EXPECT_EQ(stats["head"].weight_bytes, 384 * 64 * 2);
}

TEST_P(ModelSteps, Bf16KvIsCloseAndInvariant) {
  kernels::BackendOptions options = small_options();
  options.kv_dtype = KvDtype::kBf16;
  const auto tokens = random_tokens(21, kVocab, 9);
  StepRunner whole(GetParam(), micro(), options);
  whole.builder().admit(0);
  const auto expected = whole.logprobs(0, tokens, 21);
  StepRunner chunked(GetParam(), micro(), options);
  chunked.builder().admit(0);
  EXPECT_EQ(chunked.logprobs(0, tokens, 5), expected);
  EXPECT_NE(expected, alone(tokens)) << "keys and values are rounded";
}

INSTANTIATE_TEST_SUITE_P(Backends, ModelSteps, testing::ValuesIn(test_backends()),
                         [](const auto& each) { return backend_test_name(each.param); });

}  // namespace
}  // namespace strata::test
