#include "weights/tensor_map.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace strata::weights {
namespace {

// Appends the tensors of one layer; `prefix` is "model.layers.N.".
class LayerTensors {
 public:
  LayerTensors(std::vector<TensorSpec>& out, LayerId layer)
      : out_(out), layer_(layer), prefix_(fmt::format("model.layers.{}.", layer)) {}

  void add(const char* name, TensorKind kind, std::vector<std::int64_t> shape,
           DType dtype = DType::kBf16) {
    out_.push_back({prefix_ + name, dtype, std::move(shape), kind, layer_});
  }

 private:
  std::vector<TensorSpec>& out_;
  LayerId layer_;
  std::string prefix_;
};

void add_attention(LayerTensors& layer, const ModelConfig& config) {
  const std::int64_t h = config.hidden;
  const std::int64_t q = config.q_dim();
  const std::int64_t kv = config.kv_dim();
  layer.add("input_layernorm.weight", TensorKind::kAttnNorm, {h});
  layer.add("self_attn.sinks", TensorKind::kSinks, {config.num_q_heads});
  layer.add("self_attn.q_proj.weight", TensorKind::kQWeight, {q, h});
  layer.add("self_attn.q_proj.bias", TensorKind::kQBias, {q});
  layer.add("self_attn.k_proj.weight", TensorKind::kKWeight, {kv, h});
  layer.add("self_attn.k_proj.bias", TensorKind::kKBias, {kv});
  layer.add("self_attn.v_proj.weight", TensorKind::kVWeight, {kv, h});
  layer.add("self_attn.v_proj.bias", TensorKind::kVBias, {kv});
  layer.add("self_attn.o_proj.weight", TensorKind::kOutWeight, {h, q});
  layer.add("self_attn.o_proj.bias", TensorKind::kOutBias, {h});
}

void add_experts(LayerTensors& layer, const ModelConfig& config) {
  const std::int64_t h = config.hidden;
  const std::int64_t i = config.intermediate;
  const std::int64_t e = config.num_experts;
  layer.add("post_attention_layernorm.weight", TensorKind::kMlpNorm, {h});
  layer.add("mlp.router.weight", TensorKind::kRouterWeight, {e, h});
  layer.add("mlp.router.bias", TensorKind::kRouterBias, {e});
  const DType u8 = DType::kU8;
  if (config.expert_format == ExpertFormat::kMxfp4) {
    layer.add("mlp.experts.gate_up_proj_blocks", TensorKind::kGateUpBlocks, {e, 2 * i, h / 32, 16},
              u8);
    layer.add("mlp.experts.gate_up_proj_scales", TensorKind::kGateUpScales, {e, 2 * i, h / 32}, u8);
  } else {
    layer.add("mlp.experts.gate_up_proj", TensorKind::kGateUpWeight, {e, h, 2 * i});
  }
  layer.add("mlp.experts.gate_up_proj_bias", TensorKind::kGateUpBias, {e, 2 * i});
  if (config.expert_format == ExpertFormat::kMxfp4) {
    layer.add("mlp.experts.down_proj_blocks", TensorKind::kDownBlocks, {e, h, i / 32, 16}, u8);
    layer.add("mlp.experts.down_proj_scales", TensorKind::kDownScales, {e, h, i / 32}, u8);
  } else {
    layer.add("mlp.experts.down_proj", TensorKind::kDownWeight, {e, i, h});
  }
  layer.add("mlp.experts.down_proj_bias", TensorKind::kDownBias, {e, h});
}

}  // namespace

std::vector<TensorSpec> expected_tensors(const ModelConfig& config) {
  const std::int64_t v = config.vocab;
  const std::int64_t h = config.hidden;
  std::vector<TensorSpec> specs;
  specs.push_back({"model.embed_tokens.weight", DType::kBf16, {v, h}, TensorKind::kEmbedding, -1});
  for (LayerId id = 0; id < config.num_layers; ++id) {
    LayerTensors layer(specs, id);
    add_attention(layer, config);
    add_experts(layer, config);
  }
  specs.push_back({"model.norm.weight", DType::kBf16, {h}, TensorKind::kFinalNorm, -1});
  specs.push_back({"lm_head.weight", DType::kBf16, {v, h}, TensorKind::kUnembedding, -1});
  return specs;
}

bool accepts_dtype(const TensorSpec& spec, DType dtype) {
  if (dtype == spec.dtype) return true;
  const bool of_experts = spec.kind >= TensorKind::kGateUpBlocks;
  return dtype == DType::kF32 && !of_experts;
}

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::kBf16: return "BF16";
    case DType::kF32: return "F32";
    case DType::kF16: return "F16";
    case DType::kU8: return "U8";
    case DType::kI8: return "I8";
  }
  return "?";
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace strata::weights
