// Instruction sets of the CPU backend, chosen at run time.
#pragma once

#include <string_view>
#include <vector>

namespace strata::kernels {

// By speed. The later ones do not all include the earlier ones.
enum class CpuIsa { kScalar, kAvx2, kAvxVnni, kAvx512, kAvx512Vnni };

std::string_view isa_name(CpuIsa isa);  // "scalar", "avx2", "avxvnni", "avx512", "avx512vnni"
// What this processor and operating system support; the best stands last.
std::vector<CpuIsa> supported_isas();
CpuIsa detect_isa();  // the best
// Parses --cpu-isa; throws StartupError for unknown names and sets this processor lacks.
CpuIsa parse_isa(std::string_view name);

}  // namespace strata::kernels
