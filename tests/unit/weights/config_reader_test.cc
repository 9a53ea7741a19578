#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/json.h"
#include "tests/support/startup_error.h"
#include "weights/checkpoint.h"

namespace strata::weights {
namespace {

using ::testing::HasSubstr;

// The values of the published 20b config.json, in the form of transformers 4.
Json published_config() {
  Json types = Json::array();
  for (int layer = 0; layer < 24; ++layer)
    types.push_back(layer % 2 == 0 ? "sliding_attention" : "full_attention");
  Json config = Json::parse(R"({
    "architectures": ["GptOssForCausalLM"], "attention_bias": true, "attention_dropout": 0.0,
    "eos_token_id": 200002, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu",
    "hidden_size": 2880, "initial_context_length": 4096, "initializer_range": 0.02,
    "intermediate_size": 2880, "max_position_embeddings": 131072, "model_type": "gpt_oss",
    "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 24,
    "num_key_value_heads": 8, "num_local_experts": 32, "output_router_logits": false,
    "pad_token_id": 199999, "quantization_config": {
      "modules_to_not_convert": ["model.embed_tokens", "lm_head"], "quant_method": "mxfp4"},
    "rms_norm_eps": 1e-05, "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
      "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": false},
    "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128,
    "swiglu_limit": 7.0, "tie_word_embeddings": false, "transformers_version": "4.55.0.dev0",
    "use_cache": true, "vocab_size": 201088})");
  config["layer_types"] = types;
  return config;
}

ModelConfig parse(const Json& config) { return parse_model_config(config.dump(), "config.json"); }

void expect_same(const ModelConfig& a, const ModelConfig& b) {
  EXPECT_EQ(a.num_layers, b.num_layers);
  EXPECT_EQ(a.hidden, b.hidden);
  EXPECT_EQ(a.intermediate, b.intermediate);
  EXPECT_EQ(a.num_q_heads, b.num_q_heads);
  EXPECT_EQ(a.num_kv_heads, b.num_kv_heads);
  EXPECT_EQ(a.head_dim, b.head_dim);
  EXPECT_EQ(a.num_experts, b.num_experts);
  EXPECT_EQ(a.experts_per_token, b.experts_per_token);
  EXPECT_EQ(a.vocab, b.vocab);
  EXPECT_EQ(a.window, b.window);
  EXPECT_EQ(a.max_context, b.max_context);
  EXPECT_EQ(a.rms_eps, b.rms_eps);
  EXPECT_EQ(a.swiglu_limit, b.swiglu_limit);
  EXPECT_EQ(a.swiglu_alpha, b.swiglu_alpha);
  EXPECT_EQ(a.rope.theta, b.rope.theta);
  EXPECT_EQ(a.rope.factor, b.rope.factor);
  EXPECT_EQ(a.rope.beta_fast, b.rope.beta_fast);
  EXPECT_EQ(a.rope.beta_slow, b.rope.beta_slow);
  EXPECT_EQ(a.rope.original_context, b.rope.original_context);
  EXPECT_EQ(a.rope.truncate, b.rope.truncate);
  EXPECT_EQ(a.expert_format, b.expert_format);
  EXPECT_EQ(a.windowed, b.windowed);
}

TEST(ConfigReader, ReadsThePublished20b) { expect_same(parse(published_config()), gpt_oss_20b()); }

TEST(ConfigReader, ReadsTheEmbeddedModel) {
  std::ifstream file(std::string(STRATA_SOURCE_DIR) + "/models/strata-tiny/config.json");
  std::stringstream text;
  text << file.rdbuf();
  const ModelConfig config = parse_model_config(text.str(), "config.json");
  EXPECT_EQ(config.num_layers, static_cast<std::int32_t>(config.windowed.size()));
  EXPECT_EQ(config.expert_format, ExpertFormat::kMxfp4);
  EXPECT_EQ(config.rope.factor, 32.0);
}

TEST(ConfigReader, ReadsBothRopeForms) {
  Json config = published_config();
  config["rope_parameters"] = config["rope_scaling"];
  config["rope_parameters"]["rope_theta"] = 150000.0;
  config.erase("rope_scaling");
  config.erase("rope_theta");
  expect_same(parse(config), gpt_oss_20b());

  config["rope_parameters"]["rope_theta"] = 10000.0;
  config["rope_parameters"]["factor"] = 4;
  config["rope_parameters"]["beta_fast"] = 16;
  config["rope_parameters"].erase("truncate");
  const ModelConfig changed = parse(config);
  EXPECT_EQ(changed.rope.theta, 10000.0);
  EXPECT_EQ(changed.rope.factor, 4.0);
  EXPECT_EQ(changed.rope.beta_fast, 16.0);
  EXPECT_TRUE(changed.rope.truncate) << "absent means true in transformers";
}

