#include "tests/support/test_backends.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "base/check.h"
#include "base/thread_pool.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/primitives.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/ref/ref_backend.h"

namespace strata::test {

void PrintTo(const TestBackend& backend, std::ostream* out) { *out << backend.name; }

namespace {

// Float32 sums of k products in some fixed blocked order.
double float_dot_error(int k) { return (4.0 + std::sqrt(static_cast<double>(k))) * 0x1.0p-23; }

// Activations lose half a step of 2^-15 of their block's largest, which is a few times their mean.
double quantised_dot_error(int k) { return float_dot_error(k) + 4.0 * 0x1.0p-16; }

TestBackend cpu_backend(kernels::CpuIsa isa, int threads,
                        kernels::WeightFormat dense = kernels::WeightFormat::kBf16,
                        bool int8_activations = false) {
  TestBackend backend;
  backend.name = fmt::format("cpu {} x{}", kernels::isa_name(isa), threads);
  backend.dot_error = backend.dense_error = float_dot_error;
  backend.expert_error = quantised_dot_error;
  backend.attn_index = [](int i) { return kernels::cpu::paired_index(i); };
  backend.make = [isa, threads, dense, int8_activations](kernels::BackendContext context) {
    context.dense = dense;
    context.int8_activations = int8_activations;
    auto pool = std::make_shared<ThreadPool>(threads);
    auto made = kernels::make_cpu_backend(std::move(context), isa, *pool);
    return std::shared_ptr<kernels::Backend>(made.release(),
                                             [pool](kernels::Backend* dead) { delete dead; });
  };
  return backend;
}

// Tensor cores take inputs rounded to bfloat16, off by 2^-9 of themselves, and may cut off what the
// other terms of a sum shift out.
double bf16_dot_error(int k) { return 0x1.2p-9 + float_dot_error(k); }

// What this program can run here: the compute capability of its code, 0 without a usable card.
int code_capability() {
  static const int capability = has_cuda_backend() ? kernels::cuda_code_capability() : 0;
  return capability;
}

std::vector<CudaPath> paths_here(bool tensor_cores) {
  std::vector<CudaPath> list;
  for (const CudaPath& path : cuda_paths())
    if (path.tensor_cores == tensor_cores && path.missing().empty()) list.push_back(path);
  return list;
}

}  // namespace

const std::vector<CudaPath>& cuda_paths() {
  static const std::vector<CudaPath> list = {
      {.name = "deterministic", .early_launches = true},
      {.name = "generic75", .tensor_cores = true, .below = 80},
      {.name = "generic80", .tensor_cores = true, .code = 80},
      {.name = "sm90", .tensor_cores = true, .early_launches = true, .code = 90}};
  return list;
}

const CudaPath& cuda_path(const std::string& name) {
  const auto found = std::find_if(cuda_paths().begin(), cuda_paths().end(),
                                  [&name](const CudaPath& path) { return path.name == name; });
  STRATA_CHECK(found != cuda_paths().end(), "no path {}", name);
  return *found;
}

const CudaPath* cuda_tensor_path() {
  const auto found = std::find_if(
      cuda_paths().begin(), cuda_paths().end(),
      [](const CudaPath& path) { return path.tensor_cores && path.missing().empty(); });
  return found == cuda_paths().end() ? nullptr : &*found;
}

std::string CudaPath::missing() const {
  if (!has_cuda_backend()) return "no usable card";
  if (code_capability() >= code && code_capability() < below) return "";
  return fmt::format("the program's code for this card is of compute capability {}.{}",
                     code_capability() / 10, code_capability() % 10);
}

TestBackend cuda_backend(const CudaPath& path, kernels::WeightFormat dense) {
  TestBackend backend;
  backend.name = "cuda " + path.name;
  backend.dot_error = float_dot_error;
  backend.dense_error = backend.expert_error = path.tensor_cores ? bf16_dot_error : float_dot_error;
  if (dense == kernels::WeightFormat::kI8g32) {
    backend.name += " int8 dense";
    backend.dense_error = [](int) { return 0.01; };
  }
  backend.tensor_cores = path.tensor_cores;
  backend.early_launches = path.early_launches;
  backend.exact = !path.tensor_cores;
  backend.make = [dense](kernels::BackendContext context) -> std::shared_ptr<kernels::Backend> {
    context.dense = dense;
    return kernels::make_cuda_backend(std::move(context));
  };
  return backend;
}

bool has_cuda_backend() {
  static const bool usable = [] {
    const kernels::CudaDevice device = kernels::find_cuda_device();
    if (device.built_in && !device.usable)
      fmt::print(stderr, "no tests of the CUDA backend here: {}\n", device.problem);
    return device.usable;
  }();
  return usable;
}

std::vector<TestBackend> test_backends() {
  std::vector<TestBackend> list;
  TestBackend ref;
  ref.name = "ref";
  ref.make = [](kernels::BackendContext context) -> std::shared_ptr<kernels::Backend> {
    return kernels::make_ref_backend(std::move(context));
  };
  // Double sums: what remains is the rounding of float32 inputs and of the result.
  ref.dot_error = ref.dense_error = ref.expert_error = [](int) { return 0x1.0p-22; };
  list.push_back(ref);
  using kernels::CpuIsa;
  for (const CpuIsa isa : kernels::supported_isas()) list.push_back(cpu_backend(isa, 1));
  list.push_back(cpu_backend(kernels::detect_isa(), 3));
  for (const CudaPath& path : paths_here(false)) list.push_back(cuda_backend(path));
  return list;
}

std::vector<TestBackend> attend_backends() {
  std::vector<TestBackend> list = test_backends();
  for (const CudaPath& path : paths_here(true)) list.push_back(cuda_backend(path));
  return list;
}

// int8 loses half a step of 1/127 of a group's largest value.
std::vector<TestBackend> stage_backends() {
  constexpr auto kInt8 = kernels::WeightFormat::kI8g32;
  const kernels::CpuIsa best = kernels::detect_isa();
  std::vector<TestBackend> list = attend_backends();
  list.push_back(cpu_backend(best, 2, kInt8));
  list.back().name += " int8 dense";
  list.back().dense_error = [](int) { return 0.01; };
  list.push_back(cpu_backend(best, 2, kInt8, true));
  list.back().name += " int8 both";
  list.back().dense_error = [](int) { return 0.02; };
  list.back().expert_error = [](int) { return 0.02; };
  for (const bool tensor_cores : {false, true})
    for (const CudaPath& path : paths_here(tensor_cores)) list.push_back(cuda_backend(path, kInt8));
  return list;
}

std::string backend_test_name(const TestBackend& backend) {
  std::string name = backend.name;
  std::erase_if(name, [](unsigned char c) { return std::isalnum(c) == 0; });
  return name;
}

}  // namespace strata::test
