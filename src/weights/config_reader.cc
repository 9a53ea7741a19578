// config.json of a gpt-oss checkpoint -> ModelConfig. Hugging Face writes two forms of the rotary
// settings: transformers 4 `rope_scaling` beside `rope_theta`, transformers 5 `rope_parameters`
// with the theta inside. A value this program would compute wrongly is an error, never a guess.
#include <fmt/format.h>

#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/json.h"
#include "base/result.h"
#include "weights/checkpoint.h"

namespace strata::weights {
namespace {

// Upper limits keep every product of two sizes inside 32 bits and refuse nonsense early.
constexpr std::int64_t kMaxWidth = 1 << 17;
constexpr std::int64_t kMaxVocab = 1 << 24;
constexpr std::int64_t kMaxCount = 4096;  // layers, heads, experts
constexpr std::int64_t kMaxHeadDim = 256;
constexpr std::int64_t kMaxPositions = 1 << 30;
constexpr double kLeastNumber = 1e-30;  // fits float32 and stays above 0 there
constexpr double kMostNumber = 1e30;

// One JSON object with typed, range-checked members. A null member counts as absent.
class Section {
 public:
  Section(const Json& object, std::string file, std::string prefix)
      : object_(&object), file_(std::move(file)), prefix_(std::move(prefix)) {}

  const Json* find(const char* key) const {
    const auto found = object_->find(key);
    return found == object_->end() || found->is_null() ? nullptr : &*found;
  }

  [[noreturn]] void fail(const char* key, std::string_view what, std::string hint = {}) const {
    throw StartupError(fmt::format("{}: {}{}: {}", file_, prefix_, key, what), std::move(hint));
  }

  std::optional<std::int32_t> integer(const char* key, std::int64_t least,
                                      std::int64_t most) const {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number_integer()) wrong_type(key, "an integer", *value);
    const bool fits = !value->is_number_unsigned() ||
                      value->get<std::uint64_t>() <= static_cast<std::uint64_t>(most);
    if (!fits || value->get<std::int64_t>() < least || value->get<std::int64_t>() > most)
      fail(key, fmt::format("must be between {} and {}, not {}", least, most, value->dump()));
    return value->get<std::int32_t>();
  }

  // The first of `keys` that is present; the others must agree with it.
  std::int32_t required(std::initializer_list<const char*> keys, std::int64_t least,
                        std::int64_t most) const {
    std::optional<std::int32_t> result;
    const char* source = *keys.begin();
    for (const char* key : keys) {
      const auto value = integer(key, least, most);
      if (!value) continue;
      if (result && *result != *value)
        fail(key, fmt::format("is {}, but {} is {}", *value, source, *result));
      if (!result) source = key;
      result = value;
    }
    if (!result) fail(source, "is missing");
    return *result;
  }

  double positive(const char* key, double fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_number()) wrong_type(key, "a number", *value);
    const double number = value->get<double>();
    if (!(number >= kLeastNumber && number <= kMostNumber))
      fail(key, fmt::format("must be a positive number, not {}", value->dump()));
    return number;
  }

  bool boolean(const char* key, bool fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) wrong_type(key, "true or false", *value);
    return value->get<bool>();
  }

  std::optional<std::string> text(const char* key) const {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) wrong_type(key, "a string", *value);
    return value->get<std::string>();
  }

  std::optional<Section> object(const char* key) const {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_object()) wrong_type(key, "an object", *value);
    return Section(*value, file_, fmt::format("{}{}.", prefix_, key));
  }

  [[noreturn]] void wrong_type(const char* key, std::string_view expected,
                               const Json& value) const {
    fail(key, fmt::format("must be {}, not {}", expected, value.type_name()));
  }

 private:
  const Json* object_;
  std::string file_;
  std::string prefix_;
};

