// Speed of the CPU backend's inner loops at gpt-oss-20b shapes: GB/s of weights and GFLOP/s, with
// their shares of what this machine's threads can read and multiply in float32 at the same time.
//
//   bench_cpu_products [THREADS] [scalar|avx2|avxvnni|avx512|avx512vnni]
//
// Weights are 450 MB a format, more than the caches hold; every figure is the best of several
// passes.
#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/thread_pool.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/primitives.h"
#include "kernels/cpu/probe.h"
#include "kernels/cpu/work_share.h"

namespace strata::kernels::cpu {
namespace {

constexpr int kK = 2880;
constexpr std::size_t kWeightBytes = std::size_t{450} << 20;
constexpr int kMaxX = 256;
constexpr int kPasses = 5;

Nanos thread_time() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return Nanos{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// Shares `units` among the workers; returns the processor time each of them spent on average, the
// best of several passes.
template <typename Fn>
double best_seconds(ThreadPool& pool, int units, const Fn& fn) {
  Nanos best = std::numeric_limits<Nanos>::max();
  for (int pass = 0; pass < kPasses; ++pass) {
    std::atomic<Nanos> spent{0};
    share_work(pool, units, 1, [&](int worker, int begin, int end) {
      const Nanos before = thread_time();
      fn(worker, begin, end);
      spent += thread_time() - before;
    });
    best = std::min(best, spent.load());
  }
  return to_seconds(best) / pool.num_threads();
}

struct Roofs {
  double read;
  double multiply;
};

struct Format {
  const char* name;
  enum { kBf16, kI8, kMxfp4 } weights;
  Planes planes;
  double bytes;  // of a weight, scale included
};
constexpr Format kFormats[] = {{"bf16", Format::kBf16, Planes::kTwo, 2.0},
                               {"int8", Format::kI8, Planes::kTwo, 1.0625},
                               {"int8 x int8", Format::kI8, Planes::kOne, 1.0625},
                               {"mxfp4", Format::kMxfp4, Planes::kTwo, 0.53125},
                               {"mxfp4 x int8", Format::kMxfp4, Planes::kOne, 0.53125}};

class Bench {
 public:
  Bench(ThreadPool& pool, CpuIsa isa)
      : pool_(pool), primitives_(primitives_of(isa)), weights_("bench", kWeightBytes) {
    auto words = weights_.as<std::uint64_t>();
    // Any bits are MXFP4 and int8; as bfloat16 these are of magnitude 2^-7 to 2.
    for (std::size_t i = 0; i < words.size(); ++i)
      words[i] = (random_at(1, i) & 0x83ff83ff83ff83ffU) | 0x3c003c003c003c00U;
    scales_ = HostBuffer("bench", kWeightBytes / 16);
    std::memset(scales_.data(), 60, scales_.size());
    x_ = HostBuffer("bench", std::size_t{kMaxX} * kK * sizeof(float));
    for (std::size_t i = 0; i < x_.as<float>().size(); ++i)
      x_.as<float>()[i] = static_cast<float>(uniform_double(random_at(2, i))) - 0.5F;
    quads_ = HostBuffer("bench", std::size_t{kMaxX} * quads_of(kK) * sizeof(ActivationQuad));
    for (int i = 0; i < kMaxX; ++i) {
      rows_.push_back(x_.as<float>().data() + std::ptrdiff_t{i} * kK);
      quad_rows_.push_back(quads_.as<ActivationQuad>().data() + std::ptrdiff_t{i} * quads_of(kK));
    }
    const std::size_t scratch = kProductScratch + std::size_t{kMaxX} * kGroupRows * sizeof(float);
    for (int i = 0; i < pool.num_threads(); ++i) scratch_.emplace_back("bench", scratch);
  }

  std::span<const std::byte> weights() const { return {weights_.data(), weights_.size()}; }

  void run(const Format& format, int num_x, const Roofs& roofs) {
    for (int i = 0; i < num_x; ++i)
      primitives_.quantise({rows_[static_cast<std::size_t>(i)], kK, 0,
                            quads_.as<ActivationQuad>().data() + std::ptrdiff_t{i} * quads_of(kK),
                            format.planes});
    // Few rows stream all weights; many are compute-bound and take a part of them.
    const auto all_rows = static_cast<int>(static_cast<double>(kWeightBytes) / kK / format.bytes);
    const int rows = (num_x > 16 ? all_rows / num_x * 4 : all_rows) / kGroupRows * kGroupRows;
    const int unit = num_x <= 8 ? 32 : kGroupRows;
    const double seconds = best_seconds(pool_, rows / unit, [&](int worker, int begin, int end) {
      HostBuffer& memory = scratch_[static_cast<std::size_t>(worker)];
      for (int i = begin; i < end; ++i) multiply(format, i * unit, unit, num_x, memory);
    });
    const double bytes = static_cast<double>(rows) * kK * format.bytes / seconds;
    const double flops = 2.0 * rows * kK * num_x / seconds;
    fmt::print("{:12}  {:3} rows  {:6.2f} GB/s {:4.0f} %  {:7.1f} GF/s {:4.0f} %\n", format.name,
               num_x, bytes * 1e-9, 100 * bytes / roofs.read, flops * 1e-9,
               roofs.multiply > 0 ? 100 * flops / roofs.multiply : 0.0);
  }

 private:
  void multiply(const Format& format, int first, int count, int num_x, HostBuffer& memory) const {
    auto* y = reinterpret_cast<float*>(memory.data() + kProductScratch);
    const auto weights = static_cast<std::size_t>(first) * kK;
    if (format.weights == Format::kBf16) {
      primitives_.product_bf16({.weights = weights_.data() + weights * 2,
                                .k = kK,
                                .count = count,
                                .x = rows_.data(),
                                .num_x = num_x,
                                .y = y,
                                .y_stride = count,
                                .scratch = memory.data()});
      return;
    }
    const bool mxfp4 = format.weights == Format::kMxfp4;
    const IntegerProduct product{
        .weights = weights_.data() + (mxfp4 ? weights / 2 : weights),
        .scales = scales_.data() + (mxfp4 ? weights / kBlock : weights / kBlock * 2),
        .k = kK,
        .count = count,
        .x = quad_rows_.data(),
        .num_x = num_x,
        .planes = format.planes,
        .y = y,
        .y_stride = count,
        .scratch = memory.data()};
    if (mxfp4) primitives_.product_mxfp4(product);
    else primitives_.product_i8(product);
  }

  ThreadPool& pool_;
  const Primitives& primitives_;
  HostBuffer weights_;
  HostBuffer scales_;
  HostBuffer x_;
  HostBuffer quads_;
  std::vector<const float*> rows_;
  std::vector<const ActivationQuad*> quad_rows_;
  std::vector<HostBuffer> scratch_;
};

// Floats: multiply-adds count as two operations.
Roofs measure_roofs(ThreadPool& pool, CpuIsa isa, std::span<const std::byte> weights) {
  const CpuPeaks peaks = measure_peaks(pool, isa, false);
  const Roofs roofs{measure_read(pool, weights), 2 * peaks.floats};
  fmt::print(
      "{} threads, {}: read roof {:.2f} GB/s; multiply-adds at most: float32 {:.1f} GF/s, of "
      "weights "
      "with 16-bit activations {:.1f} GF/s, with int8 ones {:.1f} GF/s\n",
      pool.num_threads(), isa_name(isa), roofs.read * 1e-9, roofs.multiply * 1e-9,
      2e-9 * peaks.integers, 2e-9 * measure_peaks(pool, isa, true).integers);
  return roofs;
}

}  // namespace
}  // namespace strata::kernels::cpu

int main(int argc, char** argv) {
  using namespace strata::kernels;
  strata::ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 2);
  const CpuIsa isa = argc > 2 ? parse_isa(argv[2]) : detect_isa();
  cpu::Bench bench(pool, isa);
  const cpu::Roofs roofs = cpu::measure_roofs(pool, isa, bench.weights());
  for (const cpu::Format& format : cpu::kFormats)
    for (const int num_x : {1, 2, 3, 4, 8, 16, 32, 64, 256}) bench.run(format, num_x, roofs);
}
