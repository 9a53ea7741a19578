#include "tests/support/test_backends.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <cmath>

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

TestBackend cuda_backend() {
  TestBackend backend;
  backend.name = "cuda";
  backend.dot_error = backend.dense_error = backend.expert_error = float_dot_error;
  backend.make = [](kernels::BackendContext context) -> std::shared_ptr<kernels::Backend> {
    return kernels::make_cuda_backend(std::move(context));
  };
  return backend;
}

}  // namespace

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
  if (has_cuda_backend()) list.push_back(cuda_backend());
  return list;
}

// int8 loses half a step of 1/127 of a group's largest value.
std::vector<TestBackend> stage_backends() {
  constexpr auto kInt8 = kernels::WeightFormat::kI8g32;
  const kernels::CpuIsa best = kernels::detect_isa();
  std::vector<TestBackend> list = test_backends();
  list.push_back(cpu_backend(best, 2, kInt8));
  list.back().name += " int8 dense";
  list.back().dense_error = [](int) { return 0.01; };
  list.push_back(cpu_backend(best, 2, kInt8, true));
  list.back().name += " int8 both";
  list.back().dense_error = [](int) { return 0.02; };
  list.back().expert_error = [](int) { return 0.02; };
  return list;
}

std::string backend_test_name(const TestBackend& backend) {
  std::string name = backend.name;
  std::erase_if(name, [](unsigned char c) { return std::isalnum(c) == 0; });
  return name;
}

}  // namespace strata::test
