// Speed of the CPU backend's inner loops at gpt-oss-20b shapes: GB/s of weights and GFLOP/s, with
// their shares of what this machine's threads can read and multiply at the same time.
//
//   bench_cpu_products [THREADS] [scalar|avx2|avx512]
//
// Weights are 450 MB a format, more than the caches hold; every figure is the best of several
// passes.
#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/thread_pool.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/primitives.h"
#include "kernels/cpu/work_share.h"

namespace strata::kernels::cpu {
namespace {

constexpr int kK = 2880;
constexpr std::size_t kWeightBytes = std::size_t{450} << 20;
constexpr int kMaxX = 256;
constexpr int kPasses = 5;

const Primitives& primitives_of(CpuIsa isa) {
  if (isa == CpuIsa::kAvx512) return avx512_primitives();
  return isa == CpuIsa::kAvx2 ? avx2_primitives() : scalar_primitives();
}

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

// Asks for lines well before they are added up: the loop then waits for nothing but memory.
std::uint64_t sum_words(const std::uint64_t* words, std::size_t count) {
  constexpr std::size_t kAhead = 512;
  std::uint64_t sums[8] = {};
  for (std::size_t i = 0; i + 8 <= count; i += 8) {
    __builtin_prefetch(words + i + kAhead, 0, 2);
    for (std::size_t lane = 0; lane < 8; ++lane) sums[lane] += words[i + lane];
  }
  return sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
}

// Bytes a second that all workers read together.
double read_roof(ThreadPool& pool, const HostBuffer& buffer) {
  constexpr int kPieceWords = 1 << 17;
  const auto words = buffer.as<std::uint64_t>();
  const int pieces = static_cast<int>(words.size() / kPieceWords);
  std::atomic<std::uint64_t> sink{0};
  const double seconds = best_seconds(pool, pieces, [&](int, int begin, int end) {
    sink += sum_words(words.data() + std::ptrdiff_t{begin} * kPieceWords,
                      static_cast<std::size_t>(end - begin) * kPieceWords);
  });
  return static_cast<double>(pieces) * kPieceWords * 8 / seconds;
}

struct Avx2Lanes {
  typedef float Vector __attribute__((vector_size(32)));
};
struct Avx512Lanes {
  typedef float Vector __attribute__((vector_size(64)));
};

// Multiply-adds on registers alone.
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f")
#pragma GCC optimize("fp-contract=fast")
template <class Lanes>
__attribute__((noinline)) float multiply_adds(int rounds) {
  using Vector = typename Lanes::Vector;
  Vector sums[12] = {};
  Vector factor = {}, term = {};
  factor += 0.999F;
  term += 0.001F;
  float start = 0.0F;
  for (auto& sum : sums) sum += start++;  // equal sums would be computed once
  for (int i = 0; i < rounds; ++i)
#pragma GCC unroll 12
    for (auto& sum : sums) sum = sum * factor + term;
  float total = 0.0F;
  for (const auto& sum : sums) total += sum[0];
  return total;
}
#pragma GCC pop_options

// Flops a second of all workers.
double multiply_roof(ThreadPool& pool, CpuIsa isa) {
  if (isa == CpuIsa::kScalar) return 0.0;
  constexpr int kRounds = 50'000, kUnits = 40;
  const bool wide = isa == CpuIsa::kAvx512;
  std::atomic<int> sink{0};
  const double seconds = best_seconds(pool, kUnits, [&](int, int begin, int end) {
    for (int i = begin; i < end; ++i)
      sink += static_cast<int>(wide ? multiply_adds<Avx512Lanes>(kRounds)
                                    : multiply_adds<Avx2Lanes>(kRounds));
  });
  return 2.0 * 12 * (wide ? 16 : 8) * kRounds * kUnits / seconds;
}

struct Roofs {
  double read;
  double multiply;
};

class Bench {
 public:
  Bench(ThreadPool& pool, CpuIsa isa)
      : pool_(pool), primitives_(primitives_of(isa)), weights_("bench", kWeightBytes) {
    auto words = weights_.as<std::uint64_t>();
    // Any bits are MXFP4; as bfloat16 these are of magnitude 2^-7 to 2.
    for (std::size_t i = 0; i < words.size(); ++i)
      words[i] = (random_at(1, i) & 0x83ff83ff83ff83ffU) | 0x3c003c003c003c00U;
    scales_.assign(kWeightBytes / 16, 120);
    x_ = HostBuffer("bench", std::size_t{kMaxX} * kK * sizeof(float));
    for (std::size_t i = 0; i < x_.as<float>().size(); ++i)
      x_.as<float>()[i] = static_cast<float>(uniform_double(random_at(2, i))) - 0.5F;
    for (int i = 0; i < kMaxX; ++i) rows_.push_back(x_.as<float>().data() + std::ptrdiff_t{i} * kK);
    const std::size_t scratch = kProductScratch + std::size_t{kMaxX} * kGroupRows * sizeof(float);
    for (int i = 0; i < pool.num_threads(); ++i) scratch_.emplace_back("bench", scratch);
  }

