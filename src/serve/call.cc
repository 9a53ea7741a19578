#include "serve/call.h"

#include <fmt/format.h>

#include <utility>

#include "base/log.h"
#include "serve/errors.h"

namespace strata::serve {
namespace {

constexpr std::size_t kMaxIdBytes = 128;

// A client's own id is used when it is safe to echo and to log.
std::string request_id(const Context& context, const http::Request& request) {
  for (const char* name : {"x-client-request-id", "x-request-id"}) {
    const auto given = request.header(name);
    if (given.empty() || given.size() > kMaxIdBytes) continue;
    bool plain = true;
    for (const char c : given) plain = plain && c > ' ' && c < 0x7f && c != '"';
    if (plain) return std::string(given);
  }
  return context.make_id("req_");
}

// A label of metrics: what a client may invent must not become a series of its own.
std::string_view known_method(std::string_view method) {
  for (const std::string_view known : {"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"})
    if (method == known) return known;
  return "other";
}

}  // namespace

Call::Call(std::shared_ptr<Context> context, std::shared_ptr<http::Exchange> exchange)
    : context_(std::move(context)),
      exchange_(std::move(exchange)),
      id_(request_id(*context_, exchange_->request())),
      arrival_(context_->clock.now()),
      headers_(context_->access.cors_headers(exchange_->request())),
      client_(context_->access.client(exchange_->request())) {}

Result<void> Call::admit() {
  limited_ = true;
  auto lease = context_->limiter.admit(client_);
  if (!lease) return Unexpected(lease.error());
  lease_ = std::move(*lease);
  return {};
}

Result<void> Call::take_prompt(std::int64_t tokens) {
  return lease_ ? lease_->take_prompt(tokens) : Result<void>{};
}

void Call::take_answer(std::int64_t tokens) {
  if (lease_) lease_->take_answer(tokens);
}

void Call::add_header(std::string name, std::string value) {
  headers_.emplace_back(std::move(name), std::move(value));
}

void Call::add_headers(http::Response& response) {
  response.headers.emplace_back("x-request-id", id_);
  for (auto& header : headers_) response.headers.push_back(header);
  if (!limited_) return;
  for (auto& header : context_->limiter.headers(client_))
    response.headers.push_back(std::move(header));
}

void Call::record(int status, std::size_t bytes) {
  const double seconds = to_seconds(context_->clock.now() - arrival_);
  const auto method = known_method(request().method);
  context_->metrics.http_request({route_, method, status, seconds, request().body.size(), bytes});
  log_debug("request {}: {} {} {} {:.1f} ms", id_, method, route_, status, seconds * 1e3);
}

void Call::respond(http::Response response) {
  if (std::exchange(answered_, true)) return;
  add_headers(response);
  const double ms = to_seconds(context_->clock.now() - arrival_) * 1e3;
  response.headers.emplace_back("openai-processing-ms", fmt::format("{:.0f}", ms));
  record(response.status, response.body.size());
  exchange_->respond(std::move(response));
}

void Call::fail(const Error& error) { respond(error_response(error)); }

void Call::begin_events() {
  if (std::exchange(answered_, true)) return;
  http::Response head;
  head.content_type = "text/event-stream; charset=utf-8";
  head.headers = {{"Cache-Control", "no-store"}, {"X-Accel-Buffering", "no"}};
  add_headers(head);
  exchange_->start_stream(std::move(head));
}

void Call::write(std::string events) {
  bytes_written_ += events.size();
  exchange_->write(std::move(events));
}

void Call::end_events() {
  record(200, bytes_written_);
  exchange_->finish();
}

}  // namespace strata::serve
