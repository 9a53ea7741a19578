// `strata bench serve`: measures a running OpenAI-compatible server under load.
#include <fmt/chrono.h>
#include <fmt/core.h>
#include <sys/resource.h>

#include <cmath>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>

#include "app/commands.h"
#include "app/exit_code.h"
#include "app/serve_setup.h"
#include "base/result.h"
#include "loadgen/figures.h"
#include "loadgen/five_users.h"
#include "loadgen/http_client.h"
#include "loadgen/report.h"
#include "loadgen/runner.h"
#include "loadgen/spec_decode.h"
#include "loadgen/workload.h"

namespace strata::app {
namespace {

using loadgen::LoadOptions;
using loadgen::Outcome;
using loadgen::Prompt;
using loadgen::RunResult;

// A run may hold more connections than a shell's limit lets a program open.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

void warm_up(const loadgen::Target& target, LoadOptions options,
             const std::vector<Prompt>& prompts) {
  if (options.num_warmups == 0) return;
  fmt::print("Warming up with {} requests...\n", options.num_warmups);
  options.request_rate = std::numeric_limits<double>::infinity();
  loadgen::run_load(
      target, options,
      std::vector<Prompt>(static_cast<std::size_t>(options.num_warmups), prompts.front()));
}

void announce(const LoadOptions& options) {
  const bool poisson = options.burstiness == 1.0;
  fmt::print("Starting main benchmark run...\nTraffic request rate: {}\n", options.request_rate);
  fmt::print("Burstiness factor: {} ({})\n", options.burstiness,
             poisson ? "Poisson process" : "Gamma distribution");
  fmt::print("Maximum request concurrency: {}\n",
             options.max_concurrency > 0 ? std::to_string(options.max_concurrency) : "None");
  std::fflush(stdout);
}

void save(const std::string& json, const LoadOptions& options, const loadgen::RunLabels& labels) {
  if (!options.save_result) return;
  if (!options.result_dir.empty()) {
    std::error_code error;
    std::filesystem::create_directories(options.result_dir, error);
    if (error)
      throw StartupError(
          fmt::format("cannot make the folder {}: {}", options.result_dir, error.message()),
          "check --result-dir", kExitFailure);
  }
  const std::string path = loadgen::result_path(options, labels);
  std::ofstream out(path, std::ios::binary);
  out << json << '\n';
  out.flush();
  if (!out) throw StartupError("cannot write " + path, "check --result-filename", kExitFailure);
}

// Servers without this route, or without drafts, have nothing to tell.
std::optional<loadgen::SpecDecodeCounts> spec_decode_counts(const loadgen::Target& target,
                                                            const LoadOptions& options) {
  const auto answer = loadgen::http_get(target, "/metrics", loadgen::request_headers(options));
  if (!answer.error.empty() || answer.status != 200) return std::nullopt;
  return loadgen::read_spec_decode(answer.body);
}

struct Measured {
  RunResult run;
  std::optional<loadgen::SpecDecode> spec_decode;
};

Measured measure(const loadgen::Target& target, const LoadOptions& options,
                 const std::vector<Prompt>& prompts) {
  const auto before = spec_decode_counts(target, options);
  Measured out{loadgen::run_load(target, options, prompts), std::nullopt};
  if (before)
    out.spec_decode = loadgen::spec_decode_between(before, spec_decode_counts(target, options));
  return out;
}

int report(const Measured& measured, const LoadOptions& options, const loadgen::RunLabels& labels,
           const std::string& extra) {
  const RunResult& run = measured.run;
  loadgen::Figures figures = loadgen::figures_of(run.outcomes, run.duration, options);
  figures.spec_decode = measured.spec_decode;
  fmt::print("{}", loadgen::format_table(figures, options));
  save(loadgen::result_json(figures, run, options, labels, extra), options, labels);
  return figures.completed > 0 ? kExitOk : kExitFailure;
}

// The load twice: with answers as the model ends them, or of a fixed length, for the times, and
// with long ones, for the speed.
int run_five_users(const loadgen::Target& target, const LoadOptions& options,
                   const loadgen::RunLabels& labels) {
  const bool chat = options.api == loadgen::Api::kChat;
  const auto prompts = loadgen::five_users_prompts(
      options, chat ? loadgen::kFiveUsersAnswer : loadgen::kFiveUsersCompletion);
  LoadOptions longer = options;
  longer.ignore_eos = true;
  warm_up(target, options, prompts);
  const Measured natural = measure(target, chat ? options : longer, prompts);
  const RunResult long_answers = loadgen::run_load(
      target, longer, loadgen::five_users_prompts(options, loadgen::kFiveUsersAnswer));
  const auto figures = loadgen::five_users_of(natural.run.outcomes, long_answers.outcomes);
  const int code = report(natural, options, labels, loadgen::five_users_json(figures));
  fmt::print("{}", loadgen::format_five_users(figures));
  return figures.failed > 0 ? kExitFailure : code;
}

}  // namespace

int run_bench_serve(const Options& given) {
  LoadOptions options = given.load;
  const std::string url =
      options.base_url.empty() ? address_url(options.host, options.port) : options.base_url;
  const loadgen::Target target = loadgen::parse_target(url);
  raise_descriptor_limit();
  if (options.model.empty()) {
    options.model = loadgen::first_model(target, options);
    fmt::print("First model of the server: {}\n", options.model);
  }
  const loadgen::RunLabels labels{
      fmt::format("{:%Y%m%d-%H%M%S}", fmt::localtime(std::time(nullptr))), options.model};
  if (options.preset == loadgen::Preset::kFiveUsers) {
    loadgen::apply_five_users(options);
    return run_five_users(target, options, labels);
  }
  const std::vector<Prompt> prompts = loadgen::make_prompts(options);
  warm_up(target, options, prompts);
  announce(options);
  return report(measure(target, options, prompts), options, labels, {});
}

}  // namespace strata::app
