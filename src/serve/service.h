// Service: the OpenAI-compatible API and the chat page as one http::Handler.
//
// app/ builds it once, hands handler() to http::Server and destroys the server first. The handler
// runs on http threads; a session lives on its connection's executor and meets the engine only in
// Engine::submit, Engine::abort and its TokenStream.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/engine.h"
#include "http/server.h"
#include "metrics/server_metrics.h"
#include "serve/rate_limiter.h"
#include "tokenizer/tokenizer.h"

namespace strata::serve {

// What a request that leaves a field out gets: generation_config.json, or flags over it.
struct SamplingDefaults {
  double temperature = 1.0;
  double top_p = 1.0;
  int top_k = 0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
};

struct ServiceOptions {
  // At least one; the first is the label of metrics and answers to every name not listed.
  std::vector<std::string> model_names;
  std::vector<std::string> api_keys;  // empty: any key, and none, is accepted
  // Refuse Host headers that name neither this machine nor an allowed origin (DNS rebinding): for
  // a loopback address without a key.
  bool check_host = false;
  std::vector<std::string> allowed_origins;  // beside the own one and local ones; "*": every
  std::string version = "0.0.0";
  std::string fingerprint;   // system_fingerprint; empty: made from the version
  std::string current_date;  // YYYY-MM-DD of every prompt; empty: today, UTC
  std::int64_t created = 0;  // Unix time of /v1/models; 0: now
  SamplingDefaults sampling;
  int max_logprobs = 20;
  int keep_alive_ms = 10'000;  // comments while a stream is silent
  std::uint64_t seed = 0;      // 0: requests that name no seed get random ones
  RateLimits key_limits;       // of each API key, or of all clients together without keys
  int resume_ms = 60'000;      // a resumable stream waits that long for its client
  std::size_t resume_bytes = 512U << 10;      // of events kept per resumable stream
  std::size_t turn_memory_bytes = 16U << 20;  // for exact tokens of answers; 0: none are kept
  bool sleep_mode = false;                    // clients may put the engine to sleep and wake it
  std::string plan_json;                      // of GET /plan; empty: there is no plan
};

struct Context;

class Service {
 public:
  // All references must outlive the service and every open exchange.
  Service(ServiceOptions options, const tokenizer::Tokenizer& tokenizer, Engine& engine,
          metrics::ServerMetrics& metrics, const Clock* clock = nullptr);
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  http::Handler handler();

  // An OpenAI error object for what http refuses before a request exists: give it to
  // http::ServerOptions::error_response.
  static http::Response framing_error(int status, std::string_view message);

  // Any thread. Readiness turns 503 and new work is refused; running requests go on.
  void begin_drain();
  // Any thread. Whatever still runs is ended with an error, which its client is told.
  void end_all();
  // Requests with a session that is not finished.
  int active_requests() const;

 private:
  std::shared_ptr<Context> context_;
};

}  // namespace strata::serve
