// A dummy checkpoint run as a model: finite, and its pass-through dimensions pass through.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/bf16.h"
#include "tests/support/step_runner.h"
#include "weights/checkpoint.h"
#include "weights/dummy_pattern.h"

namespace strata {
namespace {

std::vector<float> read_embedding(const weights::Checkpoint& checkpoint) {
  std::vector<float> values;
  checkpoint.stream([&](const TensorView& view) {
    if (view.name != "model.embed_tokens.weight") return;
    std::vector<Bf16> halves(view.num_elements());
    view.source->read(0, std::as_writable_bytes(std::span(halves)));
    for (const Bf16 half : halves) values.push_back(to_float(half));
  });
  return values;
}

TEST(DummyModel, TheTokenCodeReachesTheLastLayerUnchanged) {
  ModelConfig config = strata_tiny();
  config.num_layers = 4;
  config.windowed.resize(4);
  config.window = 8;
  const auto checkpoint = weights::make_dummy_checkpoint(":3", config);
  test::StepRunner runner(test::test_backends().front(), *checkpoint);
  runner.builder().admit(0);
  const auto tokens = test::random_tokens(20, config.vocab, 5);
  for (const std::vector<float>& row : runner.logprobs(0, tokens, tokens.size()))
    for (const float logprob : row) ASSERT_TRUE(std::isfinite(logprob));

  const auto hidden = static_cast<std::size_t>(config.hidden);
  std::vector<float> x(tokens.size() * hidden);
  runner.backend().read_f32(runner.backend().activations().x, x);
  const auto embedding = read_embedding(*checkpoint);
  const auto pass = static_cast<std::size_t>(weights::passthrough_dims(config));
  for (std::size_t row = 0; row < tokens.size(); ++row) {
    std::size_t changed = 0;
    for (std::size_t dim = 0; dim < hidden; ++dim) {
      const float embedded = embedding[static_cast<std::size_t>(tokens[row]) * hidden + dim];
      if (dim < pass) ASSERT_EQ(x[row * hidden + dim], embedded) << "row " << row << " dim " << dim;
      else changed += x[row * hidden + dim] != embedded ? 1 : 0;
    }
    EXPECT_EQ(changed, hidden - pass) << "row " << row;
  }
}

}  // namespace
}  // namespace strata
