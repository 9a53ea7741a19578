// `strata serve`: the composition root of the server, and its life from binding to draining.
#include <fmt/core.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "app/commands.h"
#include "app/exit_code.h"
#include "app/model_setup.h"
#include "app/serve_setup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/queue.h"
#include "http/server.h"
#include "metrics/server_metrics.h"
#include "serve/service.h"

namespace strata::app {
namespace {

using std::chrono::milliseconds;

// The port is bound before the model is loaded, so that a taken one is reported at once. Until the
// service exists every request is answered with 503. Any thread.
class LoadingGate {
 public:
  void open(http::Handler handler) {
    handler_ = std::move(handler);
    open_.store(true, std::memory_order_release);
  }
  void handle(std::shared_ptr<http::Exchange> exchange) const {
    if (open_.load(std::memory_order_acquire)) return handler_(std::move(exchange));
    http::Response loading = serve::Service::framing_error(503, "the model is being loaded");
    loading.headers.emplace_back("Retry-After", "1");
    exchange->respond(std::move(loading));
  }

 private:
  http::Handler handler_;  // written before open_ is set
  std::atomic<bool> open_{false};
};

// Everything `serve` owns; destroyed from the last member to the first.
struct Running {
  std::unique_ptr<ModelSetup> setup;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<metrics::ServerMetrics> metrics;
  std::unique_ptr<serve::Service> service;
  LoadingGate gate;
  std::unique_ptr<http::Server> server;
};

// Events of other threads for the main thread. Shared, because a signal may come at any time.
struct Events {
  WakeEvent wake;
  std::atomic<int> signal{0};
  std::atomic<bool> drained{false};
};

void bind_server(const Options& options, Running& running) {
  try {
    running.server = std::make_unique<http::Server>(
        http_options(options), [&gate = running.gate](std::shared_ptr<http::Exchange> exchange) {
          gate.handle(std::move(exchange));
        });
  } catch (const StartupError& error) {
    throw StartupError(error.what(), error.hint(), kExitAddress);
  }
  log_info("listening on {}", address_url(options.host, running.server->port()));
}

void warn_if_exposed(const Options& options) {
  if (!options.api_keys.empty() || is_loopback(options.host)) return;
  log_warn("anyone who can reach {} can use this server: no API key is set", options.host);
  log_warn("to ask for a key restart with --api-key, for example: --api-key {}", make_api_key());
}

std::int64_t weights_bytes(const MemoryPlan& plan) {
  std::int64_t bytes = 0;
  for (const auto& line : plan.lines)
    if (line.name.starts_with("weights.")) bytes += line.bytes;
  return bytes;
}

void load(const Options& options, Running& running) {
  const Clock clock;
  const Nanos begin = clock.now();
  running.setup = std::make_unique<ModelSetup>(options);
  const ModelSetup& setup = *running.setup;
  log_info("loading {}", setup.description());
  running.engine = make_engine(setup);
  serve::ServiceOptions service = service_options(options, setup.name(), setup.directory());
  service.plan_json = plan_json(setup.plan());
  running.metrics = std::make_unique<metrics::ServerMetrics>(service.model_names.front());
  const auto info = running.engine->info();
  running.metrics->set_cache_config(
      {info->model.page_tokens, info->model.num_pages, info->max_model_len});
  running.metrics->set_weights_bytes(weights_bytes(setup.plan()));
  running.service = std::make_unique<serve::Service>(std::move(service), setup.tokenizer(),
                                                     *running.engine, *running.metrics);
  running.gate.open(running.service->handler());
  log_info("loaded in {:.2f} s: backend {}, {} threads, context {} tokens, {} sequences at once",
           to_seconds(clock.now() - begin), info->model.backend, setup.threads(),
           info->max_model_len, setup.options().max_num_seqs);
}

// These two lines are an interface: scripts and service managers wait for them.
void announce_ready(const Options& options, std::uint16_t port) {
  fmt::print("INFO:     Application startup complete.\n");
  fmt::print("Strata ready at {}\n", address_url(options.host, port));
  std::fflush(stdout);
}

// What still runs is ended with an error event; clients get a moment to read it.
void tell_and_wait(Running& running) {
  running.service->end_all();
  for (int tick = 0; tick < 100 && running.service->active_requests() > 0; ++tick)
    std::this_thread::sleep_for(milliseconds(10));
}

// Lets running answers finish, for at most --drain-timeout.
void drain(const Options& options, Running& running, const std::shared_ptr<Events>& events) {
  running.service->begin_drain();
  log_info("draining: new requests are refused, running ones get {} s", options.drain_timeout_s);
  running.engine->drain([events] {
    events->drained = true;
    events->wake.set();
  });
  const Clock clock;
  const Nanos deadline = clock.now() + Nanos{options.drain_timeout_s} * 1'000'000'000;
  // Sessions finish a little after the engine: their last events are still being sent.
  while (!events->drained || running.service->active_requests() > 0) {
    if (clock.now() >= deadline) {
      log_warn("drain timeout: {} requests are cut off", running.service->active_requests());
      return tell_and_wait(running);
    }
    events->wake.wait_for(milliseconds(20));
  }
}

// The engine gave up: rebuilding did not help, or a call into the device never came back. A thread
// that hangs cannot be joined, so the process ends without destructors once clients have heard.
[[noreturn]] void exit_dead(Running& running, const std::string& reason) {
  log_error("the engine is dead: {}", reason);
  running.server->stop_accepting();
  running.service->begin_drain();
  for (int tick = 0; tick < 100 && running.service->active_requests() > 0; ++tick)
    std::this_thread::sleep_for(milliseconds(20));
  std::_Exit(kExitFailure);
}

int supervise(const Options& options, Running& running, const std::shared_ptr<Events>& events) {
  while (events->signal == 0) {
    events->wake.wait_for(milliseconds(500));
    const auto info = running.engine->info();
    if (info->health == Health::kDead) exit_dead(running, info->death_reason);
  }
  log_info("signal {}", events->signal.load());
  drain(options, running, events);
  log_info("stopped");
  return kExitOk;
}

}  // namespace

int run_serve(const Options& options, SignalWatcher& signals) {
  const auto events = std::make_shared<Events>();
  Running running;
  bind_server(options, running);
  warn_if_exposed(options);
  load(options, running);
  signals.on_signal([events](int signal, int earlier) {
    if (earlier > 0) SignalWatcher::exit_now(signal);
    events->signal = signal;
    events->wake.set();
  });
  announce_ready(options, running.server->port());
  const int code = supervise(options, running, events);
  running.server->stop_accepting();
  // Nothing can be destroyed around a thread that hangs in the device.
  if (running.engine->info()->hung_models > 0) std::_Exit(code);
  return code;
}

}  // namespace strata::app