TEST(ConfigReader, PlainRotaryIsFactorOne) {
  for (const char* form : {R"({"rope_type": "default", "rope_theta": 5000})", "null"}) {
    Json config = published_config();
    config.erase("rope_scaling");
    config["rope_theta"] = 5000;
    config["rope_parameters"] = Json::parse(form);
    EXPECT_EQ(parse(config).rope.factor, 1.0) << form;
    EXPECT_EQ(parse(config).rope.theta, 5000.0) << form;
  }
}

TEST(ConfigReader, FactorDefaultsToTheRatioOfContexts) {
  Json config = published_config();
  config["rope_scaling"].erase("factor");
  config["rope_scaling"].erase("original_max_position_embeddings");
  config["initial_context_length"] = 8192;
  EXPECT_EQ(parse(config).rope.factor, 16.0);
  EXPECT_EQ(parse(config).rope.original_context, 8192);
}

TEST(ConfigReader, LayersAlternateUnlessListed) {
  Json config = published_config();
  config["num_hidden_layers"] = 3;
  config.erase("layer_types");
  EXPECT_EQ(parse(config).windowed, (std::vector<bool>{true, false, true}));
  config["layer_types"] = {"full_attention", "full_attention", "sliding_attention"};
  EXPECT_EQ(parse(config).windowed, (std::vector<bool>{false, false, true}));
}

TEST(ConfigReader, ReadsEitherNameOfTheExpertCounts) {
  Json config = published_config();
  config.erase("num_local_experts");
  config.erase("num_experts_per_tok");
  config["num_experts"] = 7;
  config["experts_per_token"] = 3;
  EXPECT_EQ(parse(config).num_experts, 7);
  EXPECT_EQ(parse(config).experts_per_token, 3);
}

TEST(ConfigReader, NoQuantisationMeansBf16Experts) {
  Json config = published_config();
  config.erase("quantization_config");
  EXPECT_EQ(parse(config).expert_format, ExpertFormat::kBf16);
  config["quantization_config"] = nullptr;
  EXPECT_EQ(parse(config).expert_format, ExpertFormat::kBf16);
}

struct BadValue {
  const char* pointer;  // JSON pointer of the value to replace
  const char* value;    // JSON text; "" removes the key
  const char* expected;
};

class BadConfig : public ::testing::TestWithParam<BadValue> {};

