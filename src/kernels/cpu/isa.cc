#include "kernels/cpu/isa.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <iterator>

#include "base/result.h"
#include "kernels/cpu/primitives.h"

namespace strata::kernels {
namespace {

constexpr std::array kAll = {CpuIsa::kScalar, CpuIsa::kAvx2, CpuIsa::kAvxVnni, CpuIsa::kAvx512,
                             CpuIsa::kAvx512Vnni};

// __builtin_cpu_supports asks CPUID for the instructions and XGETBV for whether the operating
// system saves the registers.
bool supports(CpuIsa isa) {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  switch (isa) {
    case CpuIsa::kScalar: return true;
    case CpuIsa::kAvx2: return avx2;
    case CpuIsa::kAvxVnni: return avx2 && __builtin_cpu_supports("avxvnni");
    case CpuIsa::kAvx512: return avx512;
    case CpuIsa::kAvx512Vnni: return avx512 && __builtin_cpu_supports("avx512vnni");
  }
  return false;
}

}  // namespace

std::string_view isa_name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kScalar: return "scalar";
    case CpuIsa::kAvx2: return "avx2";
    case CpuIsa::kAvxVnni: return "avxvnni";
    case CpuIsa::kAvx512: return "avx512";
    case CpuIsa::kAvx512Vnni: return "avx512vnni";
  }
  return "?";
}

std::vector<CpuIsa> supported_isas() {
  std::vector<CpuIsa> isas;
  std::copy_if(kAll.begin(), kAll.end(), std::back_inserter(isas), supports);
  return isas;
}

CpuIsa detect_isa() { return supported_isas().back(); }

CpuIsa parse_isa(std::string_view name) {
  for (const CpuIsa isa : kAll) {
    if (isa_name(isa) != name) continue;
    if (!supports(isa))
      throw StartupError(
          fmt::format("this processor has no {}", name),
          fmt::format("the best it supports is --cpu-isa {}", isa_name(detect_isa())));
    return isa;
  }
  throw StartupError(fmt::format("unknown instruction set \"{}\"", name),
                     "--cpu-isa takes scalar, avx2, avxvnni, avx512 or avx512vnni");
}

namespace cpu {

const Primitives& primitives_of(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kScalar: break;
    case CpuIsa::kAvx2: return avx2_primitives();
    case CpuIsa::kAvxVnni: return avxvnni_primitives();
    case CpuIsa::kAvx512: return avx512_primitives();
    case CpuIsa::kAvx512Vnni: return avx512vnni_primitives();
  }
  return scalar_primitives();
}

}  // namespace cpu
}  // namespace strata::kernels
