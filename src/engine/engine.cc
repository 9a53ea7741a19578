#include "engine/engine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>
#include <variant>

#include "base/check.h"
#include "base/log.h"
#include "base/queue.h"
#include "engine/engine_core.h"
#include "engine/model_keeper.h"

namespace strata {
namespace {

constexpr Nanos kSecond = 1'000'000'000;
constexpr Nanos kIdleWait = 3600 * kSecond;
// How long a call into the model may take when no flag says how long a step may.
constexpr Nanos kCallDeadline = 10 * kSecond;

Error unavailable(std::string message, int retry_after_s) {
  return Error{ErrorCode::kUnavailable, std::move(message), {}, "unavailable", retry_after_s};
}

}  // namespace

class Engine::Impl {
 public:
  Impl(std::unique_ptr<Model> model, const EngineOptions& options, ModelFactory rebuild,
       const Clock* clock)
      : options_(options),
        clock_(clock == nullptr ? own_clock_ : *clock),
        core_(std::move(model), options, clock_, counters_, [this] { wake_.set(); }),
        keeper_(core_, options, std::move(rebuild), clock_, [this] { publish(); }) {
    last_end_ = clock_.now();
    publish();
    thread_ = std::thread([this] { run(); });
  }

  ~Impl() {
    stop_ = true;
    wake_.set();
    thread_.join();
  }

  Result<SeqId> submit(EngineRequest request, std::shared_ptr<TokenStream> stream) {
    if (auto ok = check_request(request); !ok) return Unexpected(ok.error());
    const auto prompt_len = static_cast<std::int64_t>(request.prompt.size()) - request.generated;
    if (auto ok = count_in(prompt_len, request.continues > 0); !ok) return Unexpected(ok.error());
    const SeqId id = ++last_id_;
    inbox_.push(core_.make_sequence(id, std::move(request), std::move(stream)));
    wake_.set();
    return id;
  }

  void abort(SeqId id) {
    inbox_.push(Abort{id});
    wake_.set();
  }

  void drain(std::function<void()> done) {
    draining_ = true;
    inbox_.push(Drain{std::move(done)});
    wake_.set();
  }

  void sleep(Done done) {
    keeper_.close_for_sleep();
    inbox_.push(Sleep{std::move(done)});
    wake_.set();
  }

  void wake(Done done) {
    inbox_.push(Wake{std::move(done)});
    wake_.set();
  }

  std::shared_ptr<const EngineInfo> info() const {
    std::shared_ptr<const EngineInfo> info;
    {
      const std::lock_guard lock(info_mutex_);
      info = info_;
    }
    // The engine thread itself hangs in a call into the model: nobody else can say so.
    const Nanos since = in_model_since_.load();
    const int deadline_ms = options_.step_deadline_ms;
    const Nanos limit = deadline_ms < 0 ? kCallDeadline : Nanos{deadline_ms} * 1'000'000;
    if (since == 0 || limit == 0 || clock_.now() - since <= limit) return info;
    auto red = std::make_shared<EngineInfo>(*info);
    red->health = Health::kDead;
    red->death_reason = "the engine does not come back from the device";
    return red;
  }

 private:
  struct Abort {
    SeqId id;
  };
  struct Drain {
    std::function<void()> done;
  };
  struct Sleep {
    Done done;
  };
  struct Wake {
    Done done;
  };
  using Message = std::variant<std::unique_ptr<Sequence>, Abort, Drain, Sleep, Wake>;

  Result<void> check_request(const EngineRequest& request) const;
  Result<void> count_in(std::int64_t prompt_tokens, bool admitted);
  int retry_after(std::int64_t waiting) const;
  void run();
  void read_inbox();
  bool step();
  void call_drained();
  Nanos time_to_wait() const;
  void note_pace();
  void publish();

  const EngineOptions options_;
  Clock own_clock_;
  const Clock& clock_;
  AdmissionCounters counters_;
  std::atomic<SeqId> last_id_{0};
  std::atomic<bool> draining_{false};
  std::atomic<bool> stop_{false};
  std::atomic<Nanos> in_model_since_{0};     // 0: not in a call
  std::atomic<Nanos> nanos_per_request_{0};  // between two ends, lately
  WakeEvent wake_;
  MpscQueue<Message> inbox_;

