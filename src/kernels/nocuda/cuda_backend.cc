// Takes the place of kernels/cuda in a program built without CUDA.
#include "kernels/cuda/cuda_backend.h"

#include "base/result.h"

namespace strata::kernels {

CudaDevice find_cuda_device() {
  CudaDevice none;
  none.problem = "this program was built without CUDA";
  none.hint = "build it where nvcc is installed: ./run --cuda";
  return none;
}

CudaMemory cuda_memory() {
  const CudaDevice none = find_cuda_device();
  throw StartupError(none.problem, none.hint);
}

int cuda_code_capability() {
  const CudaDevice none = find_cuda_device();
  throw StartupError(none.problem, none.hint);
}

bool cuda_tensor_cores(ExpertFormat /*experts*/) {
  const CudaDevice none = find_cuda_device();
  throw StartupError(none.problem, none.hint);
}

double cuda_read_bandwidth(std::size_t /*bytes*/) {
  const CudaDevice none = find_cuda_device();
  throw StartupError(none.problem, none.hint);
}

// The other build keeps what it is given.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
std::unique_ptr<Backend> make_cuda_backend(BackendContext /*context*/) {
  const CudaDevice none = find_cuda_device();
  throw StartupError(none.problem, none.hint);
}

}  // namespace strata::kernels
