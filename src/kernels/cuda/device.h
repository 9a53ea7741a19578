// The card as the host sees it: checked calls and owned memory. Device memory is plain cudaMalloc,
// one arena for each line of the MemoryPlan.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>
#include <vector>

namespace strata::kernels::cuda {

// Throws DeviceError that names the call.
void check(cudaError_t status, const char* what);

// Whether launches may begin before those in front of them have ended, where the card can; the
// program sets it once, before the first launch.
bool early_launches();
void set_early_launches(bool allowed);

// One allocation, handed out from its beginning. Movable-free: made in place.
class DeviceArena {
 public:
  // Throws MemoryError naming the line and its size. `line` must be a string literal.
  DeviceArena(const char* line, std::size_t bytes);
  ~DeviceArena();
  DeviceArena(const DeviceArena&) = delete;
  DeviceArena& operator=(const DeviceArena&) = delete;

  std::byte* data() const { return data_; }
  std::size_t size() const { return bytes_; }
  // The next `bytes`, on a 256-byte boundary. CHECKs that they fit.
  std::byte* take(std::size_t bytes);

 private:
  const char* line_;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::size_t used_ = 0;
};

// Page-locked host memory, which the card reads and writes on its own.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(const char* line, std::size_t bytes);
  ~PinnedBuffer();
  PinnedBuffer(PinnedBuffer&& other) noexcept { swap(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;

  std::byte* data() const { return data_; }

 private:
  void swap(PinnedBuffer& other) noexcept { std::swap(data_, other.data_); }
  std::byte* data_ = nullptr;
};

class Stream {
 public:
  Stream();
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t get() const { return stream_; }
  void synchronize() const;

 private:
  cudaStream_t stream_ = nullptr;
};

// Copies to or from the card in the stream's order and waits: ordinary copies go by a stream of
// their own, which other streams do not wait for.
void copy_and_wait(const Stream& stream, void* to, const void* from, std::size_t bytes);

class Event {
 public:
  Event();
  ~Event();
  Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  Event& operator=(Event&&) = delete;

  void record(const Stream& stream) const;
  void wait() const;  // by the host; at once where nothing was recorded
  // Both recorded and passed.
  float milliseconds_since(const Event& earlier) const;

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace strata::kernels::cuda
