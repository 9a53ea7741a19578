// MemoryCheckpoint: a checkpoint whose tensors lie in memory, for tests that make their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "weights/checkpoint.h"

namespace strata::test {

class MemoryCheckpoint final : public weights::Checkpoint {
 public:
  explicit MemoryCheckpoint(ModelConfig config) : config_(std::move(config)) {}

  // Adds a tensor under its Hugging Face name; streamed in order of addition.
  void add(std::string name, DType dtype, std::vector<std::int64_t> shape,
           std::vector<std::byte> bytes);
  // The bytes of a tensor, to be looked at or changed; CHECKs that it exists.
  std::vector<std::byte>& bytes(std::string_view name);
  const TensorView& view(std::string_view name) const;

  const ModelConfig& config() const override { return config_; }
  void stream(const std::function<void(const TensorView&)>& sink) const override;
  std::uint64_t total_bytes() const override;

 private:
  struct Entry : TensorSource {
    void read(std::size_t offset, std::span<std::byte> dst) const override;
    TensorView view;
    std::vector<std::byte> bytes;
  };
  Entry& find(std::string_view name) const;

  const ModelConfig config_;
  std::vector<std::unique_ptr<Entry>> entries_;
};

}  // namespace strata::test
