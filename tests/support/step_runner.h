// StepRunner: a checkpoint loaded into one backend, run step by step through forward(), without
// engine or threads. Tests queue work on builder() and call run().
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "comm/comm.h"
#include "experts/expert_store.h"
#include "kernels/stages.h"
#include "tests/support/plan_builder.h"
#include "tests/support/test_backends.h"
#include "weights/checkpoint.h"

namespace strata::test {

// Small pages, so that short sequences cross many of them.
kernels::BackendOptions small_options();

class StepRunner {
 public:
  StepRunner(const TestBackend& backend, const weights::Checkpoint& checkpoint,
             const kernels::BackendOptions& options = small_options(),
             std::vector<TokenId> never_emit = {});

  PlanBuilder& builder() { return builder_; }
  kernels::Backend& backend() { return *backend_; }
  const kernels::ModelWeights& weights() const { return weights_; }

  // Runs what was queued; `masks` are the late masks.
  StepResult run(std::span<const std::uint32_t> masks = {});

  // Prefills `tokens` in chunks of `chunk` and returns the log-probability of every id after each
  // of them: [tokens][vocab].
  std::vector<std::vector<float>> logprobs(SlotId slot, std::span<const TokenId> tokens,
                                           std::size_t chunk);
  // Prefills and decodes `count` tokens.
  std::vector<TokenId> generate(SlotId slot, std::span<const TokenId> prompt, int count);

 private:
  const ModelConfig config_;
  std::shared_ptr<kernels::Backend> backend_;
  ExpertStore experts_;
  kernels::ModelWeights weights_;
  SingleRank comm_;
  PlanBuilder builder_;
};

// The log-probabilities of a result's top list, by id; the list must hold the whole vocabulary.
std::vector<float> by_id(const RowResult& row);
// Ids drawn at random from [0, vocab), the same for the same key.
std::vector<TokenId> random_tokens(std::size_t count, std::int32_t vocab, std::uint64_t key);

}  // namespace strata::test
