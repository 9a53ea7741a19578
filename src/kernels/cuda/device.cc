#include "kernels/cuda/device.h"

#include <fmt/core.h>

#include <atomic>
#include <cstdlib>
#include <string>

#include "base/check.h"
#include "base/fault.h"
#include "base/result.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_layout.h"

namespace strata::kernels::cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) [[likely]]
    return;
  throw DeviceError(fmt::format("the card failed in {}: {}", what, cudaGetErrorString(status)));
}

namespace {
std::atomic<bool> early{true};
}  // namespace

bool early_launches() { return early; }
void set_early_launches(bool allowed) { early = allowed; }

namespace {

// Runs an allocation; `allocate` returns a cudaError_t.
template <class Allocate>
void allocated(const char* line, std::size_t bytes, const char* where, Allocate&& allocate) {
  const std::string point = std::string("alloc.") + line;
  const bool refused = fault::at(point.c_str()) != fault::Action::kNone;
  const cudaError_t status = refused ? cudaErrorMemoryAllocation : allocate();
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it would be reported by the next call again
    throw MemoryError(fmt::format("cannot allocate {} bytes of {} for {}", bytes, where, line));
  }
  check(status, "an allocation");
}

}  // namespace

DeviceArena::DeviceArena(const char* line, std::size_t bytes) : line_(line), bytes_(bytes) {
  if (bytes == 0) return;
  void* data = nullptr;
  allocated(line, bytes, "card memory", [&] { return cudaMalloc(&data, bytes); });
  data_ = static_cast<std::byte*>(data);
}

DeviceArena::~DeviceArena() {
  if (data_ != nullptr) cudaFree(data_);
}

std::byte* DeviceArena::take(std::size_t bytes) {
  STRATA_CHECK(used_ + bytes <= bytes_, "{}: {} bytes over {}", line_, used_ + bytes - bytes_,
               bytes_);
  std::byte* block = data_ + used_;
  used_ += aligned(bytes);
  return block;
}

PinnedBuffer::PinnedBuffer(const char* line, std::size_t bytes) {
  if (bytes == 0) return;
  void* data = nullptr;
  allocated(line, bytes, "page-locked memory",
            [&] { return cudaHostAlloc(&data, bytes, cudaHostAllocDefault); });
  data_ = static_cast<std::byte*>(data);
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

Stream::Stream() {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
}

Stream::~Stream() { cudaStreamDestroy(stream_); }

void Stream::synchronize() const { check(cudaStreamSynchronize(stream_), "a step"); }

void copy_and_wait(const Stream& stream, void* to, const void* from, std::size_t bytes) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream.get()), "a copy");
  stream.synchronize();
}

Event::Event() { check(cudaEventCreate(&event_), "making an event"); }

Event::~Event() {
  if (event_ != nullptr) cudaEventDestroy(event_);
}

void Event::record(const Stream& stream) const {
  check(cudaEventRecord(event_, stream.get()), "recording an event");
}

void Event::wait() const { check(cudaEventSynchronize(event_), "waiting for an event"); }

float Event::milliseconds_since(const Event& earlier) const {
  float elapsed = 0.0F;
  check(cudaEventElapsedTime(&elapsed, earlier.event_, event_), "timing");
  return elapsed;
}

}  // namespace strata::kernels::cuda

namespace strata::kernels {
namespace {

constexpr int kOldestCapability = 75;  // compute capability 7.5

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

// Fills in `problem` and `hint` where no card can be counted.
void explain(cudaError_t status, CudaDevice& device) {
  int driver = 0;
  int runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) {
    device.problem = "no NVIDIA driver was found";
    device.hint = "install the NVIDIA driver, or in a container pass the card in (--gpus all)";
  } else if (driver < runtime) {
    device.problem = fmt::format("the NVIDIA driver knows CUDA {}, this program needs {}",
                                 version_text(driver), version_text(runtime));
    device.hint = "install a newer NVIDIA driver (580 or later for CUDA 13)";
  } else if (status == cudaErrorNoDevice) {
    device.problem = "no NVIDIA card was found";
    device.hint = "nvidia-smi -L lists the cards the driver sees";
  } else {
    device.problem = fmt::format("the NVIDIA driver reports: {}", cudaGetErrorString(status));
  }
}

}  // namespace

CudaDevice find_cuda_device() {
  // Kernels are loaded with the context, not each at its first launch: the first request is as fast
  // as the others.
  setenv("CUDA_MODULE_LOADING", "EAGER", 0);
  CudaDevice device;
  device.built_in = true;
  int count = 0;
  cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count == 0) status = cudaErrorNoDevice;
  cudaDeviceProp properties{};
  if (status == cudaSuccess) status = cudaGetDeviceProperties(&properties, 0);
  if (status != cudaSuccess) {
    cudaGetLastError();
    explain(status, device);
    return device;
  }
  device.name = properties.name;
  device.major = properties.major;
  device.minor = properties.minor;
  device.usable = 10 * device.major + device.minor >= kOldestCapability;
  if (!device.usable) {
    device.problem = fmt::format("the card {} has compute capability {}.{}, 7.5 is needed",
                                 device.name, device.major, device.minor);
    device.hint = "cards from the RTX 20 series and the GTX 16 series on will do";
  }
  return device;
}

CudaMemory cuda_memory() {
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  cuda::check(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for its free memory");
  return {static_cast<std::int64_t>(total_bytes), static_cast<std::int64_t>(free_bytes)};
}

}  // namespace strata::kernels
