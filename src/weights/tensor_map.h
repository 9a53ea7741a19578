// The tensors a gpt-oss checkpoint consists of: name, dtype, shape and meaning, in Hugging Face's
// naming. One list serves the reader's checks, the dummy generator and the loader. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/model_config.h"
#include "base/tensor_view.h"

namespace strata::weights {

// clang-format off
enum class TensorKind : std::uint8_t {
  kEmbedding, kUnembedding, kFinalNorm,
  kAttnNorm, kQWeight, kQBias, kKWeight, kKBias, kVWeight, kVBias, kSinks, kOutWeight, kOutBias,
  kMlpNorm, kRouterWeight, kRouterBias,
  // Of experts, from here on.
  kGateUpBlocks, kGateUpScales, kDownBlocks, kDownScales,  // MXFP4
  kGateUpWeight, kDownWeight,                              // dequantised
  kGateUpBias, kDownBias,
};
// clang-format on

struct TensorSpec {
  std::string name;
  DType dtype = DType::kBf16;
  std::vector<std::int64_t> shape;
  TensorKind kind = TensorKind::kEmbedding;
  LayerId layer = -1;  // -1: not of a layer
};

// Every tensor of a checkpoint of this shape, each exactly once, in the order in which Hugging
// Face's model holds them: embedding, layers, final norm, unembedding.
std::vector<TensorSpec> expected_tensors(const ModelConfig& config);

// Whether a tensor may come as `dtype`: as specified, and dense tensors also as float32, which
// transformers 5 writes for those it keeps in full precision.
bool accepts_dtype(const TensorSpec& spec, DType dtype);

// As safetensors writes it: "BF16", "U8", ...
const char* dtype_name(DType dtype);
// "[32, 5760, 90, 16]"
std::string shape_text(const std::vector<std::int64_t>& shape);

}  // namespace strata::weights
