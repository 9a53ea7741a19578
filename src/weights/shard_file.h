// One safetensors file on disk: opened, measured, its header parsed, its payload read by pread.
// The reads of one file may come from several threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/tensor_view.h"
#include "weights/safetensors.h"

namespace strata::weights {

// Owns the descriptor.
class ShardFile {
 public:
  // Throws StartupError naming the file and the system's reason.
  explicit ShardFile(const std::filesystem::path& path);
  ~ShardFile();
  ShardFile(const ShardFile&) = delete;
  ShardFile& operator=(const ShardFile&) = delete;

  const std::string& name() const { return name_; }
  std::uint64_t bytes() const { return bytes_; }

  std::vector<TensorEntry> read_header() const;
  // Fills `dst` from `offset`; `tensor` is for messages, empty for the header. Fault points
  // weights.read (the system call fails) and weights.short_read (the file ends too early).
  void read(std::uint64_t offset, std::span<std::byte> dst, std::string_view tensor) const;
  // Asks the kernel to forget the cached pages that lie inside the range.
  void drop_cache(std::uint64_t offset, std::uint64_t bytes) const;

 private:
  std::string name_;
  int fd_ = -1;
  std::uint64_t bytes_ = 0;
};

// The bytes of one tensor. Holds references: valid while file and entry live.
class FileTensorSource final : public TensorSource {
 public:
  FileTensorSource(const ShardFile& file, const TensorEntry& entry) : file_(file), entry_(entry) {}
  void read(std::size_t offset, std::span<std::byte> dst) const override;

 private:
  const ShardFile& file_;
  const TensorEntry& entry_;
};

// A whole small text file (config, index). Throws StartupError when it cannot be read or is larger
// than `most` bytes.
std::string read_text_file(const std::filesystem::path& path, std::uint64_t most);

}  // namespace strata::weights
