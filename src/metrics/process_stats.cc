#include "metrics/process_stats.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

namespace strata::metrics {
namespace {

// Fields of /proc/self/stat behind the command's name, which may hold spaces; see proc(5), whose
// numbering begins with the pid: field n is element n - 3.
std::vector<std::string> stat_fields() {
  std::ifstream in("/proc/self/stat");
  std::string line;
  std::getline(in, line);
  const auto name_end = line.rfind(')');
  if (name_end == std::string::npos) return {};
  std::istringstream rest(line.substr(name_end + 1));
  return {std::istream_iterator<std::string>(rest), {}};
}

double boot_time() {
  std::ifstream in("/proc/stat");
  std::string word;
  while (in >> word)
    if (double seconds = 0; word == "btime" && in >> seconds) return seconds;
  return 0;
}

std::int64_t count_open_fds() {
  std::error_code error;
  const std::filesystem::directory_iterator entries("/proc/self/fd", error);
  if (error) return 0;
  return std::distance(begin(entries), end(entries)) - 1;  // less the one that reads the folder
}

}  // namespace

ProcessStats read_process_stats() {
  constexpr std::size_t kUserTime = 14 - 3;
  constexpr std::size_t kStartTime = 22 - 3;
  constexpr std::size_t kVirtualSize = 23 - 3;
  constexpr std::size_t kResidentPages = 24 - 3;
  ProcessStats out;
  const auto fields = stat_fields();
  if (fields.size() <= kResidentPages) return out;
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  out.cpu_seconds = (std::stod(fields[kUserTime]) + std::stod(fields[kUserTime + 1])) / ticks;
  static const double boot = boot_time();
  out.start_time_seconds = boot + std::stod(fields[kStartTime]) / ticks;
  out.virtual_bytes = std::stoll(fields[kVirtualSize]);
  out.resident_bytes = std::stoll(fields[kResidentPages]) * sysconf(_SC_PAGESIZE);
  out.open_fds = count_open_fds();
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
    out.max_fds = static_cast<std::int64_t>(limit.rlim_cur);
  return out;
}

}  // namespace strata::metrics
