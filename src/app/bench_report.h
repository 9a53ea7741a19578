// The figures of one `strata bench` run and their two forms: a table for people, and one line of
// JSON for bench/history. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cpu/probe.h"
#include "kernels/stages.h"

namespace strata::app {

// Prompt processing or token generation.
struct BenchPhase {
  std::string name;         // "prompt", "decode"
  std::int64_t tokens = 0;  // of all sequences
  std::int64_t steps = 0;
  double seconds = 0.0;
  std::vector<kernels::StageStats> stages;

  double tokens_per_second() const;
  std::int64_t weight_bytes_per_step() const;
  double bytes_per_second() const;  // weights read
};

struct BenchReport {
  std::string model;
  std::string backend;
  std::string processor;
  int threads = 0;
  std::int32_t batch = 0;
  std::int32_t prompt_tokens = 0;
  std::int32_t output_tokens = 0;
  double load_seconds = 0.0;
  double roof = 0.0;        // bytes a second that this machine reads
  kernels::CpuPeaks peaks;  // multiply-adds a second
  double huge_pages = 0.0;  // bytes of this process
  std::int32_t context_tokens = 0;
  double load_average = 0.0;      // before the run
  double other_processors = 0.0;  // kept busy by other programs during the run
  std::uint64_t token_hash = 0;   // of every sampled token, in order
  BenchPhase prompt;
  BenchPhase decode;

  // Others took so much of the machine that the figures are too low.
  bool disturbed() const { return other_processors > 0.1; }
};

// The share of a stage's time that its reads or its multiply-adds would take at the measured roofs.
struct RoofShare {
  double share = 0.0;
  bool reading = true;  // that roof is the higher wall, else multiplying
};
RoofShare roof_share(const kernels::StageStats& stage, const BenchReport& report);

std::string format_report(const BenchReport& report);
std::string report_json(const BenchReport& report);

}  // namespace strata::app
