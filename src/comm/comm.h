// Comm: collectives between ranks, visible as calls in forward.cc. With one rank they do nothing.
// A rank calls from its compute thread; every rank makes the same calls in the same order.
#pragma once

#include <cstddef>

namespace strata {

class Comm {
 public:
  virtual ~Comm() = default;
  virtual int world() const = 0;
  // Sums `count` float32 values at the device address `data` over all ranks, in rank order.
  virtual void all_reduce(void* data, std::size_t count) = 0;
};

class SingleRank final : public Comm {
 public:
  int world() const override { return 1; }
  void all_reduce(void* /*data*/, std::size_t /*count*/) override {}
};

}  // namespace strata
