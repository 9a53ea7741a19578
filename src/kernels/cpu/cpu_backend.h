// The CPU backend: every stage on a pool of threads, for the instruction set chosen at run time.
// Bitwise the same results for any batch, prefill chunking and thread count.
#pragma once

#include <memory>

#include "base/thread_pool.h"
#include "kernels/cpu/isa.h"
#include "kernels/stages.h"

namespace strata::kernels {

// `pool` outlives the backend; used only between begin_step and end_step, and by adopt.
std::unique_ptr<Backend> make_cpu_backend(BackendContext context, CpuIsa isa, ThreadPool& pool);

}  // namespace strata::kernels
