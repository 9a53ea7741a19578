#include "serve/session.h"

#include <algorithm>
#include <utility>

#include "api/chat_response.h"
#include "api/objects.h"
#include "base/log.h"
#include "serve/errors.h"

namespace strata::serve {
namespace {

double milliseconds(Nanos from, Nanos to) {
  return from > 0 && to >= from ? to_seconds(to - from) * 1e3 : -1.0;
}

double seconds_between(Nanos from, Nanos to) {
  return from > 0 && to >= from ? to_seconds(to - from) : -1.0;
}

}  // namespace

Session::Session(std::shared_ptr<Call> call, bool streams)
    : call_(std::move(call)), streams_(streams) {
  ++context().active;
}

Session::~Session() { --context().active; }

void Session::start(std::vector<EngineRequest> requests, std::size_t choices_per_prompt) {
  const std::weak_ptr<Session> weak = weak_from_this();
  for (auto& request : requests) {
    Line line;
    line.stream = std::make_shared<TokenStream>();
    line.stream->set_notify([weak] {
      if (const auto self = weak.lock()) self->schedule();
    });
    line.prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
    line.max_tokens = request.max_new_tokens;
    line.new_prompt = lines_.size() % choices_per_prompt == 0;
    request.request_id = call_->id();
    request.arrival = call_->arrival();
    const auto id = context().engine.submit(std::move(request), line.stream);
    if (!id) {
      if (id.error().code == ErrorCode::kRateLimited)
        context().metrics.admission_rejected("queue_full");
      return fail(id.error());
    }
    line.id = *id;
    lines_.push_back(std::move(line));
  }
  // From here on the exchange keeps the session, until the answer has left or the client has.
  const auto self = shared_from_this();
  call_->exchange().on_close([self] { self->client_gone(); });
  if (streams_) keep_alive();
}

// Engine thread, or any other.
void Session::schedule() {
  if (scheduled_.exchange(true)) return;
  call_->exchange().post([self = shared_from_this()] { self->drain(); });
}

void Session::drain() {
  scheduled_.store(false);
  if (done_) return;
  try {
    for (std::size_t i = 0; i < lines_.size() && !done_; ++i) drain_line(i);
    if (done_) return;
    if (streams_) {
      std::string events;
      write_events(events);
      if (!events.empty()) {
        ensure_events();
        call_->exchange().write(std::move(events));
        wrote_since_tick_ = true;
        if (done_) return;  // the client reads too slowly and was cut
      }
    }
    const auto ended = [](const Line& line) { return line.ended; };
    if (std::all_of(lines_.begin(), lines_.end(), ended)) finish();
  } catch (const std::exception& failure) {
    log_error("request {} failed: {}", call_->id(), failure.what());
    fail({ErrorCode::kInternal, "the server failed to write this answer", {}, {}, 0});
  }
}

void Session::drain_line(std::size_t choice) {
  Line& line = lines_[choice];
  if (line.ended) return;
  auto batch = line.stream->take();
  if (!batch.prompt.empty()) on_prompt_logprobs(choice, std::move(batch.prompt));
  take_tokens(choice, batch.tokens);
  if (batch.end) end_line(choice, std::move(*batch.end));
}

void Session::take_tokens(std::size_t choice, const std::vector<TokenOutput>& tokens) {
  Line& line = lines_[choice];
  if (tokens.empty() || line.ended_itself) return;
  const Nanos now = context().clock.now();
  const double gap = seconds_between(line.last_token, now) / static_cast<double>(tokens.size());
  for (const auto& output : tokens) {
    ++line.tokens;
    if (line.last_token > 0) context().metrics.token_gap(gap);
    if (!on_token(choice, output)) continue;
    // The engine may be a step ahead; its end, which brings the rest of the numbers, is awaited.
    line.ended_itself = true;
    context().engine.abort(line.id);
    break;
  }
  line.last_token = now;
}

void Session::end_line(std::size_t choice, SequenceEnd end) {
  Line& line = lines_[choice];
  if (line.ended_itself) {
    if (end.reason != FinishReason::kStop) end.stop_token = kNoToken;
    end.reason = FinishReason::kStop;
  } else if (end.reason == FinishReason::kError) {
    return fail(end.error.value_or(Error{}));
  } else if (end.reason == FinishReason::kAborted) {
    return fail({ErrorCode::kUnavailable,
                 "the server ended this request before it was complete",
                 {},
                 "aborted",
                 0});
  }
  line.ended = true;
  line.end = end;
  on_end(choice, end);
}

void Session::ensure_events() {
  if (events_begun_) return;
  events_begun_ = true;
  call_->begin_events();
  std::string events;
  write_opening(events);
  call_->exchange().write(std::move(events));
}

// A silent stream gets a comment now and then: proxies and clients close what they think is dead.
void Session::keep_alive() {
  call_->exchange().post_after(context().options.keep_alive_ms, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self || self->done_) return;
    if (!self->wrote_since_tick_) {
      self->ensure_events();
      self->call_->exchange().write(std::string(api::kKeepAliveComment));
    }
    self->wrote_since_tick_ = false;
    self->keep_alive();
  });
}

