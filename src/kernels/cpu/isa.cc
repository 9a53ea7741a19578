#include <fmt/core.h>

#include "base/result.h"
#include "kernels/cpu/cpu_backend.h"

namespace strata::kernels {

std::string_view isa_name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kScalar: return "scalar";
    case CpuIsa::kAvx2: return "avx2";
    case CpuIsa::kAvx512: return "avx512";
  }
  return "?";
}

// __builtin_cpu_supports asks CPUID for the instructions and XGETBV for whether the operating
// system saves the registers.
CpuIsa detect_isa() {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) return CpuIsa::kAvx512;
  return avx2 ? CpuIsa::kAvx2 : CpuIsa::kScalar;
}

CpuIsa parse_isa(std::string_view name) {
  for (const CpuIsa isa : {CpuIsa::kScalar, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    if (isa_name(isa) != name) continue;
    if (isa > detect_isa())
      throw StartupError(
          fmt::format("this processor has no {}", name),
          fmt::format("the best it supports is --cpu-isa {}", isa_name(detect_isa())));
    return isa;
  }
  throw StartupError(fmt::format("unknown instruction set \"{}\"", name),
                     "--cpu-isa takes scalar, avx2 or avx512");
}

}  // namespace strata::kernels
