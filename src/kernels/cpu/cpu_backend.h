// The CPU backend: every stage on a pool of threads, for the instruction set chosen at run time.
// Bitwise the same results for any batch, prefill chunking and thread count.
#pragma once

#include <memory>
#include <string_view>

#include "base/thread_pool.h"
#include "kernels/stages.h"

namespace strata::kernels {

enum class CpuIsa { kScalar, kAvx2, kAvx512 };

std::string_view isa_name(CpuIsa isa);  // "scalar", "avx2", "avx512"
// The best set this processor and operating system support.
CpuIsa detect_isa();
// Parses --cpu-isa; throws StartupError for unknown names and sets this processor lacks.
CpuIsa parse_isa(std::string_view name);

// `pool` outlives the backend; used only between begin_step and end_step, and by adopt.
std::unique_ptr<Backend> make_cpu_backend(BackendContext context, CpuIsa isa, ThreadPool& pool);

}  // namespace strata::kernels
