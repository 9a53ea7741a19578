#include "loadgen/arrivals.h"

#include <cmath>
#include <random>

#include "base/random.h"

namespace strata::loadgen {

std::vector<double> arrival_times(std::size_t count, double rate, double burstiness,
                                  std::uint64_t seed) {
  std::vector<double> times(count, 0.0);
  if (count == 0 || std::isinf(rate)) return times;
  std::mt19937_64 generator(random_at(fnv1a64("arrivals"), seed));
  std::gamma_distribution<double> gap(std::isinf(burstiness) ? 1.0 : burstiness, 1.0);
  double now = 0.0;
  for (double& time : times) {
    now += std::isinf(burstiness) ? 1.0 : gap(generator);
    time = now;
  }
  const double total = static_cast<double>(count) / rate;
  const double scale = now > 0 ? total / now : 0.0;
  for (double& time : times) time *= scale;
  return times;
}

}  // namespace strata::loadgen
