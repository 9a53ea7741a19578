#include "serve/stream_routes.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <string_view>

#include "api/chat_response.h"
#include "api/objects.h"
#include "serve/event_log.h"
#include "serve/session.h"
#include "serve/stream_registry.h"

namespace strata::serve {
namespace {

Error unknown_stream() {
  return {ErrorCode::kNotFound,
          "there is no such stream: it was not resumable, has expired or belongs to another key",
          "id", "stream_not_found", 0};
}

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return out;
}

// The value of `from` in a query; empty when it is not there.
std::string_view from_of(std::string_view query) {
  while (!query.empty()) {
    const auto end = query.find('&');
    const auto pair = query.substr(0, end);
    if (pair.starts_with("from=")) return pair.substr(5);
    query = end == std::string_view::npos ? std::string_view() : query.substr(end + 1);
  }
  return {};
}

// The number of the first event that is wanted; 0: whatever is there.
Result<std::uint64_t> first_wanted(const http::Request& request) {
  if (const auto from = from_of(request.query); !from.empty()) {
    if (const auto first = number(from)) return *first;
    return invalid("must be the number of an event", "from");
  }
  const auto last = request.header("last-event-id");
  if (last.empty()) return 0;
  if (const auto seen = number(last)) return *seen + 1;
  return invalid("must be the number of an event", "Last-Event-ID");
}

// For as long as this client reads.
void keep_alive(const std::shared_ptr<Call>& call, const std::shared_ptr<EventLog>& log) {
  const std::weak_ptr<Call> weak = call;
  call->exchange().post_after(call->context().options.keep_alive_ms, [weak, log] {
    const auto reader = weak.lock();
    if (reader && log->comment_to(reader.get(), std::string(api::kKeepAliveComment)))
      keep_alive(reader, log);
  });
}

}  // namespace

void resume_stream(const std::shared_ptr<Call>& call, const std::string& id) {
  const auto first = first_wanted(call->request());
  if (!first) return call->fail(first.error());
  const auto log = call->context().streams.find(id, call->client()).log;
  if (!log) return call->fail(unknown_stream());
  call->add_header("x-strata-stream-id", id);
  if (const auto attached = log->attach(call, *first); !attached)
    return call->fail(attached.error());
  call->exchange().on_close([call, log] {
    // Not at once: the log may be writing, which is how the client was found to be gone.
    call->exchange().post([call, log] { log->detach(call.get()); });
  });
  keep_alive(call, log);
}

void delete_stream(const std::shared_ptr<Call>& call, const std::string& id) {
  auto& streams = call->context().streams;
  const auto found = streams.find(id, call->client());
  if (!found.log) return call->fail(unknown_stream());
  if (found.session) found.session->post([session = found.session] { session->cancel(); });
  streams.remove(id);
  http::Response response;
  response.body = fmt::format(R"({{"id":"{}","deleted":true}})", id);
  call->respond(std::move(response));
}

void answer_now(const std::shared_ptr<Call>& call, const std::string& id) {
  const auto session = call->context().streams.find(id, call->client()).session;
  if (!session)
    return call->fail({ErrorCode::kNotFound, "no such chat is running", "id", "chat_not_found", 0});
  // The session's state is its own executor's; an answer may be given on any.
  session->post([call, session, id] {
    http::Response response;
    response.body = fmt::format(R"({{"id":"{}","status":"{}"}})", id,
                                session->answer_now() ? "requested" : "answering");
    call->respond(std::move(response));
  });
}

}  // namespace strata::serve
