// The accounting allocator: every large block of host memory has a named site.
//
// Sites are the names of MemoryPlan's lines ("weights.dense", "kv.pool", ...). Tests make the n-th
// allocation of a site fail through the fault point "alloc.<site>". Blocks are anonymous, zeroed,
// 2 MiB aligned when large (transparent huge pages are asked for), 64-byte aligned otherwise.
// Thread-safe.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace strata {

// Owns one block. Movable; frees on destruction and gives the bytes back to its site.
class HostBuffer {
 public:
  HostBuffer() = default;
  // Throws MemoryError naming site and size. `site` must be a string literal.
  HostBuffer(const char* site, std::size_t bytes);
  ~HostBuffer() { reset(); }
  HostBuffer(HostBuffer&& other) noexcept { swap(other); }
  HostBuffer& operator=(HostBuffer&& other) noexcept {
    if (this != &other) {
      reset();
      swap(other);
    }
    return *this;
  }
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return bytes_; }
  bool empty() const { return bytes_ == 0; }
  template <typename T>
  std::span<T> as() {
    return {reinterpret_cast<T*>(data_), bytes_ / sizeof(T)};
  }
  template <typename T>
  std::span<const T> as() const {
    return {reinterpret_cast<const T*>(data_), bytes_ / sizeof(T)};
  }
  void reset();

 private:
  void swap(HostBuffer& other) noexcept {
    std::swap(site_, other.site_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  const char* site_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

struct SiteUsage {
  std::string site;
  std::size_t live_bytes = 0;
  std::size_t peak_bytes = 0;
  std::size_t allocations = 0;
};
// Snapshot of all sites used so far, sorted by name: for plans, metrics, leak and sweep tests.
std::vector<SiteUsage> host_memory_usage();
std::size_t host_memory_live_bytes();

// Whether large blocks made from now on ask for huge pages (they do unless told otherwise), and how
// many bytes of this process the kernel gave them; 0 where it does not tell.
void ask_for_huge_pages(bool ask);
std::size_t huge_page_bytes();

}  // namespace strata
