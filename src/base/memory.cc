#include "base/memory.h"

#include <fmt/core.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>

#include "base/check.h"
#include "base/fault.h"
#include "base/result.h"

namespace strata {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::atomic<bool> huge_pages{true};
std::mutex mutex;
std::map<std::string, SiteUsage>& sites() {
  static std::map<std::string, SiteUsage> instance;
  return instance;
}

// Maps `bytes` rounded up to pages; large blocks start on a huge-page boundary.
std::byte* map_block(std::size_t bytes) {
  const bool large = bytes >= kHugePage;
  const std::size_t extra = large ? kHugePage : 0;
  void* raw = mmap(nullptr, bytes + extra, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto start = reinterpret_cast<std::uintptr_t>(raw);
  if (!large) return reinterpret_cast<std::byte*>(start);
  const std::uintptr_t aligned = (start + kHugePage - 1) / kHugePage * kHugePage;
  const std::uintptr_t end = (aligned + bytes + 4095) / 4096 * 4096;
  const std::uintptr_t raw_end = (start + bytes + extra + 4095) / 4096 * 4096;
  if (aligned > start) munmap(raw, aligned - start);
  if (raw_end > end) munmap(reinterpret_cast<void*>(end), raw_end - end);
  const int advice = huge_pages.load() ? MADV_HUGEPAGE : MADV_NOHUGEPAGE;
  madvise(reinterpret_cast<void*>(aligned), bytes, advice);
  return reinterpret_cast<std::byte*>(aligned);
}

}  // namespace

HostBuffer::HostBuffer(const char* site, std::size_t bytes) {
  if (bytes == 0) return;
  const std::string point = std::string("alloc.") + site;
  std::byte* block = fault::at(point.c_str()) == fault::Action::kNone ? map_block(bytes) : nullptr;
  if (block == nullptr)
    throw MemoryError(fmt::format("cannot allocate {} bytes for {}", bytes, site));
  site_ = site;
  data_ = block;
  bytes_ = bytes;
  const std::lock_guard lock(mutex);
  SiteUsage& usage = sites()[site];
  usage.site = site;
  usage.live_bytes += bytes;
  usage.peak_bytes = std::max(usage.peak_bytes, usage.live_bytes);
  ++usage.allocations;
}

void HostBuffer::reset() {
  if (data_ == nullptr) return;
  munmap(data_, (bytes_ + 4095) / 4096 * 4096);
  const std::lock_guard lock(mutex);
  SiteUsage& usage = sites()[site_];
  STRATA_CHECK(usage.live_bytes >= bytes_, "site {}", site_);
  usage.live_bytes -= bytes_;
  data_ = nullptr;
  bytes_ = 0;
}

std::vector<SiteUsage> host_memory_usage() {
  const std::lock_guard lock(mutex);
  std::vector<SiteUsage> usage;
  for (const auto& [name, site] : sites()) usage.push_back(site);
  return usage;
}

void ask_for_huge_pages(bool ask) { huge_pages.store(ask); }

std::size_t huge_page_bytes() {
  std::ifstream rollup("/proc/self/smaps_rollup");
  for (std::string line; std::getline(rollup, line);) {
    unsigned long kib = 0;
    if (std::sscanf(line.c_str(), "AnonHugePages: %lu kB", &kib) == 1)
      return std::size_t{kib} * 1024;
  }
  return 0;
}

std::size_t host_memory_live_bytes() {
  std::size_t total = 0;
  for (const SiteUsage& site : host_memory_usage()) total += site.live_bytes;
  return total;
}

}  // namespace strata
