// GgufFile: lays out and writes a GGUF v3 file (the format of ggml's model files). The file is
// mapped, so tensors may be filled in any order and in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace strata::gguf {

// Numbers are the format's own.
enum class Type : std::uint32_t { kF32 = 0, kQ8_0 = 8, kBf16 = 30, kMxfp4 = 39 };

// Bytes of `count` elements; blocks are 32 elements long.
std::size_t type_bytes(Type type, std::size_t count);

struct Tensor {
  std::string name;
  Type type = Type::kF32;
  std::vector<std::uint64_t> dims;  // innermost first
  std::size_t offset = 0;           // in the data section
};

class GgufFile {
 public:
  void add_string(const std::string& key, const std::string& value);
  void add_u32(const std::string& key, std::uint32_t value);
  void add_f32(const std::string& key, float value);
  void add_strings(const std::string& key, const std::vector<std::string>& values);
  void add_i32s(const std::string& key, const std::vector<std::int32_t>& values);
  void add_tensor(std::string name, Type type, std::vector<std::uint64_t> dims);

  // Creates `path` and writes everything but tensor data. Throws StartupError.
  void create(const std::string& path);
  // The bytes of a tensor, after create().
  std::span<std::byte> data(const std::string& name);
  ~GgufFile();
  GgufFile() = default;
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

 private:
  std::string metadata_;
  std::uint64_t num_metadata_ = 0;
  std::vector<Tensor> tensors_;
  std::byte* mapping_ = nullptr;
  std::size_t file_bytes_ = 0;
  std::size_t data_begin_ = 0;
};

}  // namespace strata::gguf
