// The fields that steer sampling, common to /v1/chat/completions and /v1/completions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"

namespace strata::api {

// Documented limits of every request. What depends on the loaded model is given by serve.
inline constexpr std::int64_t kMaxChoices = 16;
inline constexpr std::size_t kMaxStops = 16;
inline constexpr std::size_t kMaxStopBytes = 256;
inline constexpr std::size_t kMaxStopTokenIds = 64;
inline constexpr std::size_t kMaxLogitBias = 4096;
inline constexpr std::size_t kMaxTools = 128;
inline constexpr std::size_t kMaxSchemaBytes = 256U << 10;
inline constexpr std::size_t kMaxMessages = 16384;
inline constexpr std::size_t kMaxPrompts = 128;
inline constexpr std::size_t kMaxCacheSaltBytes = 256;

struct RequestLimits {
  std::int32_t vocab = 0;  // token ids in requests are below it
  int max_logprobs = 20;
};

// Absent fields stay empty: their defaults are the server's.
struct SamplingFields {
  std::optional<double> temperature;                  // 0..2
  std::optional<double> top_p;                        // 0..1
  std::optional<std::int32_t> top_k;                  // 0: off
  std::optional<double> min_p;                        // 0..1
  std::optional<double> repetition_penalty;           // (0, 10]
  double presence_penalty = 0.0;                      // -2..2
  double frequency_penalty = 0.0;                     // -2..2
  std::vector<std::pair<TokenId, float>> logit_bias;  // each -100..100
  std::optional<std::uint64_t> seed;
  std::int32_t min_tokens = 0;
  bool ignore_eos = false;
  std::vector<TokenId> stop_token_ids;
  std::vector<std::string> stop;  // none empty
  bool include_stop_text = false;
  std::int32_t n = 1;
  std::int32_t priority = 0;
  std::string cache_salt;
};

struct StreamFields {
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  bool include_progress = false;  // comments with queue position and prompt progress
  bool resumable = false;         // numbered events; outlives its connection
};

}  // namespace strata::api
