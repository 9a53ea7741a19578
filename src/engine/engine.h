// Engine: the front of the inference side. One thread owns all sequences, pages and slots; other
// threads submit requests, abort them and read an immutable snapshot. It knows tokens, not text.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "engine/model.h"
#include "engine/token_stream.h"
#include "plan/sampling_params.h"

namespace strata {

// How a sequence that lost its pages gets its KV back: from host memory or by computing it again.
enum class Preemption { kCheaper, kSwap, kRecompute };

struct EngineOptions {
  std::int32_t max_num_seqs = 8;              // running at once; at most ModelInfo::max_slots
  std::int32_t max_num_batched_tokens = 256;  // rows of a step
  std::int32_t max_model_len = 0;             // prompt + answer, in tokens; 0: the model's
  std::int32_t max_queued_requests = 256;     // waiting; more are refused with kRateLimited
  std::int64_t max_queued_tokens = 1 << 20;   // prompt tokens waiting
  bool prefix_caching = true;
  bool two_steps_in_flight = true;
  bool priority_scheduling = false;  // else first come, first served
  Preemption preemption = Preemption::kCheaper;
  int step_deadline_ms = -1;  // watchdog; -1: follows the pace of steps, 0: off
  int idle_unload_s = 0;      // frees the model after so long without requests; 0: never
  // Rebuilds the model once more than this share of the device's memory was in use for so long.
  double rebuild_above_memory = 0;  // 0: never
  int rebuild_after_s = 30;
  // The share in use now, by anyone; 0: not known. Asked on the engine's thread, about once a
  // second, and must not throw. Without it the two above have no effect.
  std::function<double()> memory_used;
};

struct EngineRequest {
  std::string request_id;       // for logs
  std::vector<TokenId> prompt;  // at least one token
  SamplingParams sampling;
  std::int32_t max_new_tokens = 0;  // 0 is allowed: prompt logprobs only
  // To go on with an answer behind tokens the model did not choose: its first sequence, which was
  // aborted and has ended, and how many tokens at the prompt's end are that answer so far. They
  // count as generated. Such a request was admitted before and keeps its age: no queue limit and no
  // drain refuses it.
  SeqId continues = 0;
  std::int32_t generated = 0;
  bool prompt_logprobs = false;
  std::int32_t prompt_top_logprobs = 0;
  std::int32_t priority = 0;  // lower runs first, under --scheduling-policy priority
  std::string cache_salt;
  Nanos arrival = 0;
};

// kSleeping: put to sleep by sleep(), refuses until wake(). An engine that unloaded its idle model
// stays kReady: the next request loads it.
enum class Health { kStarting, kReady, kDraining, kDead, kSleeping };

// Where the time of steps went, since start. Compute and sample are the model's and overlap with
// the other two, which are the engine thread's.
struct StepTimes {
  std::uint64_t steps = 0;
  Nanos schedule = 0;  // choosing rows, pages and slots, and making the plan
  Nanos compute = 0;   // forward pass
  Nanos sample = 0;
  Nanos host = 0;  // everything else: inbox, results, streams, snapshots
};

// Immutable snapshot, replaced by the engine after every step.
struct EngineInfo {
  Health health = Health::kStarting;
  ModelInfo model;
  std::int32_t max_model_len = 0;
  std::int32_t running = 0;
  std::int32_t waiting = 0;
  std::int32_t free_pages = 0;
  std::int32_t total_pages = 0;
  std::uint64_t steps = 0;
  std::uint64_t rows = 0;  // of all steps
  // Steps by rows: element i counts those with at most 2^i rows and more than 2^(i - 1).
  std::array<std::uint64_t, 17> step_rows{};
  std::uint64_t prompt_tokens = 0;
  std::uint64_t generated_tokens = 0;
  std::uint64_t prefix_query_tokens = 0;
  std::uint64_t prefix_hit_tokens = 0;
  StepTimes step_times;
  std::uint64_t preemptions = 0;             // both kinds
  std::uint64_t preemptions_swapped = 0;     // pages kept, in host memory when they are needed
  std::uint64_t preemptions_recomputed = 0;  // pages dropped
  std::uint64_t pages_swapped_out = 0;       // evicted to host memory
  std::uint64_t pages_swapped_in = 0;        // found there again
  bool loaded = true;                        // false: asleep, or unloaded while idle
  std::uint64_t unloads = 0;                 // by sleep() and by idling
  std::uint64_t rebuilds = 0;                // of the model, after a failure
  std::int32_t hung_models = 0;              // replaced, and still hanging: ~Engine waits for them
  bool safe_mode = false;             // fewer sequences and rows, after repeated memory failures
  std::uint64_t breaker_trips = 0;    // times that safe mode was entered or tightened
  std::uint64_t memory_failures = 0;  // allocations that failed in a step or while loading
  std::string death_reason;           // kDead
};

class Engine {
 public:
  // Starts the engine thread. `rebuild` makes a fresh Model after a DeviceError; without it the
  // engine stays dead. Throws StartupError when the options do not fit the model.
  using ModelFactory = std::function<std::unique_ptr<Model>()>;
  Engine(std::unique_ptr<Model> model, const EngineOptions& options, ModelFactory rebuild = {},
         const Clock* clock = nullptr);
  ~Engine();  // aborts what runs and joins
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Any thread. Refuses at once: empty prompt, kContextOverflow (with the numbers), pages that can
  // never exist, a full queue (kRateLimited with retry_after_s), draining or dead (kUnavailable).
  // Otherwise the stream will get an end, always.
  Result<SeqId> submit(EngineRequest request, std::shared_ptr<TokenStream> stream);

  // Any thread. The sequence ends within one step (kAborted); unknown or finished ids are ignored.
  void abort(SeqId id);

  // Stops admission; running and waiting sequences go on. `done` is called on the engine thread
  // when nothing is left.
  void drain(std::function<void()> done);

  // Stops admission (kUnavailable, detail "sleeping"), lets what was accepted finish, then frees
  // weights and KV. wake() loads again; a wake() that comes first ends the attempt to sleep. `done`
  // is called once, on the engine thread; the engine must not be destroyed in it. Fails where the
  // model cannot be rebuilt, where it is dead, and when the memory to wake is not to be had.
  using Done = std::function<void(const Result<void>&)>;
  void sleep(Done done);
  void wake(Done done);

  std::shared_ptr<const EngineInfo> info() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace strata
