// When the requests of an open-loop run are due. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace strata::loadgen {

// Seconds after the start at which each of `count` requests is due, ascending. Gaps are gamma
// distributed with shape `burstiness` (1: a Poisson process, infinite: even) and scaled so that the
// last request is due at count / rate, as vLLM does it. An infinite rate: all at once.
std::vector<double> arrival_times(std::size_t count, double rate, double burstiness,
                                  std::uint64_t seed);

}  // namespace strata::loadgen
