// Small checkpoints whose bytes are a function of (tensor name, byte index), for round trips.
#pragma once

#include <string>
#include <vector>

#include "base/random.h"
#include "tests/support/safetensors_writer.h"

namespace strata::test {

// H = 64, I = 96, two layers, three experts: every size differs from every other.
inline ModelConfig small_config(ExpertFormat format = ExpertFormat::kMxfp4) {
  ModelConfig config = strata_tiny();
  config.num_layers = 2;
  config.hidden = 64;
  config.intermediate = 96;
  config.num_q_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.num_experts = 3;
  config.experts_per_token = 2;
  config.vocab = 40;
  config.window = 8;
  config.windowed = {true, false};
  config.expert_format = format;
  return config;
}

inline std::string content_of(const std::string& name, std::size_t bytes) {
  std::string content(bytes, '\0');
  const std::uint64_t key = fnv1a64(name);
  for (std::size_t i = 0; i < bytes; ++i) content[i] = static_cast<char>(random_at(key, i) & 0xff);
  return content;
}

inline std::size_t byte_count(const weights::TensorSpec& spec) {
  std::size_t bytes = dtype_size(spec.dtype);
  for (const std::int64_t dim : spec.shape) bytes *= static_cast<std::size_t>(dim);
  return bytes;
}

inline void add_tensor(SafetensorsWriter& shard, const weights::TensorSpec& spec) {
  shard.add(spec.name, spec.dtype, spec.shape, content_of(spec.name, byte_count(spec)));
}

// All tensors of `config` dealt out to `shards` files in rotation, so that every layer and every
// pair of blocks and scales straddles files.
inline std::vector<SafetensorsWriter> deal_tensors(const ModelConfig& config, std::size_t shards) {
  std::vector<SafetensorsWriter> files(shards);
  std::size_t next = 0;
  for (const weights::TensorSpec& spec : weights::expected_tensors(config))
    add_tensor(files[next++ % shards], spec);
  return files;
}

}  // namespace strata::test
