// Any bytes as a safetensors file, an index or a config.json: an error or a value that keeps the
// promises of its header, never a crash. The first byte picks the reader.
#include <cstdint>
#include <string>

#include "base/check.h"
#include "base/result.h"
#include "weights/checkpoint.h"
#include "weights/safetensors.h"
#include "weights/tensor_map.h"

namespace {

using strata::weights::TensorEntry;

void read_safetensors(std::string_view file) {
  const std::uint64_t length =
      strata::weights::parse_header_length(file.substr(0, 8), file.size(), "fuzz");
  STRATA_CHECK(length <= file.size() - 8);
  std::uint64_t end = 8 + length;
  for (const TensorEntry& entry :
       strata::weights::parse_header(file.substr(8, length), file.size(), "fuzz")) {
    STRATA_CHECK(entry.begin == end && entry.bytes > 0);
    std::uint64_t bytes = strata::dtype_size(entry.dtype);
    for (const std::int64_t dim : entry.shape) bytes *= static_cast<std::uint64_t>(dim);
    STRATA_CHECK(bytes == entry.bytes);
    end += entry.bytes;
  }
  STRATA_CHECK(end == file.size());
}

void read_index(std::string_view text) {
  for (const auto& [tensor, shard] : strata::weights::parse_index(text, "fuzz").weight_map)
    STRATA_CHECK(!shard.empty() && shard.find('/') == std::string::npos);
}

void read_config(std::string_view text) {
  const strata::ModelConfig config = strata::weights::parse_model_config(text, "fuzz");
  STRATA_CHECK(config.windowed.size() == static_cast<std::size_t>(config.num_layers));
  STRATA_CHECK(config.hidden % 32 == 0 && config.intermediate % 32 == 0);
  STRATA_CHECK(config.q_per_kv() * config.num_kv_heads == config.num_q_heads);
  STRATA_CHECK(config.experts_per_token <= config.num_experts);
  STRATA_CHECK(config.rope.factor >= 1.0 && config.rope.theta > 0.0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  try {
    switch (data[0] % 3) {
      case 0: read_safetensors(bytes); break;
      case 1: read_index(bytes); break;
      default: read_config(bytes); break;
    }
  } catch (const strata::StartupError& error) {
    STRATA_CHECK(*error.what() != '\0');
  }
  return 0;
}
