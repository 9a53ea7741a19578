// What the kernel tells about this process, for the process_* series every Prometheus client
// library exports. Linux; what cannot be read stays 0.
#pragma once

#include <cstdint>

namespace strata::metrics {

struct ProcessStats {
  double cpu_seconds = 0;         // user and system
  double start_time_seconds = 0;  // Unix time
  std::int64_t resident_bytes = 0;
  std::int64_t virtual_bytes = 0;
  std::int64_t open_fds = 0;
  std::int64_t max_fds = 0;
};

ProcessStats read_process_stats();

}  // namespace strata::metrics
