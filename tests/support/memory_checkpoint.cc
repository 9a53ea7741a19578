#include "tests/support/memory_checkpoint.h"

#include <cstring>

#include "base/check.h"

namespace strata::test {

void MemoryCheckpoint::Entry::read(std::size_t offset, std::span<std::byte> dst) const {
  STRATA_CHECK(offset + dst.size() <= bytes.size(), "{}: read past the end", view.name);
  std::memcpy(dst.data(), bytes.data() + offset, dst.size());
}

void MemoryCheckpoint::add(std::string name, DType dtype, std::vector<std::int64_t> shape,
                           std::vector<std::byte> bytes) {
  auto entry = std::make_unique<Entry>();
  entry->view.name = std::move(name);
  entry->view.dtype = dtype;
  entry->view.shape = std::move(shape);
  entry->view.file = "memory";
  entry->view.source = entry.get();
  entry->bytes = std::move(bytes);
  STRATA_CHECK(entry->bytes.size() == entry->view.num_bytes(), "{}", entry->view.name);
  entries_.push_back(std::move(entry));
}

MemoryCheckpoint::Entry& MemoryCheckpoint::find(std::string_view name) const {
  for (const auto& entry : entries_)
    if (entry->view.name == name) return *entry;
  STRATA_CHECK(false, "no tensor {}", name);
}

std::vector<std::byte>& MemoryCheckpoint::bytes(std::string_view name) { return find(name).bytes; }

const TensorView& MemoryCheckpoint::view(std::string_view name) const { return find(name).view; }

void MemoryCheckpoint::stream(const std::function<void(const TensorView&)>& sink) const {
  for (const auto& entry : entries_) sink(entry->view);
}

std::uint64_t MemoryCheckpoint::total_bytes() const {
  std::uint64_t total = 0;
  for (const auto& entry : entries_) total += entry->bytes.size();
  return total;
}

}  // namespace strata::test