void check_architecture(const Section& root) {
  if (root.find("model_type") == nullptr && root.find("rope_scaling_factor") != nullptr)
    root.fail("model_type", "is missing: this is OpenAI's original layout",
              "Point at the directory above it, which holds the Hugging Face layout.");
  const auto type = root.text("model_type");
  if (!type) root.fail("model_type", "is missing");
  if (*type != "gpt_oss")
    root.fail("model_type", fmt::format("\"{}\" is not supported", *type),
              "Strata serves gpt-oss models (model_type \"gpt_oss\") and nothing else.");
  if (const auto act = root.text("hidden_act"); act && *act != "silu")
    root.fail("hidden_act", fmt::format("\"{}\" is not supported, only \"silu\" is", *act));
  if (root.boolean("tie_word_embeddings", false))
    root.fail("tie_word_embeddings", "true is not supported: gpt-oss stores lm_head itself");
  if (!root.boolean("attention_bias", true))
    root.fail("attention_bias", "false is not supported: gpt-oss projections have biases");
}

std::int32_t multiple_of(const Section& root, const char* key, std::int32_t unit,
                         std::int64_t most) {
  const std::int32_t value = root.required({key}, 1, most);
  if (value % unit != 0)
    root.fail(key, fmt::format("must be a multiple of {}, not {}", unit, value));
  return value;
}

void read_shape(const Section& root, ModelConfig& config) {
  config.num_layers = root.required({"num_hidden_layers"}, 1, kMaxCount);
  config.hidden = multiple_of(root, "hidden_size", 32, kMaxWidth);
  config.intermediate = multiple_of(root, "intermediate_size", 32, kMaxWidth);
  config.vocab = root.required({"vocab_size"}, 1, kMaxVocab);
  config.num_q_heads = root.required({"num_attention_heads"}, 1, kMaxCount);
  config.num_kv_heads = root.required({"num_key_value_heads"}, 1, kMaxCount);
  if (config.num_q_heads % config.num_kv_heads != 0)
    root.fail("num_key_value_heads", fmt::format("{} does not divide num_attention_heads {}",
                                                 config.num_kv_heads, config.num_q_heads));
  config.head_dim = root.integer("head_dim", 2, kMaxHeadDim).value_or(64);
  if (config.head_dim % 2 != 0)
    root.fail("head_dim", fmt::format("must be even, not {}", config.head_dim));
  if (config.q_dim() % 32 != 0)
    root.fail("head_dim",
              fmt::format("head_dim x num_attention_heads = {} must be a multiple of 32",
                          config.q_dim()));
  config.num_experts = root.required({"num_local_experts", "num_experts"}, 1, kMaxCount);
  config.experts_per_token =
      root.required({"num_experts_per_tok", "experts_per_token"}, 1, kMaxCount);
  if (config.experts_per_token > config.num_experts)
    root.fail("num_experts_per_tok", fmt::format("{} is more than the {} experts",
                                                 config.experts_per_token, config.num_experts));
  config.rms_eps = static_cast<float>(root.positive("rms_norm_eps", 1e-5));
  config.swiglu_limit = static_cast<float>(root.positive("swiglu_limit", 7.0));
  config.swiglu_alpha = static_cast<float>(root.positive("swiglu_alpha", 1.702));
}

// Which layers slide: `layer_types`, or sliding and full in turn, sliding first.
void read_attention_pattern(const Section& root, ModelConfig& config) {
  const auto layers = static_cast<std::size_t>(config.num_layers);
  bool any_window = false;
  if (const Json* types = root.find("layer_types")) {
    if (!types->is_array()) root.wrong_type("layer_types", "an array", *types);
    if (types->size() != layers)
      root.fail("layer_types", fmt::format("has {} entries for {} layers", types->size(), layers));
    for (const Json& type : *types) {
      const bool window = type == "sliding_attention";
      if (!window && type != "full_attention")
        root.fail("layer_types", fmt::format("entry {} is {}, neither \"sliding_attention\" nor "
                                             "\"full_attention\"",
                                             config.windowed.size(), type.dump()));
      config.windowed.push_back(window);
      any_window = any_window || window;
    }
  } else {
    for (std::size_t layer = 0; layer < layers; ++layer) config.windowed.push_back(layer % 2 == 0);
    any_window = true;
  }
  const auto window = root.integer("sliding_window", 1, kMaxPositions);
  if (any_window && !window && root.find("layer_types") != nullptr)
    root.fail("sliding_window", "is missing, but layer_types has sliding layers");
  config.window = window.value_or(128);
}