void Session::finish() {
  done_ = true;
  record(std::any_of(lines_.begin(), lines_.end(),
                     [](const Line& line) { return line.end.reason == FinishReason::kLength; })
             ? "length"
             : "stop");
  if (!streams_) {
    http::Response response;
    response.body = whole_answer();
    return call_->respond(std::move(response));
  }
  ensure_events();
  std::string events;
  write_closing(events);
  events += api::kStreamEnd;
  call_->exchange().write(std::move(events));
  call_->end_events();
}

void Session::fail(const Error& error) {
  if (done_) return;
  done_ = true;
  abort_all();
  if (!lines_.empty()) record("error");
  if (!events_begun_) return call_->fail(error);
  call_->exchange().write("data: " + api::error_object(error) + "\n\n");
  call_->end_events();
}

void Session::client_gone() {
  if (done_) return;
  done_ = true;
  abort_all();
  record("abort");
  std::int64_t tokens = 0;
  for (const auto& line : lines_) tokens += line.tokens;
  log_info("request {}: the client went away after {} tokens", call_->id(), tokens);
}

void Session::abort_all() {
  for (const auto& line : lines_)
    if (!line.ended) context().engine.abort(line.id);
}

api::Usage Session::usage() const {
  api::Usage out;
  for (std::size_t i = 0; i < lines_.size(); ++i) {
    const Line& line = lines_[i];
    out.completion_tokens += line.tokens;
    out.reasoning_tokens += reasoning_tokens(i);
    if (!line.new_prompt) continue;
    out.prompt_tokens += line.prompt_tokens;
    out.cached_tokens += line.end.usage.cached_tokens;
  }
  return out;
}

api::Timings Session::timings() const {
  api::Timings out;
  Nanos first = 0;
  Nanos last = 0;
  Nanos scheduled = 0;
  std::int64_t gaps = 0;
  double gap_ms = 0;
  for (const auto& line : lines_) {
    const auto& times = line.end.timings;
    if (times.first_token == 0) continue;
    first = first == 0 ? times.first_token : std::min(first, times.first_token);
    scheduled = scheduled == 0 ? times.scheduled : std::min(scheduled, times.scheduled);
    last = std::max(last, times.finished);
    if (line.tokens > 1) {
      gaps += line.tokens - 1;
      gap_ms += milliseconds(times.first_token, times.finished);
    }
  }
  if (first == 0) return out;
  out.time_to_first_token_ms = milliseconds(call_->arrival(), first);
  out.queue_time_ms = milliseconds(call_->arrival(), scheduled);
  out.generation_time_ms = milliseconds(first, last);
  if (gaps > 0 && gap_ms > 0) out.mean_itl_ms = gap_ms / static_cast<double>(gaps);
  if (gaps > 0 && out.generation_time_ms > 0)
    out.tokens_per_second = static_cast<double>(gaps) * 1e3 / out.generation_time_ms;
  return out;
}

void Session::record(std::string_view reason) {
  const auto total = usage();
  const Nanos now = context().clock.now();
  metrics::RequestRecord out;
  out.finished_reason = reason;
  out.end_to_end = seconds_between(call_->arrival(), now);
  out.prompt_tokens = total.prompt_tokens;
  out.cached_tokens = total.cached_tokens;
  out.generation_tokens = total.completion_tokens;
  out.n = static_cast<int>(lines_.size());
  if (!lines_.empty()) {
    const auto& times = lines_.front().end.timings;
    out.max_tokens = lines_.front().max_tokens;
    out.time_to_first_token = seconds_between(call_->arrival(), times.first_token);
    out.queue = seconds_between(call_->arrival(), times.scheduled);
    out.prefill = seconds_between(times.scheduled, times.first_token);
    out.decode = seconds_between(times.first_token, times.finished);
  }
  context().metrics.request_finished(out);
}

}  // namespace strata::serve
