// The backends that kernel and model tests run against, each made by its factory.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/stages.h"

namespace strata::test {

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
};

void PrintTo(const TestBackend& backend, std::ostream* out);

// ref, the CPU backend for every instruction set of this processor, and cuda where it can run.
std::vector<TestBackend> test_backends();
// These, and the CPU backend with int8 dense weights and with int8 activations, whose tolerances
// are wide: only tests of single stages can hold them.
std::vector<TestBackend> stage_backends();
// Whether a usable card is here. In a program built with CUDA one line says why not, once.
bool has_cuda_backend();
// For INSTANTIATE_TEST_SUITE_P: the name with only letters and digits.
std::string backend_test_name(const TestBackend& backend);

}  // namespace strata::test
