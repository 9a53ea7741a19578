#include "engine/token_stream.h"

#include <algorithm>
#include <iterator>

#include "base/check.h"

namespace strata {

TokenStream::Batch TokenStream::take() {
  Batch out;
  const std::lock_guard lock(mutex_);
  std::swap(out, pending_);
  return out;
}

bool TokenStream::push(TokenOutput output) {
  const std::lock_guard lock(mutex_);
  if (pending_.tokens.size() >= capacity_) return false;
  pending_.tokens.push_back(std::move(output));
  return true;
}

void TokenStream::push_prompt(std::vector<PromptLogprob> logprobs) {
  const std::lock_guard lock(mutex_);
  std::move(logprobs.begin(), logprobs.end(), std::back_inserter(pending_.prompt));
}

void TokenStream::set_progress(std::int32_t queue_position, std::int32_t prefilled_tokens) {
  const std::lock_guard lock(mutex_);
  pending_.queue_position = queue_position;
  pending_.prefilled_tokens = prefilled_tokens;
}

void TokenStream::end(SequenceEnd end) {
  const std::lock_guard lock(mutex_);
  STRATA_CHECK(!ended_, "a stream has one end");
  ended_ = true;
  pending_.end = std::move(end);
}

}  // namespace strata
