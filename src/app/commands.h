// The subcommands. Each runs on the main thread until it is finished and returns the exit code;
// start-up trouble is thrown as StartupError.
#pragma once

#include "app/options.h"
#include "app/signals.h"

namespace strata::app {

int run_serve(const Options& options, SignalWatcher& signals);
int run_chat(const Options& options, SignalWatcher& signals);
int run_bench(const Options& options);
int run_bench_serve(const Options& options);
int run_plan(const Options& options);

}  // namespace strata::app
