// The CUDA backend: every stage on one NVIDIA card of compute capability 7.5 or newer.
// A program built without CUDA has these functions too; they say so (kernels/nocuda).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/stages.h"

namespace strata::kernels {

// The first card of this machine.
struct CudaDevice {
  bool built_in = false;  // false: this program was built without CUDA
  bool usable = false;
  std::string problem;  // why not, as a sentence without its full stop
  std::string hint;     // what the operator can do about it
  std::string name;     // "NVIDIA H100 80GB HBM3"
  int major = 0;        // compute capability
  int minor = 0;
};
CudaDevice find_cuda_device();  // any thread; takes no memory of the card

// Of a usable card, now. The first call makes the CUDA context, which takes card memory itself.
struct CudaMemory {
  std::int64_t total_bytes = 0;
  std::int64_t free_bytes = 0;
};
CudaMemory cuda_memory();

// Compute capability of the code that this program runs on a usable card, 75 to 120: a build may
// have none of the card's own. From 80 on tensor cores take bfloat16, before fp16; from 90 on
// launches may begin early. Makes the CUDA context.
int cuda_code_capability();
// Whether that code can multiply on tensor cores where experts have this format.
bool cuda_tensor_cores(ExpertFormat experts);

// Bytes a second that the card reads from its memory: the best of several passes over `bytes`, a
// multiple of 256. For `strata bench`, before the model is loaded.
double cuda_read_bandwidth(std::size_t bytes);

// Results depend on neither batch nor chunking, bitwise. Throws StartupError with the device's
// `problem` where there is no usable card, MemoryError where the weights do not fit.
std::unique_ptr<Backend> make_cuda_backend(BackendContext context);

}  // namespace strata::kernels
