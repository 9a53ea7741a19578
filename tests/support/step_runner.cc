#include "tests/support/step_runner.h"

#include <algorithm>

#include "base/random.h"
#include "kernels/cuda/cuda_backend.h"
#include "model/checkpoint_loader.h"
#include "model/forward.h"

namespace strata::test {

kernels::BackendOptions small_options() {
  kernels::BackendOptions options;
  options.max_rows = 128;
  options.max_slots = 8;
  options.max_logits_rows = 128;
  options.page_tokens = 4;
  options.num_pages = 256;
  options.num_swap_pages = 64;
  options.max_pages_per_seq = 64;
  return options;
}

namespace {

kernels::BackendOptions options_of(const TestBackend& backend, const ModelConfig& config,
                                   kernels::BackendOptions options) {
  options.tensor_cores = (options.tensor_cores || backend.tensor_cores) &&
                         kernels::cuda_tensor_cores(config.expert_format);
  options.early_launches = options.early_launches && backend.early_launches;
  return options;
}

}  // namespace

StepRunner::StepRunner(const TestBackend& backend, const weights::Checkpoint& checkpoint,
                       const kernels::BackendOptions& options, std::vector<TokenId> never_emit)
    : config_(checkpoint.config()),
      backend_(backend.make({config_, std::move(never_emit)})),
      experts_(config_),
      weights_(load_checkpoint(checkpoint, *backend_, experts_)),
      builder_(config_, options) {
  backend_->prepare(options_of(backend, config_, options));
  experts_.publish(*backend_);
}

StepResult StepRunner::run(std::span<const std::uint32_t> masks) {
  const StepPlan plan = builder_.take();
  const ForwardContext context{config_, weights_, *backend_, comm_};
  backend_->begin_step(plan);
  forward_body(context, plan.shape);
  if (!masks.empty()) backend_->set_masks(masks);
  forward_tail(context, plan.shape);
  StepResult result = backend_->end_step();
  builder_.confirm(result);
  return result;
}

std::vector<std::vector<float>> StepRunner::logprobs(SlotId slot, std::span<const TokenId> tokens,
                                                     std::size_t chunk) {
  std::vector<std::vector<float>> all;
  for (std::size_t at = 0; at < tokens.size(); at += chunk) {
    const auto part = tokens.subspan(at, std::min(chunk, tokens.size() - at));
    builder_.prefill(slot, part, Want::kAllLogprobs, config_.vocab);
    for (const RowResult& row : run().rows) all.push_back(by_id(row));
  }
  return all;
}

std::vector<TokenId> StepRunner::generate(SlotId slot, std::span<const TokenId> prompt, int count) {
  builder_.prefill(slot, prompt, Want::kSample);
  std::vector<TokenId> tokens = {run().rows[0].token};
  while (static_cast<int>(tokens.size()) < count) {
    builder_.decode(slot);
    tokens.push_back(run().rows[0].token);
  }
  return tokens;
}

std::vector<float> by_id(const RowResult& row) {
  std::vector<float> values(row.top.size());
  for (const TokenLogprob& each : row.top)
    values[static_cast<std::size_t>(each.token)] = each.logprob;
  return values;
}

std::vector<TokenId> random_tokens(std::size_t count, std::int32_t vocab, std::uint64_t key) {
  std::vector<TokenId> tokens;
  for (std::size_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<TokenId>(random_at(key, i) % static_cast<std::uint64_t>(vocab)));
  return tokens;
}

}  // namespace strata::test
