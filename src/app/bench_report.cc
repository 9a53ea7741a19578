#include "app/bench_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "app/version.h"
#include "base/json.h"

namespace strata::app {
namespace {

std::string stage_table(const BenchPhase& phase, const BenchReport& report) {
  std::string out = fmt::format("\n{}: {} steps\n{:<14} {:>7} {:>10} {:>7} {:>8} {:>16} {:>18}\n",
                                phase.name, phase.steps, "stage", "calls", "ms", "share", "GB/s",
                                "weight MB/step", "of its roof");
  for (const kernels::StageStats& stage : phase.stages) {
    const double seconds = static_cast<double>(stage.nanos) * 1e-9;
    const double bytes = static_cast<double>(stage.weight_bytes);
    const double all_bytes = bytes + static_cast<double>(stage.kv_bytes);
    const double rate = seconds > 0 ? all_bytes / seconds * 1e-9 : 0.0;
    const RoofShare roof = roof_share(stage, report);
    const double share = phase.seconds > 0 ? 100.0 * seconds / phase.seconds : 0.0;
    const double per_step = phase.steps > 0 ? bytes / static_cast<double>(phase.steps) : 0.0;
    out += fmt::format("{:<14} {:>7} {:>10.2f} {:>6.1f}% {:>8.2f} {:>16.3f} {:>6.0f} % {:<9}\n",
                       stage.name, stage.calls, seconds * 1e3, share, rate, per_step * 1e-6,
                       100.0 * roof.share, roof.reading ? "reading" : "computing");
  }
  return out;
}

std::string phase_line(const BenchPhase& phase, double roof) {
  const double rate = phase.bytes_per_second();
  return fmt::format(
      "{:<7} {:>10.2f} tok/s  {:>8.2f} GB/s of weights = {:.0f} % of the measured roof\n",
      phase.name, phase.tokens_per_second(), rate * 1e-9, roof > 0 ? 100.0 * rate / roof : 0.0);
}

void append_field(std::string& out, const char* key, const std::string& text) {
  fmt::format_to(std::back_inserter(out), "\"{}\":", key);
  append_json_string(out, text);
  out += ",";
}

void append_phase(std::string& out, const BenchPhase& phase) {
  fmt::format_to(std::back_inserter(out),
                 "\"{0}_tok_s\":{1:.3f},\"{0}_gb_s\":{2:.3f},\"{0}_weight_bytes_per_step\":{3},",
                 phase.name, phase.tokens_per_second(), phase.bytes_per_second() * 1e-9,
                 phase.weight_bytes_per_step());
  fmt::format_to(std::back_inserter(out), "\"{}_weight_bytes_by_stage\":{{", phase.name);
  for (const kernels::StageStats& stage : phase.stages) {
    append_json_string(out, stage.name);
    fmt::format_to(std::back_inserter(out), ":{},",
                   phase.steps > 0 ? stage.weight_bytes / phase.steps : 0);
  }
  if (!phase.stages.empty()) out.pop_back();  // the last comma
  out += "},";
}

}  // namespace

double BenchPhase::tokens_per_second() const {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
}

std::int64_t BenchPhase::weight_bytes_per_step() const {
  std::int64_t bytes = 0;
  for (const kernels::StageStats& stage : stages) bytes += stage.weight_bytes;
  return steps > 0 ? bytes / steps : 0;
}

double BenchPhase::bytes_per_second() const {
  const double bytes = static_cast<double>(weight_bytes_per_step()) * static_cast<double>(steps);
  return seconds > 0 ? bytes / seconds : 0.0;
}

RoofShare roof_share(const kernels::StageStats& stage, const BenchReport& report) {
  const auto over = [](double work, double roof) { return roof > 0 ? work / roof : 0.0; };
  const double bytes = static_cast<double>(stage.weight_bytes + stage.kv_bytes);
  const double reading = over(bytes, report.roof);
  const double computing = over(static_cast<double>(stage.float_adds), report.peaks.floats) +
                           over(static_cast<double>(stage.integer_adds), report.peaks.integers);
  const double seconds = static_cast<double>(stage.nanos) * 1e-9;
  return {over(std::max(reading, computing), seconds), reading >= computing};
}

std::string format_report(const BenchReport& report) {
  std::string out = fmt::format(
      "{} on {}, {} threads ({})\nloaded in {:.2f} s, {:.2f} GB in huge pages\n"
      "this machine reads {:.2f} GB/s; multiply-adds: float32 {:.0f} G/s, integer {:.0f} G/s\n"
      "batch {}, context {} tokens, prompt {} tokens, output {} tokens\n\n",
      report.model, report.backend, report.threads, report.processor, report.load_seconds,
      report.huge_pages * 1e-9, report.roof * 1e-9, report.peaks.floats * 1e-9,
      report.peaks.integers * 1e-9, report.batch, report.context_tokens, report.prompt_tokens,
      report.output_tokens);
  out += phase_line(report.prompt, report.roof);
  out += phase_line(report.decode, report.roof);
  out += stage_table(report.prompt, report);
  out += stage_table(report.decode, report);
  out += fmt::format("\ntoken hash {:016x}\n", report.token_hash);
  if (report.disturbed())
    out += fmt::format(
        "other programs kept {:.2f} processors busy (load average before: {:.2f}): these figures "
        "are too low\n",
        report.other_processors, report.load_average);
  return out;
}

std::string report_json(const BenchReport& report) {
  std::string out = "{";
  append_field(out, "version", kVersion);
  append_field(out, "model", report.model);
  append_field(out, "backend", report.backend);
  append_field(out, "processor", report.processor);
  fmt::format_to(std::back_inserter(out),
                 "\"threads\":{},\"batch\":{},\"prompt_tokens\":{},\"output_tokens\":{},"
                 "\"context_tokens\":{},\"load_s\":{:.3f},\"huge_pages_gb\":{:.3f},"
                 "\"roof_gb_s\":{:.3f},\"float_g_s\":{:.1f},\"integer_g_s\":{:.1f},",
                 report.threads, report.batch, report.prompt_tokens, report.output_tokens,
                 report.context_tokens, report.load_seconds, report.huge_pages * 1e-9,
                 report.roof * 1e-9, report.peaks.floats * 1e-9, report.peaks.integers * 1e-9);
  append_phase(out, report.prompt);
  append_phase(out, report.decode);
  fmt::format_to(std::back_inserter(out),
                 "\"token_hash\":\"{:016x}\",\"load_average\":{:.2f},\"other_processors\":{:.2f},"
                 "\"disturbed\":{}}}",
                 report.token_hash, report.load_average, report.other_processors,
                 report.disturbed());
  return out;
}

}  // namespace strata::app
