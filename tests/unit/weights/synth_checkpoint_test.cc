#include "tests/support/synth_checkpoint.h"

#include <gtest/gtest.h>

#include "tests/golden/golden_file.h"
#include "tests/support/temp_dir.h"
#include "weights/checkpoint.h"
#include "weights/tensor_map.h"

namespace strata::weights {
namespace {

// What tools/train/synth_checkpoint.py made, as recorded beside the expected values.
nlohmann::json recorded_shapes() {
  return nlohmann::json::parse(test::read_text(test::golden_path("synth.json")))["shapes"];
}

void expect_same_shape(const ModelConfig& a, const ModelConfig& b) {
  EXPECT_EQ(expected_tensors(a).size(), expected_tensors(b).size());
  for (std::size_t i = 0; i < expected_tensors(a).size(); ++i)
    EXPECT_EQ(expected_tensors(a)[i].shape, expected_tensors(b)[i].shape);
  EXPECT_EQ(a.num_kv_heads, b.num_kv_heads);
  EXPECT_EQ(a.experts_per_token, b.experts_per_token);
  EXPECT_EQ(a.window, b.window);
  EXPECT_EQ(a.windowed, b.windowed);
  EXPECT_EQ(a.max_context, b.max_context);
  EXPECT_EQ(a.rms_eps, b.rms_eps);
  EXPECT_EQ(a.swiglu_limit, b.swiglu_limit);
  EXPECT_EQ(a.rope.factor, b.rope.factor);
  EXPECT_EQ(a.rope.theta, b.rope.theta);
  EXPECT_EQ(a.rope.beta_fast, b.rope.beta_fast);
  EXPECT_EQ(a.rope.beta_slow, b.rope.beta_slow);
  EXPECT_EQ(a.rope.original_context, b.rope.original_context);
  EXPECT_EQ(a.rope.truncate, b.rope.truncate);
}

TEST(SynthCheckpoint, IsTheSameFileTheScriptWrites) {
  const nlohmann::json shapes = recorded_shapes();
  EXPECT_EQ(test::synth_shapes().size(), shapes.size());
  for (const auto& recorded : shapes) {
    test::TempDir dir;
    const auto hashes = test::write_synth_checkpoint(
        test::synth_shape(recorded["name"].get<std::string>()), dir.path());
    EXPECT_EQ(hashes, (recorded["sha256"].get<std::map<std::string, std::string>>()))
        << recorded["name"];
  }
}

TEST(SynthCheckpoint, OpensWithTheShapeItWasMadeFor) {
  for (const auto& recorded : recorded_shapes()) {
    SCOPED_TRACE(recorded["name"].get<std::string>());
    const test::SynthShape& shape = test::synth_shape(recorded["name"].get<std::string>());
    test::TempDir dir;
    test::write_synth_checkpoint(shape, dir.path());
    const auto checkpoint = open_checkpoint(dir.path());
    expect_same_shape(checkpoint->config(), shape.config);
    expect_same_shape(parse_model_config(recorded["config"].dump(), "config.json"), shape.config);
    std::size_t tensors = 0;
    checkpoint->stream([&](const TensorView&) { ++tensors; });
    EXPECT_EQ(tensors, expected_tensors(shape.config).size());
  }
}

TEST(SynthCheckpoint, PromptsAreTheScripts) {
  for (const auto& recorded : recorded_shapes())
    for (const auto& prompt : recorded["prompts"])
      EXPECT_EQ(test::synth_prompt(test::synth_shape(recorded["name"].get<std::string>()),
                                   prompt["number"].get<std::size_t>()),
                test::token_ids(prompt["ids"]))
          << recorded["name"] << " prompt " << prompt["number"];
}

}  // namespace
}  // namespace strata::weights
