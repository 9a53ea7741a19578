// EngineCore: the engine without its thread. One call of step() takes in what the model finished,
// hands the tokens to their streams and submits the next plans, two at most in flight. Engine and
// tests drive it, one thread at a time; make_sequence and limits may be called by any.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "engine/admission.h"
#include "engine/breaker.h"
#include "engine/engine.h"
#include "engine/model.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"

namespace strata {

// A step did not finish in time: the device hangs, and so may everything that waits for it.
class StepOverdue : public DeviceError {
 public:
  using DeviceError::DeviceError;
};

class EngineCore {
 public:
  // Throws StartupError when the options do not fit the model. `wake` is called from any thread
  // when a step is done. `counters` and `clock` must outlive the core.
  EngineCore(std::unique_ptr<Model> model, const EngineOptions& options, const Clock& clock,
             AdmissionCounters& counters, std::function<void()> wake);
  ~EngineCore();

  // From the next plan on.
  void set_limits(const StepLimits& limits);

  // Constant; any thread.
  const ModelInfo& model_info() const { return info_; }
  const kv::KvConfig& kv_config() const { return kv_config_; }
  std::int32_t max_model_len() const { return max_model_len_; }
  // Any thread: the costly part, hashing the prompt, is done by the caller.
  std::unique_ptr<Sequence> make_sequence(SeqId id, EngineRequest request,
                                          std::shared_ptr<TokenStream> stream) const;

  // Queues a sequence that AdmissionCounters know of. It will get exactly one end.
  void add(std::unique_ptr<Sequence> seq);
  void abort(SeqId id);  // unknown ids are ignored

  // False when there was nothing to do. Throws DeviceError (StepOverdue when a step is past its
  // deadline) or MemoryError: the model is dead, call fail_started() and then replace or end_all().
  bool step();
  bool idle() const { return sequences_.empty() && open_.empty(); }
  // Time until the running step is overdue; nothing when none runs or no deadline is set.
  std::optional<Nanos> time_to_deadline() const;

  // Ends what has started with `error`; what waits stays queued.
  void fail_started(const Error& error);
  // Puts what has started back into the queue, to be computed again with the same text. Ends with
  // `error` what was put back `max_restarts` times already.
  void restart_started(std::int32_t max_restarts, const Error& error);
  void end_all(FinishReason reason, const std::optional<Error>& error);
  // REQUIRES that nothing has started. The core does nothing until a model is attached, which
  // throws StartupError when it differs from the first one in any limit.
  std::unique_ptr<Model> detach_model();
  void attach_model(std::unique_ptr<Model> model);
  bool has_model() const { return model_ != nullptr; }

  EngineInfo snapshot() const;                            // health is the caller's to fill
  StepTimes& step_times() { return totals_.step_times; }  // `host` is the caller's to count
  // Token places in the pages that running sequences hold, of both groups, and those whose token a
  // later row can read. Linear in the sequences; pages that are shared count each time.
  struct KvUse {
    std::int64_t held_tokens = 0;
    std::int64_t live_tokens = 0;
  };
  KvUse kv_use() const;
  void check_integrity() const;  // CHECKs pages, slots and phases; linear, for tests

 private:
  struct StepEntry {
    Sequence* seq = nullptr;
    std::int32_t first_row = 0;
    std::int32_t n_rows = 0;
    bool samples = false;
  };
  struct OpenStep {
    Ticket ticket;
    std::vector<StepEntry> entries;
    std::int32_t rows = 0;
    std::int32_t prompt_rows = 0;
    std::size_t copies = 0;
    Nanos submitted = 0;
  };

  void make_scheduler();
  std::int32_t max_active() const;
  void end(const std::vector<Sequence*>& sequences, FinishReason reason,
           const std::optional<Error>& error);
  void add_counters(EngineInfo& info) const;
  bool collect();
  bool launch();
  void count_rows(std::int32_t rows);
  OpenStep advance(const std::vector<ScheduledSpan>& spans);
  void apply(const OpenStep& open, StepResult result);
  void take_token(Sequence& seq, RowResult row);
  void finish(Sequence& seq, FinishReason reason, const std::optional<Error>& error = {},
              TokenId stop_token = kNoToken);
  void settle(Sequence& seq);
  void leave_queue(Sequence& seq);
  void touch(Sequence& seq);
  void notify_touched();
  void report_queue();
  void log_preemptions();
  Nanos allowance(std::int32_t rows) const;
  Nanos front_started() const;
  void note_step(const OpenStep& open, const StepTimings& timings);

  const EngineOptions options_;
  const Clock& clock_;
  AdmissionCounters& counters_;
  const std::function<void()> wake_;
  const kv::BlockHasher hasher_;
  std::unique_ptr<Model> model_;  // null between detach and attach
  const ModelInfo info_;
  kv::KvConfig kv_config_;
  std::int32_t max_model_len_ = 0;
  StepLimits limits_;
  PreemptionCosts costs_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unordered_map<SeqId, std::unique_ptr<Sequence>> sequences_;
  std::deque<OpenStep> open_;  // in order of submission
  std::vector<std::shared_ptr<TokenStream>> touched_;
  std::uint64_t step_calls_ = 1;
  std::uint64_t reported_queue_version_ = 0;
  std::uint64_t logged_preemptions_ = 0;
  Nanos last_preemption_log_ = 0;
  StepId next_step_ = 1;
  Nanos last_done_ = 0;
  double nanos_per_row_ = 0;  // slowest of late; 0: this model was not measured yet
  EngineInfo totals_;         // counters since start
};

}  // namespace strata
