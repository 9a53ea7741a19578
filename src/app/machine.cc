#include "app/machine.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/memory.h"
#include "kernels/cpu/probe.h"

namespace strata::app {
namespace {

// user + nice + system + irq + softirq of all processors.
double machine_busy_seconds() {
  std::ifstream stat("/proc/stat");
  std::string label;
  double user = 0, nice = 0, system = 0, idle = 0, waiting = 0, irq = 0, softirq = 0;
  stat >> label >> user >> nice >> system >> idle >> waiting >> irq >> softirq;
  return (user + nice + system + irq + softirq) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

double process_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

double read_bandwidth(ThreadPool& pool, std::size_t bytes) {
  HostBuffer buffer("bench.roof", bytes);
  const auto words = buffer.as<std::uint64_t>();
  // Untouched pages all map to one page of zeros: write each first.
  for (std::size_t i = 0; i < words.size(); i += 512) words[i] = i;
  return kernels::measure_read(pool, {buffer.data(), buffer.size()});
}

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

double load_average() {
  std::ifstream file("/proc/loadavg");
  double load = 0.0;
  file >> load;
  return load;
}

OtherLoad::OtherLoad()
    : busy_seconds_(machine_busy_seconds()),
      own_seconds_(process_seconds()),
      begin_(Clock().now()) {}

double OtherLoad::processors() const {
  const double wall = to_seconds(Clock().now() - begin_);
  const double others =
      (machine_busy_seconds() - busy_seconds_) - (process_seconds() - own_seconds_);
  return wall > 0 ? std::max(0.0, others / wall) : 0.0;
}

}  // namespace strata::app