  void run(bool mxfp4, int num_x, const Roofs& roofs) {
    const std::size_t row_bytes = mxfp4 ? kK / 2 : kK * 2;
    // Few rows stream all weights; many are compute-bound and take a part of them.
    const auto all_rows = static_cast<int>(kWeightBytes / row_bytes);
    const int rows = (num_x > 16 ? all_rows / num_x * 4 : all_rows) / kGroupRows * kGroupRows;
    const int unit = num_x <= 8 ? 24 : kGroupRows;
    const double seconds = best_seconds(pool_, rows / unit, [&](int worker, int begin, int end) {
      HostBuffer& memory = scratch_[static_cast<std::size_t>(worker)];
      for (int i = begin; i < end; ++i) multiply(mxfp4, i * unit, unit, num_x, memory);
    });
    const double scales = mxfp4 ? kK / 32.0 : 0.0;
    const double bytes = rows * (static_cast<double>(row_bytes) + scales) / seconds;
    const double flops = 2.0 * rows * kK * num_x / seconds;
    fmt::print("{:5}  {:3} rows  {:6.2f} GB/s {:4.0f} %  {:7.1f} GF/s {:4.0f} %\n",
               mxfp4 ? "mxfp4" : "bf16", num_x, bytes * 1e-9, 100 * bytes / roofs.read,
               flops * 1e-9, roofs.multiply > 0 ? 100 * flops / roofs.multiply : 0.0);
  }

 private:
  void multiply(bool mxfp4, int first, int count, int num_x, HostBuffer& memory) const {
    const auto row = static_cast<std::size_t>(first);
    const Product product{.weights = weights_.data() + row * (mxfp4 ? kK / 2 : kK * 2),
                          .scales = scales_.data() + row * (kK / kBlock),
                          .k = kK,
                          .count = count,
                          .x = rows_.data(),
                          .num_x = num_x,
                          .y = reinterpret_cast<float*>(memory.data() + kProductScratch),
                          .y_stride = count,
                          .scratch = memory.data()};
    if (mxfp4) primitives_.product_mxfp4(product);
    else primitives_.product_bf16(product);
  }

  ThreadPool& pool_;
  const Primitives& primitives_;
  HostBuffer weights_;
  std::vector<std::uint8_t> scales_;
  HostBuffer x_;
  std::vector<const float*> rows_;
  std::vector<HostBuffer> scratch_;

  friend Roofs measure_roofs(ThreadPool& pool, CpuIsa isa, const Bench& bench);
};

Roofs measure_roofs(ThreadPool& pool, CpuIsa isa, const Bench& bench) {
  const Roofs roofs{read_roof(pool, bench.weights_), multiply_roof(pool, isa)};
  fmt::print("{} threads, {}: read roof {:.2f} GB/s, multiply-add roof {:.1f} GF/s\n",
             pool.num_threads(), isa_name(isa), roofs.read * 1e-9, roofs.multiply * 1e-9);
  return roofs;
}

}  // namespace
}  // namespace strata::kernels::cpu

int main(int argc, char** argv) {
  using namespace strata::kernels;
  strata::ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 2);
  const CpuIsa isa = argc > 2 ? parse_isa(argv[2]) : detect_isa();
  cpu::Bench bench(pool, isa);
  const cpu::Roofs roofs = cpu::measure_roofs(pool, isa, bench);
  for (const bool mxfp4 : {false, true})
    for (const int num_x : {1, 2, 4, 8, 12, 16, 32, 64, 128, 256}) bench.run(mxfp4, num_x, roofs);
}
