#include "engine/model_keeper.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/log.h"

namespace strata {
namespace {

constexpr Nanos kSecond = 1'000'000'000;
// So many deaths within so long mean that rebuilding does not help.
constexpr std::size_t kMaxRebuilds = 3;
constexpr Nanos kRebuildWindow = 60 * kSecond;
// A sequence that ran in so many failed steps may be what they failed for.
constexpr std::int32_t kMaxRestarts = 2;
constexpr Nanos kMemoryLook = kSecond;
// If a rebuild does not free the device's memory, others hold it: more of them would not help.
constexpr Nanos kMemoryRest = 600 * kSecond;

Error unavailable(std::string message, int retry_after_s) {
  return Error{ErrorCode::kUnavailable, std::move(message), {}, "unavailable", retry_after_s};
}

Error stopping() { return unavailable("the server is shutting down", 0); }

Error no_memory(std::string message) {
  return Error{ErrorCode::kInsufficientMemory, std::move(message), {}, "insufficient_memory", 1};
}

}  // namespace

ModelKeeper::ModelKeeper(EngineCore& core, const EngineOptions& options,
                         Engine::ModelFactory factory, const Clock& clock,
                         std::function<void()> publish)
    : core_(core),
      options_(options),
      factory_(std::move(factory)),
      clock_(clock),
      publish_(std::move(publish)),
      breaker_({options.max_num_seqs, options.max_num_batched_tokens}),
      last_busy_(clock.now()) {}

ModelKeeper::~ModelKeeper() {
  for (std::thread& reaper : reapers_) reaper.join();
}

// Everyone who started hears of it; who only waits may still be served by a fresh model.
void ModelKeeper::on_device_failure(const std::string& what, bool hangs) {
  log_error("engine: the device failed: {}", what);
  health_ = Health::kStarting;
  death_reason_ = what;
  publish_();
  core_.fail_started(Error{ErrorCode::kInternal,
                           "the device failed while it worked on this request",
                           {},
                           "device_error",
                           1});
  destroy_model(hangs);
  const Nanos now = clock_.now();
  deaths_.push_back(now);
  while (now - deaths_.front() > kRebuildWindow) deaths_.pop_front();
  if (!factory_ || deaths_.size() > kMaxRebuilds) return die(what);
  rebuild();
}

// Nobody's text is lost: what ran is computed again, unless it was there too often.
void ModelKeeper::on_memory_failure(const std::string& what) {
  health_ = Health::kStarting;
  death_reason_ = what;
  note_memory_failure(what);
  publish_();
  const Error error = no_memory("there was not enough memory to compute this request");
  if (!factory_) {
    core_.fail_started(error);
    destroy_model(false);
    return die(what);
  }
  core_.restart_started(kMaxRestarts, error);
  destroy_model(false);
  if (const Nanos pause = breaker_.pause(); pause > 0) retry_at_ = clock_.now() + pause;
  else rebuild();
}

void ModelKeeper::note_memory_failure(const std::string& what) {
  log_error("engine: memory failure {}: {}", breaker_.failures() + 1, what);
  if (!breaker_.on_memory_failure(clock_.now())) return;
  const StepLimits limits = breaker_.limits();
  core_.set_limits(limits);
  log_warn("engine: safe mode: {} sequences and {} rows a step, for at least {:.0f} s",
           limits.max_num_seqs, limits.max_num_batched_tokens, to_seconds(breaker_.quiet()));
}

// A hung model may never be destroyed; a dead one must be, its memory is needed.
void ModelKeeper::destroy_model(bool hangs) {
  std::unique_ptr<Model> dead = core_.detach_model();
  if (!hangs) return;
  ++hung_models_;
  reapers_.emplace_back([this, model = std::move(dead)]() mutable {
    model.reset();
    --hung_models_;
  });
}

// Fails with kInsufficientMemory when there is no room now; dies of anything else.
Result<void> ModelKeeper::load() {
  try {
    core_.attach_model(factory_());
    retry_at_.reset();
    last_busy_ = clock_.now();
    return {};
  } catch (const MemoryError& error) {
    note_memory_failure(error.what());
    return Unexpected(no_memory("there is not enough memory to load the model"));
  } catch (const std::exception& error) {
    die(fmt::format("loading the model failed: {}", error.what()));
    return Unexpected(unavailable("the engine is down", 0));
  }
}

// REQUIRES kStarting and no model.
void ModelKeeper::rebuild() {
  if (!load_or_wait()) return;
  ++rebuilds_;
  log_warn("engine: rebuilt after: {}", std::exchange(death_reason_, {}));
  health_ = Health::kReady;
}

// Without memory for the model nobody can be served: who waits is told, others are refused until
// it was tried again.
bool ModelKeeper::load_or_wait() {
  const Result<void> loaded = load();
  if (loaded) return true;
  if (health_ == Health::kDead) return false;
  health_ = Health::kStarting;
  if (death_reason_.empty()) death_reason_ = loaded.error().message;
  retry_at_ = clock_.now() + std::max(breaker_.pause(), kSecond);
  publish_();  // before anyone hears of it
  core_.end_all(FinishReason::kError, loaded.error());
  return false;
}

void ModelKeeper::die(const std::string& what) {
  death_reason_ = what;
  retry_at_.reset();
  health_ = Health::kDead;
  publish_();
  log_error("engine: dead: {}", what);
  core_.end_all(FinishReason::kError, unavailable("the engine is down", 0));
}

void ModelKeeper::unload(const char* why) {
  destroy_model(false);
  ++unloads_;
  log_info("engine: {}, the model is unloaded", why);
}

void ModelKeeper::tend(std::int64_t live) {
  const Nanos now = clock_.now();
  if (live > 0) last_busy_ = now;
  if (health_ == Health::kDead) return;
  const bool nothing_runs = live == 0 && core_.idle();  // ended ones may still be in open steps
  if (!sleepers_.empty() && nothing_runs) go_to_sleep();
  if (retry_at_ && now >= *retry_at_) rebuild();
  // A request came while the model was unloaded.
  if (!core_.has_model() && !retry_at_ && !core_.idle() && load_or_wait())
    log_info("engine: the model is loaded again");
  const Nanos idle_unload = options_.idle_unload_s * kSecond;
  if (idle_unload > 0 && factory_ && core_.has_model() && !asleep_ && nothing_runs &&
      now - last_busy_ >= idle_unload)
    unload("nothing to do");
  if (breaker_.recover(now)) {
    core_.set_limits(breaker_.limits());
    log_warn("engine: safe mode ends, no memory failure for {:.0f} s",
             to_seconds(breaker_.quiet()));
  }
  if (watches_memory() && now >= next_memory_look_) watch_memory(now);
}

bool ModelKeeper::watches_memory() const {
  return options_.rebuild_above_memory > 0 && options_.memory_used && factory_ && core_.has_model();
}

void ModelKeeper::watch_memory(Nanos now) {
  next_memory_look_ = now + kMemoryLook;
  const double used = options_.memory_used();
  if (used <= options_.rebuild_above_memory) {
    over_since_ = 0;
    return;
  }
  if (over_since_ == 0) over_since_ = now;
  if (now - over_since_ < options_.rebuild_after_s * kSecond) return;
  over_since_ = 0;
  next_memory_look_ = now + kMemoryRest;
  health_ = Health::kStarting;
  death_reason_ = fmt::format("{:.0f} % of the device's memory were in use for {} s", 100 * used,
                              options_.rebuild_after_s);
  publish_();
  core_.restart_started(std::numeric_limits<std::int32_t>::max(), Error{});
  destroy_model(false);
  rebuild();
}

std::optional<Nanos> ModelKeeper::time_to_due() const {
  std::optional<Nanos> due = breaker_.quiet_ends();
  const auto sooner = [&due](Nanos at) { due = due ? std::min(*due, at) : at; };
  if (retry_at_) sooner(*retry_at_);
  if (options_.idle_unload_s > 0 && core_.has_model() && core_.idle())
    sooner(last_busy_ + options_.idle_unload_s * kSecond);
  if (watches_memory()) sooner(next_memory_look_);
  if (!due) return std::nullopt;
  return *due - clock_.now();
}

void ModelKeeper::sleep(Engine::Done done) {
  if (stopped_) return done(Unexpected(stopping()));
  if (health_ == Health::kDead || !factory_) {
    asleep_ = false;
    return done(Unexpected(unavailable("the engine cannot sleep: it could not wake up again", 0)));
  }
  asleep_ = true;  // a wake() before this one may have cleared it
  sleepers_.push_back(std::move(done));
}

void ModelKeeper::go_to_sleep() {
  retry_at_.reset();
  if (health_ == Health::kStarting) health_ = Health::kReady;
  if (core_.has_model()) unload("asleep");
  publish_();
  const std::vector<Engine::Done> sleepers = std::exchange(sleepers_, {});
  for (const Engine::Done& done : sleepers) done({});
}

void ModelKeeper::wake(const Engine::Done& done) {
  if (stopped_) return done(Unexpected(stopping()));
  if (health_ == Health::kDead) return done(Unexpected(unavailable("the engine is down", 0)));
  const std::vector<Engine::Done> sleepers = std::exchange(sleepers_, {});
  for (const Engine::Done& sleeper : sleepers)
    sleeper(Unexpected(unavailable("the engine was woken up before it slept", 0)));
  Result<void> loaded;
  if (!core_.has_model()) loaded = load();
  if (loaded) {
    asleep_ = false;
    death_reason_.clear();
    health_ = Health::kReady;
  }
  publish_();
  done(loaded);
}

void ModelKeeper::stop() {
  stopped_ = true;
  const std::vector<Engine::Done> sleepers = std::exchange(sleepers_, {});
  for (const Engine::Done& done : sleepers) done(Unexpected(stopping()));
}

void ModelKeeper::fill(EngineInfo& info) const {
  info.death_reason = death_reason_;
  info.unloads = unloads_;
  info.hung_models = hung_models_;
  info.rebuilds = rebuilds_;
  info.safe_mode = breaker_.safe_mode();
  info.breaker_trips = breaker_.trips();
  info.memory_failures = breaker_.failures();
}

}  // namespace strata
