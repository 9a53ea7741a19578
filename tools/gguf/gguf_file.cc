#include "gguf_file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "base/check.h"
#include "base/result.h"

namespace strata::gguf {
namespace {

constexpr std::size_t kAlignment = 32;
constexpr std::uint32_t kVersion = 3;
constexpr std::uint32_t kValueU32 = 4, kValueI32 = 5, kValueF32 = 6, kValueString = 8,
                        kValueArray = 9;

std::size_t align(std::size_t offset) {
  return (offset + kAlignment - 1) / kAlignment * kAlignment;
}

template <typename T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void append_string(std::string& out, const std::string& text) {
  append(out, static_cast<std::uint64_t>(text.size()));
  out += text;
}

void append_array_head(std::string& out, const std::string& key, std::uint32_t type,
                       std::size_t count) {
  append_string(out, key);
  append(out, kValueArray);
  append(out, type);
  append(out, static_cast<std::uint64_t>(count));
}

std::size_t num_elements(const Tensor& tensor) {
  std::size_t count = 1;
  for (const std::uint64_t dim : tensor.dims) count *= dim;
  return count;
}

}  // namespace

std::size_t type_bytes(Type type, std::size_t count) {
  switch (type) {
    case Type::kF32: return count * 4;
    case Type::kBf16: return count * 2;
    case Type::kQ8_0: return count / 32 * 34;
    case Type::kMxfp4: return count / 32 * 17;
  }
  return 0;
}

void GgufFile::add_string(const std::string& key, const std::string& value) {
  append_string(metadata_, key);
  append(metadata_, kValueString);
  append_string(metadata_, value);
  ++num_metadata_;
}

void GgufFile::add_u32(const std::string& key, std::uint32_t value) {
  append_string(metadata_, key);
  append(metadata_, kValueU32);
  append(metadata_, value);
  ++num_metadata_;
}

void GgufFile::add_f32(const std::string& key, float value) {
  append_string(metadata_, key);
  append(metadata_, kValueF32);
  append(metadata_, value);
  ++num_metadata_;
}

void GgufFile::add_strings(const std::string& key, const std::vector<std::string>& values) {
  append_array_head(metadata_, key, kValueString, values.size());
  for (const std::string& value : values) append_string(metadata_, value);
  ++num_metadata_;
}

void GgufFile::add_i32s(const std::string& key, const std::vector<std::int32_t>& values) {
  append_array_head(metadata_, key, kValueI32, values.size());
  for (const std::int32_t value : values) append(metadata_, value);
  ++num_metadata_;
}

void GgufFile::add_tensor(std::string name, Type type, std::vector<std::uint64_t> dims) {
  Tensor tensor{std::move(name), type, std::move(dims), 0};
  if (!tensors_.empty()) {
    const Tensor& last = tensors_.back();
    tensor.offset = align(last.offset + type_bytes(last.type, num_elements(last)));
  }
  tensors_.push_back(std::move(tensor));
}

void GgufFile::create(const std::string& path) {
  std::string head = "GGUF";
  append(head, kVersion);
  append(head, static_cast<std::uint64_t>(tensors_.size()));
  append(head, num_metadata_);
  head += metadata_;
  for (const Tensor& tensor : tensors_) {
    append_string(head, tensor.name);
    append(head, static_cast<std::uint32_t>(tensor.dims.size()));
    for (const std::uint64_t dim : tensor.dims) append(head, dim);
    append(head, static_cast<std::uint32_t>(tensor.type));
    append(head, static_cast<std::uint64_t>(tensor.offset));
  }
  data_begin_ = align(head.size());
  const Tensor& last = tensors_.back();
  file_bytes_ = data_begin_ + align(last.offset + type_bytes(last.type, num_elements(last)));

  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0 || ftruncate(file, static_cast<off_t>(file_bytes_)) != 0)
    throw StartupError(fmt::format("{}: cannot create a file of {} bytes", path, file_bytes_));
  void* mapping = mmap(nullptr, file_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (mapping == MAP_FAILED) throw StartupError(path + ": cannot be mapped");
  mapping_ = static_cast<std::byte*>(mapping);
  std::memcpy(mapping_, head.data(), head.size());
}

std::span<std::byte> GgufFile::data(const std::string& name) {
  for (const Tensor& tensor : tensors_)
    if (tensor.name == name)
      return {mapping_ + data_begin_ + tensor.offset,
              type_bytes(tensor.type, num_elements(tensor))};
  STRATA_CHECK(false, "tensor {}", name);
  return {};
}

GgufFile::~GgufFile() {
  if (mapping_ != nullptr) munmap(mapping_, file_bytes_);
}

}  // namespace strata::gguf
