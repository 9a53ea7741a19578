// The five-user load: five people ask for one sentence at once, fifty times in all. The first and
// last requests are dropped, because then fewer than five are there. Pure.
//
// As text completions, for models that do not answer chats (random weights), an answer has a fixed
// length instead of its natural one.
#pragma once

#include <span>
#include <string>

#include "loadgen/figures.h"
#include "loadgen/options.h"
#include "loadgen/outcome.h"
#include "loadgen/workload.h"

namespace strata::loadgen {

inline constexpr std::size_t kFiveUsersDropped = 5;  // at either end

inline constexpr std::int32_t kFiveUsersAnswer = 256;      // tokens at most
inline constexpr std::int32_t kFiveUsersCompletion = 100;  // tokens, as text completions

// Sets what the load fixes: five at once, fifty requests, chat unless something else was asked for.
void apply_five_users(LoadOptions& options);

// Fifty times the one prompt, with answers of at most `output_tokens`.
std::vector<Prompt> five_users_prompts(const LoadOptions& options, std::int32_t output_tokens);

struct FiveUsers {
  Spread ttft_ms;  // with their p99
  Spread e2e_s;
  Spread tokens_per_s;  // of one user, after the first token
  std::int64_t failed = 0;
};

// `natural`: answers that ended by themselves; `long_answers`: those of 256 tokens.
FiveUsers five_users_of(std::span<const Outcome> natural, std::span<const Outcome> long_answers);

std::string format_five_users(const FiveUsers& figures);
// {"five_users": {...}}
std::string five_users_json(const FiveUsers& figures);

}  // namespace strata::loadgen
