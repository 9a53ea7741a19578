#include "serve/routes.h"

#include <fmt/format.h>

#include <array>

#include "api/completion_request.h"
#include "api/objects.h"
#include "serve/chat_session.h"
#include "serve/completion_session.h"
#include "serve/errors.h"
#include "serve/page.h"
#include "serve/prompt.h"
#include "serve/stream_routes.h"

namespace strata::serve {
namespace {

using CallRef = std::shared_ptr<Call>;

http::Response json(std::string body, int status = 200) {
  http::Response response;
  response.status = status;
  response.body = std::move(body);
  return response;
}

std::optional<Error> not_serving(const Context& context) {
  const auto info = context.engine.info();
  if (context.draining || info->health == Health::kDraining)
    return Error{ErrorCode::kUnavailable, "the server is shutting down", {}, "draining", 1};
  if (info->health == Health::kStarting)
    return Error{ErrorCode::kUnavailable, "the model is being loaded", {}, "loading", 1};
  if (info->health == Health::kSleeping)
    return Error{
        ErrorCode::kUnavailable, "the server sleeps; POST /wake_up wakes it", {}, "sleeping", 0};
  if (info->health == Health::kDead)
    return Error{ErrorCode::kUnavailable, "the inference engine has stopped", {}, "engine_dead", 0};
  return std::nullopt;
}

template <typename SessionType>
void generate(const CallRef& call) {
  if (const auto error = not_serving(call->context())) return call->fail(*error);
  if (const auto admitted = call->admit(); !admitted) {
    call->context().metrics.admission_rejected("rate_limit");
    return call->fail(admitted.error());
  }
  SessionType::serve(call);
}

void health_live(const CallRef& call) {
  const auto info = call->context().engine.info();
  const bool dead = info->health == Health::kDead;
  call->respond(json(dead ? R"({"status":"dead"})" : R"({"status":"alive"})", dead ? 503 : 200));
}

void health(const CallRef& call) {
  const auto info = call->context().engine.info();
  const bool up = info->health == Health::kReady || info->health == Health::kDraining ||
                  info->health == Health::kSleeping;
  if (up) return call->respond(json(R"({"status":"ok"})"));
  call->fail(*not_serving(call->context()));
}

void health_ready(const CallRef& call) {
  if (const auto error = not_serving(call->context())) return call->fail(*error);
  const auto info = call->context().engine.info();
  call->respond(json(fmt::format(R"({{"status":"ready","running":{},"waiting":{}}})", info->running,
                                 info->waiting)));
}

void version(const CallRef& call) {
  call->respond(json(api::text_object("version", call->context().options.version)));
}

api::ModelCard card(const Context& context, const std::string& name) {
  return {name, context.created, context.engine.info()->max_model_len};
}

void models(const CallRef& call) {
  const auto& context = call->context();
  std::vector<api::ModelCard> cards;
  for (const auto& name : context.options.model_names) cards.push_back(card(context, name));
  call->respond(json(api::model_list(cards)));
}

void model(const CallRef& call, const std::string& name) {
  const auto& context = call->context();
  for (const auto& known : context.options.model_names)
    if (known == name) return call->respond(json(api::model_object(card(context, name))));
  call->fail({ErrorCode::kNotFound, fmt::format("the model \"{}\" is not served here", name),
              "model", "model_not_found", 0});
}

void tokenize(const CallRef& call) {
  const auto& context = call->context();
  const auto request = api::parse_tokenize_request(call->request().body);
  if (!request) return call->fail(request.error());
  std::vector<TokenId> tokens;
  if (request->prompt) {
    tokens = context.tokenizer.encode(*request->prompt);
  } else {
    const auto chat = api::parse_chat_request(call->request().body, context.limits());
    if (!chat) return call->fail(chat.error());
    auto rendered = render_chat(*chat, context);
    if (!rendered) return call->fail(rendered.error());
    tokens = std::move(*rendered);
  }
  std::vector<std::string_view> texts;
  for (const TokenId id : tokens) texts.push_back(context.tokenizer.token_bytes(id));
  call->respond(json(api::token_list(tokens, context.engine.info()->max_model_len,
                                     request->return_token_texts ? &texts : nullptr)));
}

void detokenize(const CallRef& call) {
  const auto& context = call->context();
  const auto tokens = api::parse_detokenize_request(call->request().body, context.limits());
  if (!tokens) return call->fail(tokens.error());
  call->respond(json(api::text_object("prompt", context.tokenizer.decode(*tokens))));
}

void apply_template(const CallRef& call) {
  const auto& context = call->context();
  const auto chat = api::parse_chat_request(call->request().body, context.limits());
  if (!chat) return call->fail(chat.error());
  const auto tokens = render_chat(*chat, context);
  if (!tokens) return call->fail(tokens.error());
  call->respond(json(api::template_object(context.tokenizer.decode(*tokens), *tokens)));
}

// The engine's snapshot as metrics take it.
metrics::EngineGauges engine_gauges(const EngineInfo& info) {
  metrics::EngineGauges out;
  out.running = info.running;
  out.waiting = info.waiting;
  if (info.total_pages > 0)
    out.kv_usage = 1.0 - static_cast<double>(info.free_pages) / info.total_pages;
  out.steps = info.steps;
  out.rows = info.rows;
  out.step_rows = info.step_rows;
  out.prefix_query_tokens = info.prefix_query_tokens;
  out.prefix_hit_tokens = info.prefix_hit_tokens;
  const auto& times = info.step_times;
  out.step_seconds = {to_seconds(times.schedule), to_seconds(times.compute),
                      to_seconds(times.sample), to_seconds(times.host)};
  out.preemptions = info.preemptions;
  out.preemptions_swapped = info.preemptions_swapped;
  out.preemptions_recomputed = info.preemptions_recomputed;
  out.sleeping = !info.loaded;
  out.unloads = info.unloads;
  out.rebuilds = info.rebuilds;
  out.safe_mode = info.safe_mode;
  out.breaker_trips = info.breaker_trips;
  out.memory_failures = info.memory_failures;
  out.pages_swapped_out = info.pages_swapped_out;
  out.pages_swapped_in = info.pages_swapped_in;
  return out;
}

void scrape(const CallRef& call) {
  auto& context = call->context();
  const auto info = context.engine.info();
  context.metrics.set_cache_config(
      {info->model.page_tokens, info->model.num_pages, info->max_model_len});
  auto response = json(context.metrics.render(engine_gauges(*info)));
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  call->respond(std::move(response));
}

// What the engine says when it has done what was asked, on the call's own executor.
Engine::Done answer_when_done(const CallRef& call) {
  return [call](const Result<void>& done) {
    call->exchange().post([call, done] {
      if (!done) return call->fail(done.error());
      call->respond(json("{}"));
    });
  };
}

// True: refused.
bool sleep_is_off(const CallRef& call) {
  if (call->context().options.sleep_mode) return false;
  call->fail({ErrorCode::kForbidden,
              "start the server with --enable-sleep-mode to allow this",
              {},
              "sleep_mode_off",
              0});
  return true;
}

void go_to_sleep(const CallRef& call) {
  if (!sleep_is_off(call)) call->context().engine.sleep(answer_when_done(call));
}

void wake_up(const CallRef& call) {
  if (!sleep_is_off(call)) call->context().engine.wake(answer_when_done(call));
}

void is_sleeping(const CallRef& call) {
  const bool asleep = call->context().engine.info()->health == Health::kSleeping;
  call->respond(json(asleep ? R"({"is_sleeping":true})" : R"({"is_sleeping":false})"));
}

void plan(const CallRef& call) {
  const auto& text = call->context().options.plan_json;
  if (!text.empty()) return call->respond(json(text));
  call->fail({ErrorCode::kNotFound, "this model has no memory plan", {}, "no_plan", 0});
}

void wrong_method(const CallRef& call, const std::string& allowed) {
  const auto first = allowed.substr(0, allowed.find(','));
  call->add_header("Allow", allowed);
  call->fail({ErrorCode::kMethodNotAllowed,
              fmt::format("{} is not possible here; use {}", call->request().method, first),
              {},
              {},
              0});
}

struct Route {
  std::string_view path;   // canonical
  bool post = false;       // else GET and HEAD
  bool is_public = false;  // needs no key
  void (*run)(const CallRef&) = nullptr;
};

constexpr std::array<Route, 18> kRoutes = {{
    {"/chat/completions", true, false, generate<ChatSession>},
    {"/completions", true, false, generate<CompletionSession>},
    {"/models", false, false, models},
    {"/tokenize", true, false, tokenize},
    {"/detokenize", true, false, detokenize},
    {"/apply-template", true, false, apply_template},
    {"/metrics", false, false, scrape},
    {"/plan", false, false, plan},
    {"/sleep", true, false, go_to_sleep},
    {"/wake_up", true, false, wake_up},
    {"/is_sleeping", false, false, is_sleeping},
    {"/version", false, false, version},
    {"/health", false, true, health},
    {"/health/live", false, true, health_live},
    {"/health/ready", false, true, health_ready},
    {"/livez", false, true, health_live},
    {"/readyz", false, true, health_ready},
    {"/ping", false, true, health},
}};
// Routes with a name in their path: `before` NAME `after`.
struct NamedRoute {
  std::string_view before;
  std::string_view after;
  std::string_view label;
  std::string_view method;
  void (*run)(const CallRef&, const std::string& name) = nullptr;
};

constexpr std::array<NamedRoute, 5> kNamedRoutes = {{
    {"/models/", "", "/models/{id}", "GET", model},
    {"/models/", "", "/models/{id}", "HEAD", model},
    {"/streams/", "", "/streams/{id}", "GET", resume_stream},
    {"/streams/", "", "/streams/{id}", "DELETE", delete_stream},
    {"/chat/completions/", "/answer_now", "/chat/completions/{id}/answer_now", "POST", answer_now},
}};

bool fits(const NamedRoute& one, std::string_view path) {
  return path.size() > one.before.size() + one.after.size() && path.starts_with(one.before) &&
         path.ends_with(one.after);
}

// Methods of the named routes at `path`, as an Allow header has them; empty: there are none.
std::string named_methods(std::string_view path) {
  std::string out;
  for (const auto& one : kNamedRoutes)
    if (fits(one, path)) out += fmt::format("{}, ", one.method);
  return out.empty() ? out : out + "OPTIONS";
}

// False: there is no such route.
bool run_named(const CallRef& call, std::string_view path) {
  const auto& request = call->request();
  const auto allowed = named_methods(path);
  if (allowed.empty()) return false;
  const NamedRoute* found = nullptr;
  for (const auto& one : kNamedRoutes) {
    if (!fits(one, path)) continue;
    call->set_route(one.label);
    if (one.method == request.method) found = &one;
  }
  if (const auto error = call->context().access.check_key(request)) {
    call->fail(*error);
  } else if (found != nullptr) {
    const auto size = path.size() - found->before.size() - found->after.size();
    found->run(call, std::string(path.substr(found->before.size(), size)));
  } else {
    wrong_method(call, allowed);
  }
  return true;
}

const Route* find_route(std::string_view path) {
  for (const auto& one : kRoutes)
    if (one.path == path) return &one;
  return nullptr;
}

void run(const CallRef& call, const Route& found) {
  const auto& request = call->request();
  call->set_route(found.path);
  if (!found.is_public)
    if (const auto error = call->context().access.check_key(request)) return call->fail(*error);
  const bool reads = request.method == "GET" || request.method == "HEAD";
  if (found.post ? request.method != "POST" : !reads) {
    return wrong_method(call, found.post ? "POST, OPTIONS" : "GET, HEAD, OPTIONS");
  }
  if (found.post && request.header("content-type").starts_with("multipart/"))
    return call->fail({ErrorCode::kUnsupportedMedia,
                       "the body must be application/json",
                       {},
                       "unsupported_media_type",
                       0});
  found.run(call);
}

}  // namespace

std::string canonical_path(std::string_view path) {
  std::string out;
  for (const char c : path)
    if (c != '/' || out.empty() || out.back() != '/') out += c;
  if (out.size() > 1 && out.back() == '/') out.pop_back();
  if (out.starts_with("/v1/")) out.erase(0, 3);
  return out;
}

void route(const CallRef& call) {
  const auto& request = call->request();
  const auto& access = call->context().access;
  call->context().streams.sweep(call->arrival());
  if (const auto error = access.check_host(request)) return call->fail(*error);
  if (const auto error = access.check_origin(request); error && request.method != "OPTIONS")
    return call->fail(*error);
  const auto path = canonical_path(request.path);
  const auto* found = find_route(path);
  if (request.method == "OPTIONS") {
    const bool post = found != nullptr && found->post;
    auto methods = named_methods(path);
    if (methods.empty()) methods = post ? "POST, OPTIONS" : "GET, HEAD, OPTIONS";
    return call->respond(access.preflight(request, methods));
  }
  if (found != nullptr) return run(call, *found);
  if (run_named(call, path)) return;
  const bool reads = request.method == "GET" || request.method == "HEAD";
  if (auto page = page_response(path); page && reads) {
    call->set_route("/chat");
    return call->respond(std::move(*page));
  }
  if (const auto error = access.check_key(request)) return call->fail(*error);
  call->fail({ErrorCode::kNotFound,
              fmt::format("there is no {} {} here", request.method, request.path.substr(0, 128)),
              {},
              "unknown_url",
              0});
}

}  // namespace strata::serve
