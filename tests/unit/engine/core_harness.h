// CoreHarness: drives an EngineCore step by step and collects what its streams received.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "engine/engine_core.h"
#include "tests/unit/engine/paged_model.h"

namespace strata::test {

struct Collected {
  EngineRequest request;
  std::shared_ptr<TokenStream> stream;
  std::vector<TokenId> tokens;
  std::vector<PromptLogprob> prompt;
  std::vector<std::int32_t> queue_positions;
  std::vector<std::int32_t> prefilled;
  std::optional<SequenceEnd> end;
  int ends = 0;
  int notified = 0;
};

class CoreHarness {
  const ModelInfo info_;
  const std::function<bool()> ready_;

 public:
  CoreHarness(const ModelInfo& info, const EngineOptions& options, std::function<bool()> ready = {})
      : info_(info),
        ready_(std::move(ready)),
        core(make_model(info_, ready_), options, clock, counters, {}) {}

  SeqId submit(EngineRequest request, std::size_t capacity = 4096) {
    const SeqId id = ++last_id_;
    Collected& got = streams[id];
    got.request = request;
    got.stream = std::make_shared<TokenStream>(capacity);
    got.stream->set_notify([&got] { ++got.notified; });
    ++counters.live;
    ++counters.waiting_requests;
    counters.waiting_tokens += static_cast<std::int64_t>(request.prompt.size());
    core.add(core.make_sequence(id, std::move(request), got.stream));
    return id;
  }

  // Takes what the streams hold.
  void collect() {
    for (auto& [id, got] : streams) {
      TokenStream::Batch batch = got.stream->take();
      for (const TokenOutput& output : batch.tokens) got.tokens.push_back(output.token);
      for (PromptLogprob& logprob : batch.prompt) got.prompt.push_back(std::move(logprob));
      if (batch.queue_position >= 0) got.queue_positions.push_back(batch.queue_position);
      if (batch.prefilled_tokens >= 0) got.prefilled.push_back(batch.prefilled_tokens);
      if (!batch.end) continue;
      ++got.ends;
      got.end = std::move(batch.end);
    }
  }

  // Until nothing is left; false when that takes more than `limit` steps.
  bool run(int limit = 100'000) {
    for (int i = 0; i < limit && !core.idle(); ++i) {
      core.step();
      core.check_integrity();
    }
    collect();
    return core.idle();
  }

  // What a memory failure does: everything that started is computed again on a fresh model.
  void replace_model(std::int32_t max_restarts, const Error& error = {}) {
    core.restart_started(max_restarts, error);
    core.check_integrity();
    core.detach_model();
    core.attach_model(make_model(info_, ready_));
  }

  ManualClock clock;
  AdmissionCounters counters;
  PagedModel* model = nullptr;  // owned by core
  std::map<SeqId, Collected> streams;
  EngineCore core;

 private:
  std::unique_ptr<Model> make_model(const ModelInfo& info, std::function<bool()> ready) {
    auto made = std::make_unique<PagedModel>(info, std::move(ready));
    model = made.get();
    return made;
  }
  SeqId last_id_ = 0;
};

inline EngineRequest make_request(std::vector<TokenId> prompt, std::int32_t max_new_tokens,
                                  std::uint64_t seed = 1) {
  EngineRequest request;
  request.prompt = std::move(prompt);
  request.max_new_tokens = max_new_tokens;
  request.sampling.seed = seed;
  request.sampling.stop_ids = {kStopToken};
  return request;
}

// `length` tokens that are a function of `key`.
inline std::vector<TokenId> make_prompt(std::int32_t length, std::uint64_t key,
                                        std::int32_t vocab = 50) {
  std::vector<TokenId> prompt;
  for (std::int32_t i = 0; i < length; ++i)
    prompt.push_back(static_cast<TokenId>(
        (key * 7919 + static_cast<std::uint64_t>(i) * 31 + key * static_cast<std::uint64_t>(i)) %
        static_cast<std::uint64_t>(vocab)));
  return prompt;
}

}  // namespace strata::test
