// What this machine's threads can read and multiply, measured: the roofs that stages are held
// against. Call on an idle machine, from the pool's caller.
#pragma once

#include <cstddef>
#include <span>

#include "base/thread_pool.h"
#include "kernels/cpu/isa.h"

namespace strata::kernels {

// Bytes a second that all threads read together from `memory`, which should be larger than the
// caches and written before. The best of several passes.
double measure_read(ThreadPool& pool, std::span<const std::byte> memory);

// Multiply-adds a second on registers alone.
struct CpuPeaks {
  double floats = 0.0;    // float32
  double integers = 0.0;  // a weight with a quantised activation, all of its planes
};
CpuPeaks measure_peaks(ThreadPool& pool, CpuIsa isa, bool int8_activations);

}  // namespace strata::kernels
