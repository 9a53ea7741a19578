// Histogram boundaries. vLLM's, so that its dashboards' quantiles mean the same; the fine ones are
// ours: its smallest bucket between tokens is 10 ms.
#pragma once

#include <array>

namespace strata::metrics {

inline constexpr std::array kFirstTokenBuckets = {
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25,  0.5,   0.75,
    1.0,   2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0};
inline constexpr std::array kTokenBuckets = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,
                                             0.3,  0.4,   0.5,  0.75,  1.0, 2.5,  5.0,
                                             7.5,  10.0,  20.0, 40.0,  80.0};
inline constexpr std::array kFineTokenBuckets = {0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004,
                                                 0.006,  0.008, 0.012,  0.016, 0.024, 0.032,
                                                 0.05,   0.1,   0.2,    0.5,   1.0,   2.0};
inline constexpr std::array kRequestBuckets = {0.3,  0.5,   0.8,   1.0,   1.5,   2.0,    2.5,
                                               5.0,  10.0,  15.0,  20.0,  30.0,  40.0,   50.0,
                                               60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
inline constexpr std::array kLengthBuckets = {1.0,     2.0,     5.0,     10.0,    20.0,   50.0,
                                              100.0,   200.0,   500.0,   1000.0,  2000.0, 5000.0,
                                              10000.0, 20000.0, 50000.0, 100000.0};
inline constexpr std::array kChoiceBuckets = {1.0, 2.0, 5.0, 10.0, 20.0};
inline constexpr std::array kStepBuckets = {1.0,   8.0,    16.0,   32.0,   64.0,   128.0,  256.0,
                                            512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0};
inline constexpr std::array kHttpBuckets = {0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0};
inline constexpr std::array kFineHttpBuckets = {0.01, 0.025, 0.05, 0.075, 0.1,  0.25, 0.5,
                                                0.75, 1.0,   1.5,  2.0,   2.5,  3.0,  3.5,
                                                4.0,  4.5,   5.0,  7.5,   10.0, 30.0, 60.0};

}  // namespace strata::metrics
