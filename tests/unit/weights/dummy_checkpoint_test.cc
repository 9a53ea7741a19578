#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>

#include "base/bf16.h"
#include "tests/support/random_checkpoint.h"
#include "tests/support/startup_error.h"
#include "weights/checkpoint.h"
#include "weights/dummy_pattern.h"

namespace strata::weights {
namespace {

using strata::test::small_config;
using ::testing::HasSubstr;

using Bytes = std::vector<std::byte>;

Bytes read_bytes(const TensorView& view, std::size_t offset, std::size_t count) {
  Bytes bytes(count);
  view.source->read(offset, bytes);
  return bytes;
}

std::map<std::string, Bytes> read_all(const Checkpoint& checkpoint) {
  std::map<std::string, Bytes> tensors;
  checkpoint.stream(
      [&](const TensorView& view) { tensors[view.name] = read_bytes(view, 0, view.num_bytes()); });
  return tensors;
}

std::vector<float> as_floats(const Bytes& bytes) {
  std::vector<float> values(bytes.size() / 2);
  for (std::size_t i = 0; i < values.size(); ++i) {
    Bf16 half{};
    std::memcpy(&half, &bytes[2 * i], 2);
    values[i] = to_float(half);
  }
  return values;
}

// Independent of DummyPattern: the specification's formulas, element by element.
std::uint64_t spec_word(const std::string& name, std::uint64_t seed, std::uint64_t word) {
  return random_at(random_at(fnv1a64(name), seed), word);
}
float spec_normal(const std::string& name, std::uint64_t seed, std::size_t element, int shift) {
  const std::uint64_t bits = spec_word(name, seed, element / 4) >> (16 * (element % 4));
  const int sum = static_cast<int>(bits & 0xff) + static_cast<int>((bits >> 8) & 0xff) - 255;
  return to_float(to_bf16(static_cast<float>(sum) / static_cast<float>(1 << shift)));
}

TEST(Dummy, HasTheTensorsOfTheRealFormat) {
  const auto checkpoint = make_dummy_checkpoint(":20b", {});
  EXPECT_EQ(checkpoint->total_bytes(), 13'761'264'768U);
  EXPECT_EQ(checkpoint->config().hidden, 2880);
  const auto specs = expected_tensors(gpt_oss_20b());
  std::size_t next = 0;
  std::uint64_t offset = 0;
  checkpoint->stream([&](const TensorView& view) {
    ASSERT_LT(next, specs.size());
    EXPECT_EQ(view.name, specs[next].name);
    EXPECT_EQ(view.dtype, specs[next].dtype);
    EXPECT_EQ(view.shape, specs[next].shape);
    EXPECT_EQ(view.file_offset, offset);
    offset += view.num_bytes();
    ++next;
  });
  EXPECT_EQ(next, 459U);
}

TEST(Dummy, AnyRangeIsASliceOfTheWhole) {
  const auto checkpoint = make_dummy_checkpoint("", small_config());
  checkpoint->stream([](const TensorView& view) {
    const std::size_t size = view.num_bytes();
    const Bytes whole = read_bytes(view, 0, size);
    for (std::size_t i = 0; i < 200; ++i) {
      const std::size_t begin = random_at(1, i) % size;
      const std::size_t count = std::min<std::size_t>(random_at(2, i) % 5000, size - begin);
      const Bytes part = read_bytes(view, begin, count);
      EXPECT_TRUE(
          std::equal(part.begin(), part.end(), whole.begin() + static_cast<std::ptrdiff_t>(begin)))
          << view.name << " " << begin << " + " << count;
    }
    // To an address that no word may be stored at.
    Bytes shifted(size + 1);
    view.source->read(0, std::span(shifted).subspan(1));
    EXPECT_TRUE(std::equal(whole.begin(), whole.end(), shifted.begin() + 1)) << view.name;
  });
}

TEST(Dummy, FollowsTheWrittenSpecification) {
  const ModelConfig config = strata_tiny();
  const std::uint64_t seed = 7;
  auto tensors = read_all(*make_dummy_checkpoint(":tiny:7", {}));
  const std::string layer = "model.layers.3.";

  const std::string blocks = layer + "mlp.experts.gate_up_proj_blocks";
  for (std::size_t i = 0; i < 4000; ++i)
    ASSERT_EQ(std::to_integer<std::uint64_t>(tensors[blocks][i]),
              spec_word(blocks, seed, i / 8) >> (8 * (i % 8)) & 0xff);
  const std::string scales = layer + "mlp.experts.down_proj_scales";
  for (std::size_t i = 0; i < 4000; ++i)  // 6 layers: two binary places smaller
    ASSERT_EQ(std::to_integer<std::uint64_t>(tensors[scales][i]),
              116 + (spec_word(scales, seed, i / 8) >> (8 * (i % 8)) & 3));

  const auto expect_normal = [&](const std::string& name, std::size_t first, int shift) {
    const auto values = as_floats(tensors[name]);
    for (std::size_t i = first; i < values.size(); ++i)
      ASSERT_EQ(values[i], spec_normal(name, seed, i, shift)) << name << " " << i;
  };
  const std::size_t pass = 48;
  expect_normal(layer + "self_attn.q_proj.weight", 0, 13);
  expect_normal(layer + "self_attn.k_proj.bias", 0, 12);
  expect_normal(layer + "self_attn.sinks", 0, 7);
  expect_normal(layer + "self_attn.o_proj.weight", pass * 1024, 15);
  expect_normal(layer + "self_attn.o_proj.bias", pass, 12);
  expect_normal("lm_head.weight", 0, 11);

  const auto embedding = as_floats(tensors["model.embed_tokens.weight"]);
  const std::uint64_t key = random_at(fnv1a64("model.embed_tokens.weight"), seed);
  for (std::size_t token = 0; token < 4096; ++token)
    for (std::size_t dim = 0; dim < 192; ++dim) {
      const std::size_t element = token * 192 + dim;
      if (dim < pass) {
        const bool positive = (random_at(mix64(key), token) >> dim & 1) != 0;
        ASSERT_EQ(embedding[element], positive ? 1.0F : -1.0F);
      } else {
        ASSERT_EQ(embedding[element], spec_normal("model.embed_tokens.weight", seed, element, 7));
      }
    }
  const std::string router = layer + "mlp.router.weight";
  const auto rows = as_floats(tensors[router]);
  constexpr std::array<int, 4> kShift = {8, 8, 15, 21};
  for (std::size_t i = 0; i < rows.size(); ++i)
    ASSERT_EQ(rows[i], i % 192 < pass ? spec_normal(router, seed, i, kShift[i % 4]) : 0.0F);
  for (const float value : as_floats(tensors[layer + "mlp.router.bias"])) ASSERT_EQ(value, 0.0F);
  for (const float value : as_floats(tensors[layer + "input_layernorm.weight"]))
    ASSERT_EQ(value, 1.0F);
  ASSERT_EQ(config.hidden, 192);
}

TEST(Dummy, NoLayerWritesThePassthroughDimensions) {
  for (const ModelConfig& config : {small_config(), strata_tiny()}) {
    auto tensors = read_all(*make_dummy_checkpoint("", config));
    const auto pass = static_cast<std::size_t>(passthrough_dims(config));
    const auto hidden = static_cast<std::size_t>(config.hidden);
    for (LayerId layer = 0; layer < config.num_layers; ++layer) {
      const std::string prefix = fmt::format("model.layers.{}.", layer);
      const auto expect_zero = [&](const char* name, std::size_t matrices, std::size_t row_bytes) {
        const Bytes& bytes = tensors[prefix + name];
        ASSERT_EQ(bytes.size(), matrices * hidden * row_bytes) << name;
        std::size_t others = 0;
        for (std::size_t i = 0; i < bytes.size(); ++i) {
          const bool passes = i / row_bytes % hidden < pass;
          if (passes) ASSERT_EQ(bytes[i], std::byte{0}) << name << " " << i;
          else others += bytes[i] != std::byte{0} ? 1 : 0;
        }
        EXPECT_GT(others, bytes.size() / 4) << name;
      };
      const auto experts = static_cast<std::size_t>(config.num_experts);
      expect_zero("self_attn.o_proj.weight", 1, static_cast<std::size_t>(config.q_dim()) * 2);
      expect_zero("self_attn.o_proj.bias", 1, 2);
      expect_zero("mlp.experts.down_proj_blocks", experts,
                  static_cast<std::size_t>(config.intermediate) / 2);
      expect_zero("mlp.experts.down_proj_bias", experts, 2);
    }
  }
}

// The router's choice for every token of the tiny shape, from embedding and router alone.
TEST(Dummy, RoutingIsSpreadOverTheExpertsAndDiffersByLayer) {
  const ModelConfig config = strata_tiny();
  auto tensors = read_all(*make_dummy_checkpoint(":tiny", {}));
  const auto embedding = as_floats(tensors["model.embed_tokens.weight"]);
  std::vector<std::vector<std::vector<int>>> chosen(6);
  for (int layer = 0; layer < 6; ++layer) {
    const auto router = as_floats(tensors[fmt::format("model.layers.{}.mlp.router.weight", layer)]);
    std::vector<int> uses(32, 0);
    int ties = 0;
    for (std::size_t token = 0; token < 4096; ++token) {
      std::vector<double> logits(32);
      for (std::size_t expert = 0; expert < 32; ++expert)
        logits[expert] = std::inner_product(&embedding[token * 192], &embedding[token * 192 + 192],
                                            &router[expert * 192], 0.0);
      std::vector<int> order(32);
      std::iota(order.begin(), order.end(), 0);
      std::sort(order.begin(), order.end(), [&](int a, int b) {
        return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
      });
      if (logits[static_cast<std::size_t>(order[3])] - logits[static_cast<std::size_t>(order[4])] <
          1e-6)
        ++ties;
      order.resize(4);
      for (const int expert : order) ++uses[static_cast<std::size_t>(expert)];
      std::sort(order.begin(), order.end());
      chosen[static_cast<std::size_t>(layer)].push_back(order);
    }
    const auto [least, most] = std::minmax_element(uses.begin(), uses.end());
    EXPECT_GT(*least, 4096 * 4 / 32 * 3 / 10) << "layer " << layer;
    EXPECT_LT(*most, 4096 * 4 / 32 * 2) << "layer " << layer;
    EXPECT_LE(ties, 1) << "layer " << layer;
  }
  int same = 0;
  for (std::size_t token = 0; token < 4096; ++token) same += chosen[0][token] == chosen[1][token];
  EXPECT_LT(same, 41) << "two layers choose alike";
}

TEST(Dummy, SeedsAndTensorsDiffer) {
  auto first = read_all(*make_dummy_checkpoint(":0", small_config()));
  auto again = read_all(*make_dummy_checkpoint("", small_config()));
  auto other = read_all(*make_dummy_checkpoint(":1", small_config()));
  EXPECT_EQ(first, again);
  const std::string blocks = "model.layers.0.mlp.experts.gate_up_proj_blocks";
  EXPECT_NE(first[blocks], other[blocks]);
  EXPECT_NE(first[blocks], first["model.layers.1.mlp.experts.gate_up_proj_blocks"]);
}

TEST(Dummy, EveryValueIsFinite) {
  for (const auto& [name, bytes] : read_all(*make_dummy_checkpoint("", small_config()))) {
    if (name.ends_with("_blocks")) continue;
    if (name.ends_with("_scales")) {
      for (const std::byte scale : bytes) {
        EXPECT_GE(std::to_integer<int>(scale), 117);
        EXPECT_LE(std::to_integer<int>(scale), 121);
      }
      continue;
    }
    for (const float value : as_floats(bytes)) EXPECT_LE(std::abs(value), 2.0F) << name;
  }
}

TEST(Dummy, SpecNamesShapeAndSeed) {
  const auto layers = [](const char* spec) {
    return make_dummy_checkpoint(spec, small_config())->config().num_layers;
  };
  EXPECT_EQ(layers(""), 2);
  EXPECT_EQ(layers(":3"), 2);
  EXPECT_EQ(layers(":tiny"), 6);
  EXPECT_EQ(layers(":20b"), 24);
  EXPECT_EQ(layers(":120b:18446744073709551615"), 36);
  for (const char* spec : {":", "20b", ":7b", ":20b:", ":20b:x", ":20b:1:2", ":1:20b", ":-1",
                           ":20b:18446744073709551616", "::20b", ":20B"})
    EXPECT_THAT(
        strata::test::startup_error_of([&] { make_dummy_checkpoint(spec, small_config()); }),
        HasSubstr(fmt::format("\"dummy{}\" is not understood", spec)));
  EXPECT_THAT(strata::test::startup_error_of([] { make_dummy_checkpoint("", {}); }),
              HasSubstr("needs a shape"));
}

TEST(Dummy, ExpertsAreMxfp4WhateverTheModelHas) {
  const auto checkpoint = make_dummy_checkpoint("", small_config(ExpertFormat::kBf16));
  EXPECT_EQ(checkpoint->config().expert_format, ExpertFormat::kMxfp4);
}

}  // namespace
}  // namespace strata::weights
