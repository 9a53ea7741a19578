// What became of one request, as the client saw it. Times in seconds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace strata::loadgen {

struct Outcome {
  bool success = false;
  int status = 0;           // HTTP; 0: no answer came
  std::string error;        // of a failure: what kind it was
  double due = 0;           // when the arrival process wanted it, after the start of the run
  double start = 0;         // sent, after the start of the run
  double queue = 0;         // waited for --max-concurrency before it was sent
  double ttft = 0;          // from `start` to the first chunk with a choice
  double latency = 0;       // to the last such chunk; of a failure: to its end
  std::vector<double> itl;  // between such chunks
  double server_time = -1;  // openai-processing-ms of the answer; negative: not told
  std::int64_t input_tokens = 0;
  std::int64_t output_tokens = 0;
  std::string text;

  bool rejected() const { return status == 429; }
};

}  // namespace strata::loadgen
