// TokenStream: the engine's output for one sequence, read by its session. One producer (the engine
// thread), one consumer. Bounded: a reader that falls `capacity` tokens behind is cut off by the
// engine, so a slow client costs a bounded buffer and never blocks the engine.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/result.h"
#include "plan/step_plan.h"

namespace strata {

// One generated token, the stop token included: a stream's tokens are exactly
// SequenceUsage::generated_tokens, unless the reader was cut off.
struct TokenOutput {
  TokenId token = kNoToken;
  bool has_logprob = false;
  float logprob = 0.0F;
  std::vector<TokenLogprob> top;
};

// One per prompt token except the first, when the request asked for prompt logprobs.
struct PromptLogprob {
  TokenId token = kNoToken;
  float logprob = 0.0F;
  std::int32_t rank = 0;
  std::vector<TokenLogprob> top;
};

enum class FinishReason { kStop, kLength, kAborted, kError };

struct SequenceUsage {
  std::int32_t prompt_tokens = 0;
  std::int32_t cached_tokens = 0;
  std::int32_t generated_tokens = 0;  // the stop token counts
};

struct SequenceTimings {
  Nanos arrival = 0;    // given by the session
  Nanos scheduled = 0;  // first step that held rows of it
  Nanos first_token = 0;
  Nanos finished = 0;
};

struct SequenceEnd {
  FinishReason reason = FinishReason::kStop;
  TokenId stop_token = kNoToken;  // kStop by a stop id
  std::optional<Error> error;     // kError
  SequenceUsage usage;
  SequenceTimings timings;
};

class TokenStream {
 public:
  explicit TokenStream(std::size_t capacity = 4096) : capacity_(capacity) {}

  // ---- Consumer.
  // Called by the producer after data or the end was added, on the engine thread: it must be cheap
  // and must not block (post to an executor). It may run once more after the consumer took the
  // end, so it owns what it touches. Set before submit.
  void set_notify(std::function<void()> notify) { notify_ = std::move(notify); }
  struct Batch {
    std::vector<PromptLogprob> prompt;
    std::vector<TokenOutput> tokens;
    std::optional<SequenceEnd> end;
    std::int32_t queue_position = -1;    // >= 0 while waiting
    std::int32_t prefilled_tokens = -1;  // >= 0 while the prompt is being computed
  };
  Batch take();

  // ---- Producer (engine thread).
  bool push(TokenOutput output);  // false: the reader is too far behind
  void push_prompt(std::vector<PromptLogprob> logprobs);
  void set_progress(std::int32_t queue_position, std::int32_t prefilled_tokens);
  void end(SequenceEnd end);
  void notify() const {
    if (notify_) notify_();
  }

 private:
  const std::size_t capacity_;
  std::function<void()> notify_;
  std::mutex mutex_;
  Batch pending_;       // GUARDED_BY(mutex_)
  bool ended_ = false;  // GUARDED_BY(mutex_)
};

}  // namespace strata