void check_rope_extras(const Section& rope) {
  for (const char* key : {"mscale", "mscale_all_dim"})
    if (rope.find(key) != nullptr) rope.fail(key, "is not supported");
  if (rope.positive("partial_rotary_factor", 1.0) != 1.0)
    rope.fail("partial_rotary_factor", "other than 1 is not supported");
  for (const char* key : {"full_attention", "sliding_attention"})
    if (rope.find(key) != nullptr)
      rope.fail(key, "rotary settings that differ by layer type are not supported");
}

void read_rope(const Section& root, ModelConfig& config) {
  config.max_context = root.integer("max_position_embeddings", 1, kMaxPositions).value_or(131072);
  RopeConfig& rope = config.rope;
  rope.theta = root.positive("rope_theta", 150000.0);
  rope.factor = 1.0;
  auto section = root.object("rope_parameters");
  if (!section) section = root.object("rope_scaling");
  if (!section) return;
  check_rope_extras(*section);
  rope.theta = section->positive("rope_theta", rope.theta);
  std::string type = section->text("rope_type").value_or("default");
  if (section->find("rope_type") == nullptr) type = section->text("type").value_or(type);
  if (type == "default") return;
  if (type != "yarn")
    section->fail("rope_type",
                  fmt::format("\"{}\" is not supported, only \"yarn\" and \"default\"", type));
  auto original = section->integer("original_max_position_embeddings", 1, kMaxPositions);
  if (!original) original = root.integer("initial_context_length", 1, kMaxPositions);
  if (!original) section->fail("original_max_position_embeddings", "is missing");
  rope.original_context = *original;
  rope.factor =
      section->positive("factor", static_cast<double>(config.max_context) / rope.original_context);
  if (rope.factor < 1.0)
    section->fail("factor", fmt::format("must be at least 1, not {}", rope.factor));
  const double concentration = 0.1 * std::log(rope.factor) + 1.0;
  if (std::abs(section->positive("attention_factor", concentration) - concentration) > 1e-5)
    section->fail("attention_factor", fmt::format("other than {} is not supported", concentration));
  rope.beta_fast = section->positive("beta_fast", 32.0);
  rope.beta_slow = section->positive("beta_slow", 1.0);
  rope.truncate = section->boolean("truncate", true);  // transformers' default, not gpt-oss's
}

void read_expert_format(const Section& root, ModelConfig& config) {
  const auto quantization = root.object("quantization_config");
  config.expert_format = quantization ? ExpertFormat::kMxfp4 : ExpertFormat::kBf16;
  if (!quantization) return;
  const auto method = quantization->text("quant_method");
  if (!method) quantization->fail("quant_method", "is missing");
  if (*method != "mxfp4")
    quantization->fail("quant_method",
                       fmt::format("\"{}\" is not supported, only \"mxfp4\" is", *method));
}

}  // namespace

ModelConfig parse_model_config(std::string_view json_text, std::string_view file_name) {
  const auto json = parse_json(json_text, file_name);
  if (!json) throw StartupError(json.error().message);
  if (!json->is_object())
    throw StartupError(
        fmt::format("{}: must be a JSON object, not {}", file_name, json->type_name()));
  const Section root(*json, std::string(file_name), "");
  ModelConfig config;
  check_architecture(root);
  read_shape(root, config);
  read_attention_pattern(root, config);
  read_rope(root, config);
  read_expert_format(root, config);
  return config;
}

}  // namespace strata::weights
