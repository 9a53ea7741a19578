// Sends the requests of a run and measures their answers. Open loop: a request is sent when its
// arrival is due (and --max-concurrency lets it), however slow earlier answers are.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "loadgen/http_client.h"
#include "loadgen/options.h"
#include "loadgen/outcome.h"
#include "loadgen/workload.h"

namespace strata::loadgen {

struct RunResult {
  std::vector<Outcome> outcomes;  // in the order of the prompts
  double duration = 0;            // seconds, from the start to the last answer
  Nanos began = 0;                // monotonic
};

// Headers of every request: key, content type, options.headers.
std::vector<std::pair<std::string, std::string>> request_headers(const LoadOptions& options);

// The path requests go to.
std::string endpoint_path(const LoadOptions& options);

// The first model of /v1/models. Throws StartupError.
std::string first_model(const Target& target, const LoadOptions& options);

// All requests on the calling thread; returns when each has its outcome.
RunResult run_load(const Target& target, const LoadOptions& options,
                   const std::vector<Prompt>& prompts);

}  // namespace strata::loadgen
