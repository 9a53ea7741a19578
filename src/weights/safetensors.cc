#include "weights/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/json.h"
#include "base/result.h"
#include "weights/tensor_map.h"

namespace strata::weights {
namespace {

constexpr std::size_t kMaxNameShown = 200;
constexpr std::size_t kMaxDims = 8;

std::optional<std::uint64_t> checked_product(std::uint64_t a, std::uint64_t b) {
  std::uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

std::optional<DType> parse_dtype(std::string_view name) {
  for (const DType dtype : {DType::kBf16, DType::kF32, DType::kF16, DType::kU8, DType::kI8})
    if (name == dtype_name(dtype)) return dtype;
  return std::nullopt;
}

// One file's header while it is checked.
class HeaderReader {
 public:
  HeaderReader(std::string_view text, std::uint64_t file_bytes, const std::string& file)
      : text_(text),
        file_(file),
        payload_begin_(kHeaderLengthBytes + text.size()),
        payload_bytes_(file_bytes - payload_begin_) {}

  std::vector<TensorEntry> read() {
    if (text_.empty() || text_.front() != '{')
      fail_at(file_, {}, kHeaderLengthBytes, "the header does not start with '{'");
    const auto json =
        parse_json(text_, fmt::format("{}: header (starts at byte {})", file_, kHeaderLengthBytes),
                   {.max_depth = 4, .max_members = 1 << 20});
    if (!json) throw StartupError(json.error().message);
    std::vector<TensorEntry> entries;
    for (const auto& [name, value] : json->items()) {
      if (name == "__metadata__") check_metadata(value);
      else entries.push_back(read_entry(name, value));
    }
    std::sort(entries.begin(), entries.end(),
              [](const TensorEntry& a, const TensorEntry& b) { return a.begin < b.begin; });
    check_coverage(entries);
    return entries;
  }

 private:
  // Where the header speaks of the tensor, as an offset in the file.
  std::uint64_t entry_offset(std::string_view name) const {
    std::string key;
    append_json_string(key, name);
    const auto at = text_.find(key);
    return kHeaderLengthBytes + (at == std::string_view::npos ? 0 : at);
  }
  [[noreturn]] void fail_entry(std::string_view name, std::string_view what) const {
    fail_at(file_, name, entry_offset(name), what);
  }

  void check_metadata(const Json& value) const {
    if (!value.is_object()) fail_entry("__metadata__", "is not an object");
    for (const auto& [key, item] : value.items())
      if (!item.is_string())
        fail_entry("__metadata__", fmt::format("the value of {} is not a string", quote(key)));
  }

  TensorEntry read_entry(const std::string& name, const Json& value) const {
    if (!value.is_object()) fail_entry(name, "the entry is not an object");
    for (const auto& [key, item] : value.items())
      if (key != "dtype" && key != "shape" && key != "data_offsets")
        fail_entry(name, fmt::format("unknown key {}", quote(key)));
    for (const char* key : {"dtype", "shape", "data_offsets"})
      if (!value.contains(key)) fail_entry(name, fmt::format("has no {}", key));
    TensorEntry entry;
    entry.name = name;
    if (!value["dtype"].is_string()) fail_entry(name, "dtype is not a string");
    const auto dtype = parse_dtype(value["dtype"].get_ref<const std::string&>());
    if (!dtype)
      fail_entry(name, fmt::format("dtype {} is not supported", quote(value["dtype"].dump())));
    entry.dtype = *dtype;
    const std::uint64_t expected = read_shape(name, value["shape"], entry);
    read_offsets(name, value["data_offsets"], entry);
    if (entry.bytes != expected)
      fail_at(file_, name, entry.begin,
              fmt::format("data_offsets span {} bytes, but {} {} takes {}", entry.bytes,
                          dtype_name(entry.dtype), shape_text(entry.shape), expected));
    return entry;
  }

  // Returns the tensor's size in bytes.
  std::uint64_t read_shape(const std::string& name, const Json& shape, TensorEntry& entry) const {
    if (!shape.is_array()) fail_entry(name, "shape is not an array");
    if (shape.size() > kMaxDims)
      fail_entry(name, fmt::format("shape has {} dimensions, at most {} are supported",
                                   shape.size(), kMaxDims));
    std::optional<std::uint64_t> bytes = dtype_size(entry.dtype);
    for (const Json& dim : shape) {
      if (!dim.is_number_unsigned())
        fail_entry(name, fmt::format("shape holds {}, not a whole number", quote(dim.dump())));
      const auto size = dim.get<std::uint64_t>();
      if (size == 0) fail_entry(name, "a dimension is 0: empty tensors are refused");
      bytes = checked_product(*bytes, size);
      if (!bytes || *bytes > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
        fail_entry(name, "the size of the shape overflows 64 bits");
      entry.shape.push_back(static_cast<std::int64_t>(size));
    }
    return *bytes;
  }

  void read_offsets(const std::string& name, const Json& offsets, TensorEntry& entry) const {
    if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
        !offsets[1].is_number_unsigned())
      fail_entry(name, "data_offsets is not a pair of whole numbers");
    const auto begin = offsets[0].get<std::uint64_t>();
    const auto end = offsets[1].get<std::uint64_t>();
    if (begin > end)
      fail_entry(name, fmt::format("data_offsets [{}, {}] run backwards", begin, end));
    if (end > payload_bytes_)
      fail_at(file_, name, payload_begin_ + std::min(begin, payload_bytes_),
              fmt::format("data_offsets [{}, {}] end beyond the payload of {} bytes", begin, end,
                          payload_bytes_),
              "The file is cut short or still being downloaded.");
    entry.begin = payload_begin_ + begin;
    entry.bytes = end - begin;
  }

  void check_coverage(const std::vector<TensorEntry>& entries) const {
    std::uint64_t end = payload_begin_;
    std::string_view previous;
    for (const TensorEntry& entry : entries) {
      if (entry.begin > end)
        fail_at(file_, entry.name, entry.begin,
                fmt::format("{} bytes before it (from byte {}) belong to no tensor",
                            entry.begin - end, end));
      if (entry.begin < end)
        fail_at(file_, entry.name, entry.begin,
                fmt::format("overlaps tensor {}, which ends at byte {}", quote(previous), end));
      end = entry.begin + entry.bytes;
      previous = entry.name;
    }
    if (const std::uint64_t file_end = payload_begin_ + payload_bytes_; end != file_end)
      fail_at(file_, previous, end,
              fmt::format("{} bytes after the last tensor belong to no tensor", file_end - end));
  }

  std::string_view text_;
  const std::string& file_;
  std::uint64_t payload_begin_;
  std::uint64_t payload_bytes_;
};

bool plain_file_name(std::string_view name) {
  return !name.empty() && name.front() != '.' && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos && name.size() < 256;
}

}  // namespace

std::uint64_t parse_header_length(std::string_view prefix, std::uint64_t file_bytes,
                                  const std::string& file) {
  if (file_bytes < kHeaderLengthBytes || prefix.size() < kHeaderLengthBytes)
    fail_at(file, {}, file_bytes,
            fmt::format("the file ends inside the 8-byte header length ({} bytes)", file_bytes),
            "The file is cut short or still being downloaded.");
  std::uint64_t length = 0;
  for (std::size_t i = kHeaderLengthBytes; i-- > 0;)
    length = length << 8 | static_cast<unsigned char>(prefix[i]);
  if (length > kMaxHeaderBytes)
    fail_at(file, {}, 0,
            fmt::format("the header length is {}, more than the format's limit of {}", length,
                        kMaxHeaderBytes),
            "This is not a safetensors file, or it is damaged.");
  if (length > file_bytes - kHeaderLengthBytes)
    fail_at(
        file, {}, 0,
        fmt::format("the header length is {}, but the file has only {} bytes", length, file_bytes),
        "The file is cut short or still being downloaded.");
  return length;
}

std::vector<TensorEntry> parse_header(std::string_view json_text, std::uint64_t file_bytes,
                                      const std::string& file) {
  return HeaderReader(json_text, file_bytes, file).read();
}

ShardIndex parse_index(std::string_view json_text, const std::string& file) {
  const auto json = parse_json(json_text, file, {.max_depth = 8, .max_members = 1 << 20});
  if (!json) throw StartupError(json.error().message);
  if (!json->is_object() || !json->contains("weight_map") || !(*json)["weight_map"].is_object())
    throw StartupError(fmt::format("{}: has no weight_map object", file));
  ShardIndex index;
  for (const auto& [tensor, shard] : (*json)["weight_map"].items()) {
    if (!shard.is_string() || !plain_file_name(shard.get_ref<const std::string&>()))
      throw StartupError(fmt::format("{}: weight_map: tensor {}: {} is not a plain file name", file,
                                     quote(tensor), quote(shard.dump())));
    index.weight_map.emplace_back(tensor, shard.get<std::string>());
  }
  if (json->contains("metadata") && (*json)["metadata"].is_object()) {
    const Json& metadata = (*json)["metadata"];
    if (metadata.contains("total_size") && metadata["total_size"].is_number_unsigned())
      index.total_size = metadata["total_size"].get<std::uint64_t>();
  }
  return index;
}

void fail_at(const std::string& file, std::string_view tensor, std::uint64_t offset,
             std::string_view what, std::string hint) {
  const std::string subject =
      tensor.empty() ? std::string() : fmt::format("tensor {} at ", quote(tensor));
  throw StartupError(fmt::format("{}: {}byte {}: {}", file, subject, offset, what),
                     std::move(hint));
}

std::string quote(std::string_view name) {
  std::string out;
  append_json_string(out, name.substr(0, kMaxNameShown));
  if (name.size() > kMaxNameShown) out += "...";
  return out;
}

}  // namespace strata::weights
