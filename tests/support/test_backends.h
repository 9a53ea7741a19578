// The backends that kernel and model tests run against, each made by its factory.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/stages.h"

namespace strata::test {

// A way the CUDA backend computes; --cuda-path forces some of them.
struct CudaPath {
  std::string name;
  bool tensor_cores = false;
  bool early_launches = false;
  int code = 75;     // least compute capability of the program's code
  int below = 1000;  // and the least that it must not have
  // Why this program has it not on this card; empty: it has.
  std::string missing() const;
};
const std::vector<CudaPath>& cuda_paths();  // all of them
const CudaPath& cuda_path(const std::string& name);
// The first of those with tensor cores that this program has here; null: none.
const CudaPath* cuda_tensor_path();

struct TestBackend {
  std::string name;
  // Backend and what it computes on live together.
  std::function<std::shared_ptr<kernels::Backend>(kernels::BackendContext)> make;
  // Errors of a sum of k products, as a share of the sum of their magnitudes: in float32, and of
  // dense and expert weights as this backend multiplies them.
  std::function<double(int k)> dot_error;
  std::function<double(int k)> dense_error;
  std::function<double(int k)> expert_error;
  // Where value i of a row lies in Activations::attn, whose layout is the backend's own.
  std::function<int(int i)> attn_index = [](int i) { return i; };
  // cuda; they win over a test's BackendOptions.
  bool tensor_cores = false;
  bool early_launches = true;
  // Whether a row's result depends on nothing but its sequence, bit by bit.
  bool exact = true;
};

void PrintTo(const TestBackend& backend, std::ostream* out);

TestBackend cuda_backend(const CudaPath& path,
                         kernels::WeightFormat dense = kernels::WeightFormat::kBf16);

// ref, the CPU backend for every instruction set of this processor, and cuda's float32 paths where
// it can run: results are exact in the sense above.
std::vector<TestBackend> test_backends();
// These, and the paths of tensor cores.
std::vector<TestBackend> attend_backends();
// These, and the CPU backend and cuda with int8 dense weights, the CPU's with int8 activations,
// whose tolerances are wide: only tests of single stages can hold them.
std::vector<TestBackend> stage_backends();
// Whether a usable card is here. In a program built with CUDA one line says why not, once.
bool has_cuda_backend();
// For INSTANTIATE_TEST_SUITE_P: the name with only letters and digits.
std::string backend_test_name(const TestBackend& backend);

}  // namespace strata::test
