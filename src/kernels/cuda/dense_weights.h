// Dense weights on the card: matrices in bfloat16 as in the checkpoint or in int8, vectors in
// float32. Read once at start-up through a staging buffer; const afterwards.
#pragma once

#include <cstdint>
#include <vector>

#include "base/model_config.h"
#include "base/tensor_view.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"
#include "kernels/stages.h"

namespace strata::kernels::cuda {

struct DenseWeight {
  std::byte* data = nullptr;
  std::uint16_t* scales = nullptr;  // of int8
  std::int32_t rows = 0;            // 1 for a vector
  std::int32_t cols = 0;
  std::int64_t first_row = 0;  // of the whole tensor
  std::size_t bytes = 0;

  Matrix matrix() const { return {data, scales, rows, cols}; }
  const float* vector() const { return reinterpret_cast<const float*>(data); }
};

class DenseWeights {
 public:
  // `format`: kBf16 or kI8g32, of matrices but the embedding and the router. `stream` outlives
  // this.
  DenseWeights(const ModelConfig& config, WeightFormat format, const Stream& stream);

  // Throws StartupError naming the tensor when it is neither bf16 nor f32, and what
  // view.source->read throws.
  WeightHandle adopt(const TensorView& view, Role role, const Shard& shard);
  const DenseWeight& operator[](WeightHandle handle) const { return weights_[handle.id - 1]; }

 private:
  const WeightFormat format_;
  const Stream& stream_;
  DeviceArena arena_;       // "weights.dense"
  PinnedBuffer embedding_;  // "weights.embedding": the card reads it over the bus
  std::vector<DenseWeight> weights_;
};

}  // namespace strata::kernels::cuda
