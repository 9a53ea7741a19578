// TensorView: one named tensor of a checkpoint, described but not yet read.
//
// A checkpoint is a stream of views in file order (weights/). Whoever adopts a tensor pulls its
// bytes straight into their final place with `source->read`, so no file is held twice: the same
// interface serves safetensors shards and the dummy generator, dense adoption, expert slabs and
// tensor-parallel shards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace strata {

enum class DType { kBf16, kF32, kF16, kU8, kI8 };

constexpr std::size_t dtype_size(DType dtype) {
  switch (dtype) {
    case DType::kBf16:
    case DType::kF16: return 2;
    case DType::kF32: return 4;
    case DType::kU8:
    case DType::kI8: return 1;
  }
  return 0;
}

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  // Fills `dst` with bytes [offset, offset + dst.size()) of the tensor, row-major as stored.
  // Callable from several threads for disjoint or equal ranges.
  // Throws StartupError naming file, tensor and offset when the bytes cannot be had.
  virtual void read(std::size_t offset, std::span<std::byte> dst) const = 0;
};

struct TensorView {
  std::string name;  // Hugging Face name, e.g. model.layers.0.self_attn.sinks
  DType dtype = DType::kBf16;
  std::vector<std::int64_t> shape;       // row-major
  std::string file;                      // origin, for messages
  std::uint64_t file_offset = 0;         // first byte in `file`
  const TensorSource* source = nullptr;  // valid while the stream that produced the view lives

  std::size_t num_elements() const {
    std::size_t count = 1;
    for (const std::int64_t dim : shape) count *= static_cast<std::size_t>(dim);
    return count;
  }
  std::size_t num_bytes() const { return num_elements() * dtype_size(dtype); }
};

}  // namespace strata