TEST_P(BadConfig, NamesFileAndKey) {
  const BadValue& bad = GetParam();
  Json config = published_config();
  const Json::json_pointer pointer(bad.pointer);
  if (*bad.value == '\0') config.at(pointer.parent_pointer()).erase(pointer.back());
  else config[pointer] = Json::parse(bad.value);
  const std::string message = test::startup_error_of([&] { parse(config); });
  EXPECT_THAT(message, HasSubstr("config.json: "));
  EXPECT_THAT(message, HasSubstr(bad.expected));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadConfig,
    ::testing::Values(
        BadValue{"/model_type", R"("llama")", R"(model_type: "llama" is not supported)"},
        BadValue{"/model_type", "", "model_type: is missing"},
        BadValue{"/model_type", "7", "model_type: must be a string, not number"},
        BadValue{"/hidden_act", R"("gelu")", R"(hidden_act: "gelu" is not supported)"},
        BadValue{"/tie_word_embeddings", "true", "tie_word_embeddings: true is not supported"},
        BadValue{"/tie_word_embeddings", "0", "tie_word_embeddings: must be true or false"},
        BadValue{"/attention_bias", "false", "attention_bias: false is not supported"},
        BadValue{"/hidden_size", "", "hidden_size: is missing"},
        BadValue{"/hidden_size", "100", "hidden_size: must be a multiple of 32, not 100"},
        BadValue{"/hidden_size", R"("2880")", "hidden_size: must be an integer, not string"},
        BadValue{"/hidden_size", "2880.0", "hidden_size: must be an integer, not number"},
        BadValue{"/hidden_size", "-32", "hidden_size: must be between 1 and"},
        BadValue{"/hidden_size", "18446744073709551615", "hidden_size: must be between 1 and"},
        BadValue{"/hidden_size", "4294967328", "hidden_size: must be between 1 and"},
        BadValue{"/intermediate_size", "48", "intermediate_size: must be a multiple of 32"},
        BadValue{"/num_hidden_layers", "0", "num_hidden_layers: must be between 1 and"},
        BadValue{"/vocab_size", "null", "vocab_size: is missing"},
        BadValue{"/num_key_value_heads", "7", "num_key_value_heads: 7 does not divide"},
        BadValue{"/num_key_value_heads", "", "num_key_value_heads: is missing"},
        BadValue{"/head_dim", "63", "head_dim: must be even"},
        BadValue{"/head_dim", "1024", "head_dim: must be between 2 and 256"},
        BadValue{"/num_local_experts", "[32]", "num_local_experts: must be an integer, not array"},
        BadValue{"/num_experts_per_tok", "33",
                 "experts_per_token: is 4, but num_experts_per_tok is 33"},
        BadValue{"/num_experts", "8", "num_experts: is 8, but num_local_experts is 32"},
        BadValue{"/rms_norm_eps", "0", "rms_norm_eps: must be a positive number"},
        BadValue{"/rms_norm_eps", "1e-60", "rms_norm_eps: must be a positive number"},
        BadValue{"/swiglu_limit", "1e60", "swiglu_limit: must be a positive number"},
        BadValue{"/rms_norm_eps", "true", "rms_norm_eps: must be a number, not boolean"},
        BadValue{"/swiglu_limit", "-7", "swiglu_limit: must be a positive number"},
        BadValue{"/layer_types", R"(["full_attention"])", "layer_types: has 1 entries for 24"},
        BadValue{"/layer_types/3", R"("linear_attention")", "layer_types: entry 3 is"},
        BadValue{"/layer_types", R"("full_attention")", "layer_types: must be an array"},
        BadValue{"/sliding_window", "null", "sliding_window: is missing"},
        BadValue{"/sliding_window", "0", "sliding_window: must be between 1 and"},
        BadValue{"/rope_scaling", "32", "rope_scaling: must be an object, not number"},
        BadValue{"/rope_scaling/rope_type", R"("linear")",
                 R"(rope_scaling.rope_type: "linear" is not supported)"},
        BadValue{"/rope_scaling/factor", "0.5", "rope_scaling.factor: must be at least 1"},
        BadValue{"/rope_scaling/factor", R"("32")", "rope_scaling.factor: must be a number"},
        BadValue{"/rope_scaling/truncate", "1", "rope_scaling.truncate: must be true or false"},
        BadValue{"/rope_scaling/mscale", "1.0", "rope_scaling.mscale: is not supported"},
        BadValue{"/rope_scaling/attention_factor", "1.0",
                 "rope_scaling.attention_factor: other than 1.34"},
        BadValue{"/rope_scaling/partial_rotary_factor", "0.5",
                 "rope_scaling.partial_rotary_factor: other than 1"},
        BadValue{"/rope_parameters", R"({"full_attention": {}})",
                 "rope_parameters.full_attention: rotary settings that differ"},
        BadValue{"/rope_theta", "-1", "rope_theta: must be a positive number"},
        BadValue{"/quantization_config", R"({"quant_method": "fp8"})",
                 R"(quantization_config.quant_method: "fp8" is not supported)"},
        BadValue{"/quantization_config", "{}", "quantization_config.quant_method: is missing"}));

TEST(ConfigReader, RefusesWhatIsNotOneJsonObject) {
  const auto message = [](const char* text) {
    return test::startup_error_of([&] { parse_model_config(text, "dir/config.json"); });
  };
  EXPECT_THAT(message("[]"), HasSubstr("dir/config.json: must be a JSON object, not array"));
  EXPECT_THAT(message("{\"a\":1,}"), HasSubstr("dir/config.json is not valid JSON at byte"));
  EXPECT_THAT(message(R"({"vocab_size":1,"vocab_size":2})"), HasSubstr("duplicate key"));
  EXPECT_THAT(message(""), HasSubstr("dir/config.json is not valid JSON"));
}

TEST(ConfigReader, MoreChosenThanExpertsIsAnError) {
  Json config = published_config();
  config["num_experts_per_tok"] = 33;
  config["experts_per_token"] = 33;
  EXPECT_THAT(test::startup_error_of([&] { parse(config); }),
              HasSubstr("num_experts_per_tok: 33 is more than the 32 experts"));
}

TEST(ConfigReader, TheOriginalLayoutIsPointedOut) {
  const std::string message = test::startup_error_of([] {
    parse_model_config(R"({"num_hidden_layers": 24, "rope_scaling_factor": 32.0})", "config.json");
  });
  EXPECT_THAT(message, HasSubstr("this is OpenAI's original layout"));
}

}  // namespace
}  // namespace strata::weights
