#include "kernels/cpu/probe.h"

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "base/clock.h"
#include "kernels/cpu/primitives.h"

namespace strata::kernels {
namespace {

constexpr int kPasses = 5;

// Eight independent sums, so that loads and not additions are waited for; the prefetch distance is
// the kernels' own, without it one core leaves half of its bandwidth unused.
std::uint64_t sum_words(const std::uint64_t* words, std::size_t count) {
  std::uint64_t sums[8] = {};
  constexpr std::size_t kAhead = 4096 / sizeof(std::uint64_t);
  for (std::size_t i = 0; i + 8 <= count; i += 8) {
    __builtin_prefetch(words + i + kAhead);
    for (std::size_t lane = 0; lane < 8; ++lane) sums[lane] += words[i + lane];
  }
  std::uint64_t total = 0;
  for (const std::uint64_t sum : sums) total += sum;
  return total;
}

// The shortest of several runs of `fn` on every worker.
template <typename Fn>
double best_seconds(ThreadPool& pool, const Fn& fn) {
  const Clock clock;
  double best = 1e30;
  for (int pass = 0; pass < kPasses; ++pass) {
    const Nanos begin = clock.now();
    pool.run(fn);
    best = std::min(best, to_seconds(clock.now() - begin));
  }
  return best;
}

}  // namespace

double measure_read(ThreadPool& pool, std::span<const std::byte> memory) {
  const auto* words = reinterpret_cast<const std::uint64_t*>(memory.data());
  const std::size_t count = memory.size() / sizeof(std::uint64_t);
  const auto workers = static_cast<std::size_t>(pool.num_threads());
  std::atomic<std::uint64_t> sink{0};
  const double seconds = best_seconds(pool, [&](int worker) {
    const std::size_t first = count * static_cast<std::size_t>(worker) / workers;
    const std::size_t last = count * (static_cast<std::size_t>(worker) + 1) / workers;
    sink += sum_words(words + first, last - first);
  });
  return static_cast<double>(memory.size()) / seconds;
}

CpuPeaks measure_peaks(ThreadPool& pool, CpuIsa isa, bool int8_activations) {
  const cpu::Primitives& primitives = cpu::primitives_of(isa);
  const cpu::Planes planes = int8_activations ? cpu::Planes::kOne : cpu::Planes::kTwo;
  const int rounds = isa == CpuIsa::kScalar ? 20'000 : 2'000'000;
  std::atomic<int> sink{0};
  const double floats =
      best_seconds(pool, [&](int) { sink += primitives.peak_floats(rounds) > 0.0F ? 1 : 0; });
  const double integers = best_seconds(
      pool, [&](int) { sink += primitives.peak_integers(rounds, planes) > 0.0F ? 1 : 0; });
  const double all_rounds = static_cast<double>(rounds) * pool.num_threads();
  return {all_rounds * primitives.floats_per_round / floats,
          all_rounds * primitives.integers_per_round / integers};
}

}  // namespace strata::kernels
