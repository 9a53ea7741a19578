// The safetensors container, read strictly: what another reader could see differently is an error.
// Pure parsing of bytes already in memory; reading files is shard_file.h. Any thread.
//
// File: u64 little-endian header length N, N bytes of JSON, then the payload. The JSON maps each
// tensor name to {dtype, shape, data_offsets: [begin, end) in the payload}.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/tensor_view.h"

namespace strata::weights {

inline constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
inline constexpr std::uint64_t kHeaderLengthBytes = 8;

struct TensorEntry {
  std::string name;
  DType dtype = DType::kBf16;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  // first byte, from the start of the file
  std::uint64_t bytes = 0;  // > 0
};

// Checks the length field against the limit and the file's size. `prefix` holds the file's first
// min(8, file_bytes) bytes. Throws StartupError naming `file` and the offset.
std::uint64_t parse_header_length(std::string_view prefix, std::uint64_t file_bytes,
                                  const std::string& file);

// Reads the header's JSON; entries come sorted by offset and cover the payload without hole or
// overlap. Throws StartupError naming `file`, the tensor and a byte offset in the file.
std::vector<TensorEntry> parse_header(std::string_view json_text, std::uint64_t file_bytes,
                                      const std::string& file);

// model.safetensors.index.json: (tensor, shard file name) pairs in the file's order. Shard names
// are plain names without a path. Throws StartupError naming `file` and the tensor.
struct ShardIndex {
  std::vector<std::pair<std::string, std::string>> weight_map;
  std::uint64_t total_size = 0;  // metadata.total_size; 0: not given
};
ShardIndex parse_index(std::string_view json_text, const std::string& file);

// Throws StartupError: FILE: tensor "NAME" at byte OFFSET: WHAT (the name is left out when empty).
[[noreturn]] void fail_at(const std::string& file, std::string_view tensor, std::uint64_t offset,
                          std::string_view what, std::string hint = {});
// The name as a JSON string, cut to a readable length.
std::string quote(std::string_view name);

}  // namespace strata::weights
