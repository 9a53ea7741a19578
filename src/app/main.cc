// strata: the program. Parses the command line, runs one command and turns start-up errors into
// a message and an exit code.
#include <fmt/core.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "app/commands.h"
#include "app/exit_code.h"
#include "app/options.h"
#include "app/signals.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/result.h"

namespace strata::app {
namespace {

// Commands that talk to a person on the same terminal log little.
LogLevel log_level(const Options& options) {
  if (options.log_level.empty())
    return options.command == Command::kServe ? LogLevel::kInfo : LogLevel::kWarn;
  if (options.log_level == "debug") return LogLevel::kDebug;
  if (options.log_level == "warning") return LogLevel::kWarn;
  return options.log_level == "error" ? LogLevel::kError : LogLevel::kInfo;
}

int run(const Options& options, SignalWatcher& signals) {
  switch (options.command) {
    case Command::kServe: return run_serve(options, signals);
    case Command::kChat: return run_chat(options, signals);
    case Command::kBench: return run_bench(options);
    case Command::kPlan: return run_plan(options);
    case Command::kBenchServe: return run_bench_serve(options);
  }
  return kExitUsage;
}

int start(std::vector<std::string> arguments) {
  const ParsedCommandLine parsed = parse_command_line(std::move(arguments), read_environment());
  if (parsed.text) {
    fmt::print("{}", *parsed.text);
    return kExitOk;
  }
  const Options& options = parsed.options;
  set_log_level(log_level(options));
  for (const std::string& note : parsed.notes) log_warn("{}", note);
  if (!options.fault_inject.empty()) {
    if (const auto armed = fault::arm(options.fault_inject); !armed)
      throw StartupError(armed.error().message, {}, kExitUsage);
    log_warn("fault points are armed: {}", options.fault_inject);
  }
  std::signal(SIGPIPE, SIG_IGN);
  SignalWatcher signals;
  return run(options, signals);
}

}  // namespace
}  // namespace strata::app

int main(int argc, char** argv) {
  using namespace strata;
  try {
    return app::start({argv + 1, argv + argc});
  } catch (const StartupError& error) {
    fmt::print(stderr, "strata: {}\n", error.what());
    if (!error.hint().empty()) fmt::print(stderr, "hint: {}\n", error.hint());
    return error.exit_code();
  } catch (const std::exception& error) {
    fmt::print(stderr, "strata: unexpected failure: {}\n", error.what());
    return app::kExitFailure;
  }
}
