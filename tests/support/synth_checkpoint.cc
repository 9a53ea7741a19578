#include "tests/support/synth_checkpoint.h"

#include <cstring>

#include "base/bf16.h"
#include "base/check.h"
#include "base/random.h"
#include "base/sha256.h"
#include "tests/support/safetensors_writer.h"
#include "weights/tensor_map.h"

namespace strata::test {
namespace {

using weights::TensorKind;
using weights::TensorSpec;

struct Sizes {
  std::int32_t hidden, intermediate, layers, experts, top_k, heads, kv_heads, window, vocab;
};
struct Rope {
  double factor = 32.0;
  double theta = 150000.0;
  std::int32_t original = 4096;
  bool truncate = false;
};

ModelConfig make_config(const Sizes& sizes, const Rope& rope, ExpertFormat format) {
  ModelConfig config;
  config.hidden = sizes.hidden;
  config.intermediate = sizes.intermediate;
  config.num_layers = sizes.layers;
  config.num_experts = sizes.experts;
  config.experts_per_token = sizes.top_k;
  config.num_q_heads = sizes.heads;
  config.num_kv_heads = sizes.kv_heads;
  config.window = sizes.window;
  config.vocab = sizes.vocab;
  config.rope.factor = rope.factor;
  config.rope.theta = rope.theta;
  config.rope.original_context = rope.original;
  config.rope.truncate = rope.truncate;
  config.expert_format = format;
  for (LayerId layer = 0; layer < sizes.layers; ++layer) config.windowed.push_back(layer % 2 == 0);
  return config;
}

// clang-format off
std::vector<SynthShape> make_shapes() {
  const auto mxfp4 = ExpertFormat::kMxfp4;
  return {
      {"micro", make_config({64, 96, 4, 8, 4, 16, 2, 8, 384}, {}, mxfp4), 1, 1, false,
       {24, 300, 4500}},
      {"five", make_config({96, 64, 3, 5, 2, 6, 2, 16, 300},
                           {.factor = 8.0, .theta = 10000.0, .original = 1024}, mxfp4),
       2, 3, true, {24, 200}},
      {"seven", make_config({160, 32, 2, 7, 3, 4, 4, 5, 131}, {.factor = 4.0, .original = 512},
                            mxfp4),
       3, 2, false, {24, 200}},
      {"one", make_config({32, 160, 4, 3, 1, 8, 1, 128, 512}, {}, mxfp4), 4, 1, false, {24, 400}},
      {"dense16", make_config({64, 64, 4, 6, 2, 8, 2, 33, 257}, {.factor = 16.0},
                              ExpertFormat::kBf16),
       5, 2, true, {24, 200}},
      {"wide", make_config({128, 96, 6, 16, 4, 10, 2, 64, 1000},
                           {.factor = 64.0, .original = 2048, .truncate = true}, mxfp4),
       6, 5, false, {24, 500}},
  };
}

// Values are base + amplitude * uniform in [-1, 1).
struct Range {
  float base;
  float amplitude;
};
Range range_of(TensorKind kind) {
  switch (kind) {
    case TensorKind::kAttnNorm:
    case TensorKind::kMlpNorm:
    case TensorKind::kFinalNorm: return {1.0F, 0.25F};
    case TensorKind::kEmbedding: return {0.0F, 1.0F};
    case TensorKind::kUnembedding: return {0.0F, 0.5F};
    case TensorKind::kSinks: return {0.0F, 2.0F};
    case TensorKind::kRouterWeight: return {0.0F, 0.5F};
    case TensorKind::kOutWeight: return {0.0F, 0.0625F};
    case TensorKind::kQWeight:
    case TensorKind::kKWeight:
    case TensorKind::kVWeight: return {0.0F, 0.125F};
    case TensorKind::kDownWeight: return {0.0F, 0.015625F};
    default: return {0.0F, 1.0F};  // biases and dequantised gate_up
  }
}
// clang-format on

std::uint64_t key_of(const std::string& name, std::uint64_t seed) {
  return fnv1a64(name) ^ (seed * 0x9e3779b97f4a7c15ULL);
}

std::string tensor_bytes(const TensorSpec& spec, std::uint64_t seed) {
  std::size_t count = 1;
  for (const std::int64_t dim : spec.shape) count *= static_cast<std::size_t>(dim);
  const std::uint64_t key = key_of(spec.name, seed);
  std::string bytes(count * dtype_size(spec.dtype), '\0');
  const bool gate_up = spec.kind == TensorKind::kGateUpScales;
  const bool scales = gate_up || spec.kind == TensorKind::kDownScales;
  const Range range = range_of(spec.kind);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t value = random_at(key, i);
    if (scales) {
      bytes[i] = static_cast<char>((gate_up ? 124 : 118) + value % 3);
    } else if (spec.dtype == DType::kU8) {
      bytes[i] = static_cast<char>(value & 255);
    } else {
      const float uniform = static_cast<float>(value >> 40) * 0x1.0p-23F - 1.0F;
      const Bf16 half = to_bf16(range.base + range.amplitude * uniform);
      std::memcpy(&bytes[2 * i], &half.bits, 2);
    }
  }
  return bytes;
}

std::string hex_sha256(const std::string& bytes) {
  std::string text;
  for (const auto byte : sha256(std::as_bytes(std::span(bytes))))
    text += fmt::format("{:02x}", byte);
  return text;
}

}  // namespace

const std::vector<SynthShape>& synth_shapes() {
  static const std::vector<SynthShape> shapes = make_shapes();
  return shapes;
}

const SynthShape& synth_shape(std::string_view name) {
  for (const SynthShape& shape : synth_shapes())
    if (shape.name == name) return shape;
  STRATA_CHECK(false, "no shape {}", name);
  return synth_shapes().front();
}

std::map<std::string, std::string> write_synth_checkpoint(const SynthShape& shape,
                                                          const std::filesystem::path& directory) {
  const auto specs = weights::expected_tensors(shape.config);
  std::vector<std::string> contents;
  std::size_t total = 0;
  for (const TensorSpec& spec : specs) {
    contents.push_back(tensor_bytes(spec, shape.seed));
    total += contents.back().size();
  }
  // A file is full when its share of the bytes is reached; a layer may straddle two.
  std::vector<SafetensorsWriter> files(1);
  std::size_t written = 0;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    if (files.size() < shape.shards && written * shape.shards >= total * files.size())
      files.emplace_back();
    files.back().add(specs[i].name, specs[i].dtype, specs[i].shape, contents[i]);
    written += contents[i].size();
  }
  write_checkpoint(directory, shape.config, files, shape.rope_parameters);
  std::map<std::string, std::string> hashes;
  for (std::size_t i = 0; i < files.size(); ++i)
    hashes[shard_name(i, files.size())] = hex_sha256(files[i].bytes());
  return hashes;
}

std::vector<TokenId> synth_prompt(const SynthShape& shape, std::size_t number) {
  const std::uint64_t key = key_of(fmt::format("prompt:{}", number), shape.seed);
  std::vector<TokenId> prompt(shape.prompt_lengths.at(number));
  for (std::size_t i = 0; i < prompt.size(); ++i)
    prompt[i] =
        static_cast<TokenId>(random_at(key, i) % static_cast<std::uint64_t>(shape.config.vocab));
  return prompt;
}

}  // namespace strata::test
