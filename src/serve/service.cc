#include "serve/service.h"

#include "base/log.h"
#include "serve/call.h"
#include "serve/context.h"
#include "serve/errors.h"
#include "serve/routes.h"
#include "serve/session.h"

namespace strata::serve {
namespace {

void handle(const std::shared_ptr<Context>& context, std::shared_ptr<http::Exchange> exchange) {
  const auto call = std::make_shared<Call>(context, std::move(exchange));
  try {
    route(call);
  } catch (const std::exception& failure) {
    // A request never takes the server down with it.
    log_error("request {}: failed: {}", call->id(), failure.what());
    call->fail({ErrorCode::kInternal, "the server failed to handle this request", {}, {}, 0});
  }
}

}  // namespace

Service::Service(ServiceOptions options, const tokenizer::Tokenizer& tokenizer, Engine& engine,
                 metrics::ServerMetrics& metrics, const Clock* clock)
    : context_(std::make_shared<Context>(std::move(options), tokenizer, engine, metrics, clock)) {}

Service::~Service() { context_->streams.clear(); }

http::Handler Service::handler() {
  return [context = context_](std::shared_ptr<http::Exchange> exchange) {
    handle(context, std::move(exchange));
  };
}

http::Response Service::framing_error(int status, std::string_view message) {
  auto response = error_response(error_of_status(status, message));
  response.status = status;
  return response;
}

void Service::begin_drain() { context_->draining = true; }
void Service::end_all() {
  for (const auto& session : context_->streams.running())
    session->post([session] { session->shut_down(); });
}
int Service::active_requests() const { return context_->active; }

}  // namespace strata::serve
