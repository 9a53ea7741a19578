// ModelKeeper: whether the engine has a model. It rebuilds a failed one, frees the model of an
// engine that is put to sleep or has nothing to do, loads it again, and keeps the breaker. Engine
// thread only, but for what says otherwise.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "engine/breaker.h"
#include "engine/engine.h"
#include "engine/engine_core.h"

namespace strata {

class ModelKeeper {
 public:
  // `core` has a model. `publish` is called when the health changed and before anyone hears why.
  // Without a factory every failure is final and nothing is ever unloaded.
  ModelKeeper(EngineCore& core, const EngineOptions& options, Engine::ModelFactory factory,
              const Clock& clock, std::function<void()> publish);
  ~ModelKeeper();  // waits for models that hang

  // ---- Any thread.
  Health health() const { return health_; }  // kReady, kStarting or kDead
  bool asleep() const { return asleep_; }    // or about to be
  void close_for_sleep() { asleep_ = true; }

  // ---- What EngineCore::step() threw.
  void on_device_failure(const std::string& what, bool hangs);
  void on_memory_failure(const std::string& what);

  // Does what is due. `live`: accepted requests without an end.
  void tend(std::int64_t live);
  // Time until something may be due; nothing when only a message can change that.
  std::optional<Nanos> time_to_due() const;

  void sleep(Engine::Done done);
  void wake(const Engine::Done& done);
  void stop();  // answers who still waits for sleep, refuses the others

  void fill(EngineInfo& info) const;

 private:
  void unload(const char* why);
  Result<void> load();
  void rebuild();
  bool load_or_wait();
  void go_to_sleep();
  bool watches_memory() const;
  void watch_memory(Nanos now);
  void note_memory_failure(const std::string& what);
  void destroy_model(bool hangs);
  void die(const std::string& what);

  EngineCore& core_;
  const EngineOptions options_;
  const Engine::ModelFactory factory_;
  const Clock& clock_;
  const std::function<void()> publish_;
  std::atomic<Health> health_{Health::kReady};
  std::atomic<bool> asleep_{false};

  Breaker breaker_;
  std::string death_reason_;
  std::deque<Nanos> deaths_;          // of late
  std::vector<std::thread> reapers_;  // each destroys a model that hangs
  std::atomic<std::int32_t> hung_models_{0};
  std::vector<Engine::Done> sleepers_;
  std::optional<Nanos> retry_at_;  // the model failed to load: when to try again
  Nanos last_busy_;
  Nanos next_memory_look_ = 0;
  Nanos over_since_ = 0;  // the device's memory is too full; 0: it is not
  bool stopped_ = false;
  std::uint64_t unloads_ = 0;
  std::uint64_t rebuilds_ = 0;
};

}  // namespace strata
