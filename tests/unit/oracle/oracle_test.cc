// The reference backend, through the one forward pass, against the independent oracle; and the
// oracle against itself with one detail broken, to show that the comparison sees that detail.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/oracle/oracle.h"
#include "tests/support/micro_model.h"
#include "tests/support/step_runner.h"
#include "weights/checkpoint.h"

namespace strata {
namespace {

using oracle::Mutation;
using oracle::Oracle;
using oracle::OracleOutput;

constexpr double kTolerance = 1e-4;
constexpr std::size_t kTokens = 40;

double largest_difference(const OracleOutput& expected,
                          const std::vector<std::vector<float>>& actual) {
  double largest = 0.0;
  for (std::size_t t = 0; t < actual.size(); ++t) {
    const oracle::Vector logprobs = oracle::log_softmax(expected.logits[t]);
    for (std::size_t v = 0; v < logprobs.size(); ++v)
      largest = std::max(largest, std::abs(logprobs[v] - static_cast<double>(actual[t][v])));
  }
  return largest;
}

std::vector<std::vector<float>> run_ref(const weights::Checkpoint& checkpoint,
                                        const std::vector<TokenId>& tokens) {
  test::StepRunner runner(test::test_backends().front(), checkpoint);
  runner.builder().admit(0);
  return runner.logprobs(0, tokens, tokens.size());
}

class OracleTest : public testing::Test {
 protected:
  const std::unique_ptr<test::MemoryCheckpoint> checkpoint_ =
      test::make_micro_checkpoint(test::micro_config(), 1);
  const std::vector<TokenId> tokens_ = test::random_tokens(kTokens, 384, 5);
};

TEST_F(OracleTest, MicroModelReachesTheSwigluLimitAndRoutesClearly) {
  const OracleOutput out = Oracle(*checkpoint_).run(tokens_);
  EXPECT_GT(out.largest_gate, 7.0);
  EXPECT_GT(out.smallest_router_gap, 1e-4);
  EXPECT_EQ(out.hidden.size(), 5U);
}

TEST_F(OracleTest, ReferenceBackendAgrees) {
  const OracleOutput expected = Oracle(*checkpoint_).run(tokens_);
  EXPECT_LT(largest_difference(expected, run_ref(*checkpoint_, tokens_)), kTolerance);
}

TEST_F(OracleTest, EveryMutationShows) {
  const auto actual = run_ref(*checkpoint_, tokens_);
  for (const Mutation mutation : oracle::all_mutations()) {
    const OracleOutput mutated = Oracle(*checkpoint_, mutation).run(tokens_);
    EXPECT_GT(largest_difference(mutated, actual), 1000 * kTolerance)
        << oracle::mutation_name(mutation);
  }
}

TEST(OracleShapes, ReferenceBackendAgreesOnOtherShapes) {
  for (int variant = 0; variant < 4; ++variant) {
    ModelConfig config = test::micro_config();
    config.num_layers = 2;
    config.windowed = {variant % 2 == 0, variant % 2 != 0};
    config.hidden = 96;
    config.intermediate = 32;
    config.num_q_heads = 6;
    config.num_kv_heads = 3;
    config.num_experts = 5;
    config.experts_per_token = 1 + variant;
    config.vocab = 97;
    config.window = 3 + variant;
    config.rope.factor = variant == 0 ? 1.0 : 8.0;
    config.rope.truncate = variant == 2;
    if (variant == 3) config.expert_format = ExpertFormat::kBf16;
    const auto checkpoint = test::make_micro_checkpoint(config, 10);
    const auto tokens = test::random_tokens(20, config.vocab, 6);
    const OracleOutput expected = Oracle(*checkpoint).run(tokens);
    EXPECT_GT(expected.smallest_router_gap, 1e-4) << variant;
    EXPECT_LT(largest_difference(expected, run_ref(*checkpoint, tokens)), kTolerance) << variant;
  }
}

TEST(OracleEmbeddedModel, ReferenceBackendAgrees) {
  const auto checkpoint = weights::open_checkpoint(STRATA_SOURCE_DIR "/models/strata-tiny");
  // Longer than half a window, so that positions and both kinds of layers matter.
  const auto tokens = test::random_tokens(70, checkpoint->config().vocab, 7);
  const OracleOutput expected = Oracle(*checkpoint).run(tokens);
  EXPECT_LT(largest_difference(expected, run_ref(*checkpoint, tokens)), 1e-3);
}

}  // namespace
}  // namespace strata