  // Engine thread only.
  EngineCore core_;
  ModelKeeper keeper_;
  std::vector<std::function<void()>> drained_;
  std::int64_t last_ended_ = 0;
  Nanos last_end_ = 0;

  mutable std::mutex info_mutex_;
  std::shared_ptr<const EngineInfo> info_;  // GUARDED_BY(info_mutex_)
  std::thread thread_;
};

Result<void> Engine::Impl::check_request(const EngineRequest& request) const {
  if (request.prompt.empty()) return invalid("the prompt is empty", "prompt");
  if (request.max_new_tokens < 0) return invalid("max_tokens is negative", "max_tokens");
  const std::int32_t vocab = core_.model_info().vocab;
  const bool known = std::all_of(request.prompt.begin(), request.prompt.end(),
                                 [vocab](TokenId id) { return id >= 0 && id < vocab; });
  if (!known)
    return invalid(fmt::format("a prompt token is not in the vocabulary of {} tokens", vocab),
                   "prompt");
  const auto prompt_len = static_cast<std::int64_t>(request.prompt.size()) - request.generated;
  const std::int64_t total = prompt_len + request.max_new_tokens;
  if (total > core_.max_model_len())
    return fail(ErrorCode::kContextOverflow,
                fmt::format("the prompt has {} tokens and the answer may have {}: together {}, "
                            "and the context holds {}",
                            prompt_len, request.max_new_tokens, total, core_.max_model_len()),
                {}, "context_length_exceeded");
  // The last token of an answer is never computed with.
  const auto positions =
      static_cast<std::int32_t>(prompt_len + std::max(0, request.max_new_tokens - 1));
  const std::int32_t pages = kv::min_pages(core_.kv_config(), positions);
  const std::int32_t capacity = core_.model_info().num_pages - 1;
  if (pages > capacity)
    return fail(ErrorCode::kContextOverflow,
                fmt::format("a prompt of {} tokens with an answer of {} needs {} KV pages, and "
                            "there are {} in all",
                            prompt_len, request.max_new_tokens, pages, capacity),
                {}, "kv_cache_exceeded");
  return {};
}

// `admitted`: it was before, and only goes on. Counts first and looks after: a drain or a full
// queue is never overrun by a racing submit.
Result<void> Engine::Impl::count_in(std::int64_t prompt_tokens, bool admitted) {
  ++counters_.live;
  const std::int64_t requests = ++counters_.waiting_requests;
  const std::int64_t tokens = counters_.waiting_tokens += prompt_tokens;
  std::optional<Error> refusal;
  const Health health = keeper_.health();
  if (health == Health::kDead) {
    refusal = unavailable("the engine is down", 0);
  } else if (draining_ && !admitted) {
    refusal = unavailable("the server is shutting down", 0);
  } else if (health != Health::kReady) {
    refusal = unavailable("the engine is being rebuilt after a failure", 1);
  } else if (keeper_.asleep() && !admitted) {
    refusal = unavailable("the engine sleeps", 0);
    refusal->detail = "sleeping";
  } else if (!admitted && (requests > options_.max_queued_requests ||
                           (requests > 1 && tokens > options_.max_queued_tokens))) {
    refusal = Error{ErrorCode::kRateLimited,
                    fmt::format("the queue is full: {} requests with {} prompt tokens wait",
                                requests - 1, tokens - prompt_tokens),
                    {},
                    "queue_full",
                    retry_after(requests - 1)};
  }
  if (!refusal) return {};
  --counters_.live;
  --counters_.waiting_requests;
  counters_.waiting_tokens -= prompt_tokens;
  return Unexpected(*refusal);
}

// Until half of the queue has been served at the pace of late.
int Engine::Impl::retry_after(std::int64_t waiting) const {
  const double seconds = to_seconds(nanos_per_request_) * static_cast<double>(waiting) / 2;
  return static_cast<int>(std::clamp(seconds, 1.0, 60.0));
}

void Engine::Impl::run() {
  log_info("engine: ready, {} sequences, {} rows a step, context {}, {} KV pages",
           options_.max_num_seqs, options_.max_num_batched_tokens, core_.max_model_len(),
           core_.model_info().num_pages - 1);
  while (!stop_) {
    const Nanos begin = clock_.now();
    const Nanos scheduled = core_.step_times().schedule;
    read_inbox();
    keeper_.tend(counters_.live);
    const bool progress = step();
    note_pace();
    publish();
    call_drained();
    StepTimes& times = core_.step_times();
    times.host += clock_.now() - begin - (times.schedule - scheduled);
    if (!progress) wake_.wait_for(std::chrono::nanoseconds(time_to_wait()));
  }
  keeper_.stop();
  read_inbox();
  core_.end_all(FinishReason::kAborted, std::nullopt);
}

// False when there was nothing to do.
bool Engine::Impl::step() {
  try {
    in_model_since_ = clock_.now();
    const bool progress = core_.step();
    in_model_since_ = 0;
    return progress;
  } catch (const StepOverdue& error) {
    in_model_since_ = 0;
    keeper_.on_device_failure(error.what(), true);
  } catch (const MemoryError& error) {
    in_model_since_ = 0;
    keeper_.on_memory_failure(error.what());
  } catch (const std::exception& error) {
    in_model_since_ = 0;
    keeper_.on_device_failure(error.what(), false);
  }
  return true;  // a fresh model has nobody to wake us for it
}

void Engine::Impl::call_drained() {
  if (counters_.live != 0) return;
  for (const std::function<void()>& done : drained_) done();
  drained_.clear();
}

Nanos Engine::Impl::time_to_wait() const {
  const Nanos deadline = core_.time_to_deadline().value_or(kIdleWait);
  return std::max<Nanos>(std::min(deadline, keeper_.time_to_due().value_or(kIdleWait)), 0);
}

void Engine::Impl::read_inbox() {
  for (Message& message : inbox_.drain()) {
    if (auto* seq = std::get_if<std::unique_ptr<Sequence>>(&message)) {
      core_.add(std::move(*seq));
      if (keeper_.health() == Health::kDead)  // it was accepted just before
        core_.end_all(FinishReason::kError, unavailable("the engine is down", 0));
    } else if (const auto* abort = std::get_if<Abort>(&message)) {
      core_.abort(abort->id);
    } else if (auto* sleep = std::get_if<Sleep>(&message)) {
      keeper_.sleep(std::move(sleep->done));
    } else if (const auto* wake = std::get_if<Wake>(&message)) {
      keeper_.wake(wake->done);
    } else {
      log_info("engine: draining, {} requests left", counters_.live.load());
      drained_.push_back(std::move(std::get<Drain>(message).done));
    }
  }
}

// How often requests end while there are some.
void Engine::Impl::note_pace() {
  const Nanos now = clock_.now();
  const std::int64_t ended = counters_.ended;
  if (ended > last_ended_) {
    const Nanos each = (now - last_end_) / (ended - last_ended_);
    const Nanos old = nanos_per_request_;
    nanos_per_request_ = old == 0 ? each : (7 * old + each) / 8;
    last_ended_ = ended;
    last_end_ = now;
  }
  if (counters_.live == 0) last_end_ = now;
}

void Engine::Impl::publish() {
  auto info = std::make_shared<EngineInfo>(core_.snapshot());
  keeper_.fill(*info);
  info->health = keeper_.health();
  if (info->health == Health::kReady && draining_) info->health = Health::kDraining;
  else if (info->health == Health::kReady && keeper_.asleep()) info->health = Health::kSleeping;
  const std::lock_guard lock(info_mutex_);
  info_ = std::move(info);
}

Engine::Engine(std::unique_ptr<Model> model, const EngineOptions& options, ModelFactory rebuild,
               const Clock* clock)
    : impl_(std::make_unique<Impl>(std::move(model), options, std::move(rebuild), clock)) {}
Engine::~Engine() = default;

Result<SeqId> Engine::submit(EngineRequest request, std::shared_ptr<TokenStream> stream) {
  return impl_->submit(std::move(request), std::move(stream));
}
void Engine::abort(SeqId id) { impl_->abort(id); }
void Engine::drain(std::function<void()> done) { impl_->drain(std::move(done)); }
void Engine::sleep(Done done) { impl_->sleep(std::move(done)); }
void Engine::wake(Done done) { impl_->wake(std::move(done)); }
std::shared_ptr<const EngineInfo> Engine::info() const { return impl_->info(); }

}  // namespace strata
