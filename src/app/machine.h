// What `bench` must know about the machine to judge its own figures.
#pragma once

#include <cstddef>
#include <string>

#include "base/clock.h"
#include "base/thread_pool.h"

namespace strata::app {

// Bytes a second that `pool` reads from main memory: the best of several passes over `bytes`.
double read_bandwidth(ThreadPool& pool, std::size_t bytes);

// The processor's name as /proc/cpuinfo tells it.
std::string processor_name();

// One-minute load average.
double load_average();

// How many processors other programs kept busy since construction: all busy time of the machine
// less this process's own.
class OtherLoad {
 public:
  OtherLoad();
  double processors() const;

 private:
  double busy_seconds_;
  double own_seconds_;
  Nanos begin_;
};

}  // namespace strata::app
