#include "serve/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "api/chat_response.h"
#include "api/objects.h"
#include "base/log.h"
#include "serve/errors.h"

namespace strata::serve {
namespace {

// Bytes of one token's event.
constexpr std::size_t kUsualEvent = 512;

double milliseconds(Nanos from, Nanos to) {
  return from > 0 && to >= from ? to_seconds(to - from) * 1e3 : -1.0;
}

double seconds_between(Nanos from, Nanos to) {
  return from > 0 && to >= from ? to_seconds(to - from) : -1.0;
}

}  // namespace

Session::Session(std::shared_ptr<Call> call, std::string id, const api::StreamFields& stream)
    : call_(std::move(call)), id_(std::move(id)), stream_(stream) {
  ++context().active;
}

Session::~Session() {
  if (!done_) abort_all();
  // A resumable stream stays for who comes back after its end.
  if (!log_) context().streams.remove(id_);
  --context().active;
}

void Session::start(Submission submission) {
  limited_by_context_ = submission.limited_by_context;
  auto& requests = submission.requests;
  std::int64_t prompt_tokens = 0;
  for (std::size_t i = 0; i < requests.size(); i += submission.choices_per_prompt)
    prompt_tokens += static_cast<std::int64_t>(requests[i].prompt.size());
  if (const auto taken = call_->take_prompt(prompt_tokens); !taken) {
    context().metrics.admission_rejected("rate_limit");
    return fail(taken.error());
  }
  call_->exchange().on_wake([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->drain();
  });
  lines_.reserve(requests.size());
  for (auto& request : requests) {
    const bool new_prompt = lines_.size() % submission.choices_per_prompt == 0;
    if (!begin_line(std::move(request), new_prompt)) return;
  }
  // From here on the exchange keeps the session, until the answer has left or the client has.
  const auto self = shared_from_this();
  if (stream_.resumable) make_resumable();
  context().streams.add(id_, self, log_, call_->client());
  if (log_) {
    // The client's way back is told at once.
    ensure_events();
    // Not at once: the log may be writing, which is how the client was found to be gone.
    call_->exchange().on_close([self] { self->post([self] { self->client_gone(); }); });
  } else {
    call_->exchange().on_close([self] { self->client_gone(); });
  }
  if (stream_.stream) keep_alive();
}

bool Session::begin_line(EngineRequest request, bool new_prompt) {
  Line line;
  line.new_prompt = new_prompt;
  line.request = std::move(request);
  line.request.request_id = call_->id();
  line.request.arrival = call_->arrival();
  if (const auto submitted = submit(line, line.request.prompt); !submitted) {
    if (submitted.error().code == ErrorCode::kRateLimited)
      context().metrics.admission_rejected("queue_full");
    fail(submitted.error());
    return false;
  }
  lines_.push_back(std::move(line));
  return true;
}

// Gives the engine a sequence of the line with a stream of its own.
Result<void> Session::submit(Line& line, std::vector<TokenId> prompt) {
  line.stream = std::make_shared<TokenStream>();
  line.stream->set_notify([exchange = call_->exchange_ref()] { exchange->wake(); });
  EngineRequest request = line.request;
  request.prompt = std::move(prompt);
  request.generated = static_cast<std::int32_t>(line.tokens.size());
  request.continues = line.first_id;
  const auto id = context().engine.submit(std::move(request), line.stream);
  if (!id) return Unexpected(id.error());
  line.id = *id;
  if (line.first_id == 0) line.first_id = *id;
  return {};
}

void Session::make_resumable() {
  log_ = std::make_shared<EventLog>(context().options.resume_bytes, context().clock,
                                    [exchange = call_->exchange_ref()] { exchange->wake(); });
  call_->add_header("x-strata-stream-id", id_);
}

void Session::drain() {
  if (done_) return;
  if (is_abandoned()) return give_up("nobody came back for it");
  try {
    for (std::size_t i = 0; i < lines_.size() && !done_; ++i) drain_line(i);
    if (done_) return;
    if (!comments_.empty()) write_comment(std::exchange(comments_, {}));
    // What comes while nobody reads is gathered: it will be few events.
    if (stream_.stream && has_reader()) {
      std::string events;
      events.reserve(kUsualEvent);
      write_events(events);
      if (!events.empty()) {
        ensure_events();
        write(std::move(events));
        if (done_) return;  // the client reads too slowly and was cut
      }
    }
    const auto ended = [](const Line& line) { return line.ended; };
    if (std::all_of(lines_.begin(), lines_.end(), ended)) finish();
  } catch (const std::exception& failure) {
    log_error("request {}: failed: {}", call_->id(), failure.what());
    fail({ErrorCode::kInternal, "the server failed to write this answer", {}, {}, 0});
  }
}

void Session::drain_line(std::size_t choice) {
  Line& line = lines_[choice];
  if (line.ended) return;
  auto batch = line.stream->take();
  if (stream_.include_progress) take_progress(line, batch, comments_);
  if (!batch.prompt.empty()) on_prompt_logprobs(choice, std::move(batch.prompt));
  take_tokens(choice, batch.tokens);
  if (batch.end) end_line(choice, std::move(*batch.end));
}

// Comments: every client of server-sent events ignores them, the official ones included, which
// would take an event with a name for a chunk.
void Session::take_progress(Line& line, const TokenStream::Batch& batch,
                            std::string& comments) const {
  if (batch.queue_position >= 0 && batch.queue_position != line.queue_position) {
    line.queue_position = batch.queue_position;
    comments += fmt::format(": progress {{\"queue_position\":{}}}\n\n", batch.queue_position);
  }
  if (batch.prefilled_tokens >= 0 && batch.prefilled_tokens != line.prefilled) {
    line.prefilled = batch.prefilled_tokens;
    comments += fmt::format(": progress {{\"prefilled_tokens\":{},\"prompt_tokens\":{}}}\n\n",
                            batch.prefilled_tokens, line.request.prompt.size());
  }
}

void Session::take_tokens(std::size_t choice, const std::vector<TokenOutput>& tokens) {
  Line& line = lines_[choice];
  if (tokens.empty() || line.ended_itself || line.forced) return;
  const Nanos now = context().clock.now();
  // Tokens that come together are taken as evenly spaced; before the first there is no gap.
  const bool is_first = line.last_token == 0;
  const double gap =
      is_first ? 0 : seconds_between(line.last_token, now) / static_cast<double>(tokens.size());
  const auto before = line.tokens.size();
  if (before == 0) count_prompt(line);
  for (const auto& output : tokens) {
    line.tokens.push_back(output.token);
    const auto verdict = on_token(choice, output);
    if (verdict == Verdict::kMore) continue;
    // The engine may be a step ahead; its end, which brings the rest of the numbers, is awaited.
    (verdict == Verdict::kEnded ? line.ended_itself : line.forced) = true;
    context().engine.abort(line.id);
    break;
  }
  const auto count = static_cast<std::int64_t>(line.tokens.size() - before);
  context().metrics.tokens_generated(count, count - (is_first ? 1 : 0), gap);
  if (first_answer_ == 0 && answering(choice)) first_answer_ = now;
  line.last_token = now;
}

void Session::end_line(std::size_t choice, SequenceEnd end) {
  Line& line = lines_[choice];
  if (line.forced && end.reason != FinishReason::kError) return go_on_forced(choice, end);
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
  if (line.first_end) {
    end.usage.cached_tokens = line.first_end->usage.cached_tokens;
    end.timings.scheduled = line.first_end->timings.scheduled;
    end.timings.first_token = line.first_end->timings.first_token;
  }
  if (line.tokens.empty()) count_prompt(line);
  line.ended = true;
  line.end = end;
  on_end(choice, end);
}

void Session::count_prompt(const Line& line) const {
  if (line.new_prompt)
    context().metrics.prompt_computed(static_cast<std::int64_t>(line.request.prompt.size()));
}

// The sequence was ended where the model is to say something else: a new one goes on behind that.
// Its prompt is in the prefix cache, and its draws are those of its positions.
void Session::go_on_forced(std::size_t choice, const SequenceEnd& end) {
  Line& line = lines_[choice];
  line.forced = false;
  if (!line.first_end) line.first_end = end;
  const auto forced = forced_tokens();
  const auto left = line.request.max_new_tokens - static_cast<std::int64_t>(line.tokens.size()) -
                    static_cast<std::int64_t>(forced.size());
  if (left <= 0) {
    SequenceEnd cut = end;
    cut.reason = FinishReason::kLength;
    cut.stop_token = kNoToken;
    return end_line(choice, std::move(cut));
  }
  for (const TokenId token : forced) {
    line.tokens.push_back(token);
    on_token(choice, {token, false, 0.0F, {}});
  }
  context().metrics.tokens_generated(static_cast<std::int64_t>(forced.size()), 0, 0);
  auto prompt = line.request.prompt;
  prompt.insert(prompt.end(), line.tokens.begin(), line.tokens.end());
  if (const auto submitted = submit(line, std::move(prompt)); !submitted) fail(submitted.error());
}

void Session::ensure_events() {
  if (events_begun_) return;
  events_begun_ = true;
  if (log_) {
    if (const auto attached = log_->attach(call_, 0); !attached) return fail(attached.error());
  } else {
    call_->begin_events();
  }
  std::string events;
  write_opening(events);
  write(std::move(events));
}

void Session::write(std::string events) {
  wrote_since_tick_ = true;
  if (log_) log_->append(events);
  else call_->write(std::move(events));
}

void Session::write_comment(std::string text) {
  ensure_events();
  wrote_since_tick_ = true;
  if (log_) log_->comment(text);
  else call_->write(std::move(text));
}

void Session::close_events() {
  if (log_) log_->close();
  else call_->end_events();
}

// A silent stream gets a comment now and then: proxies and clients close what they think is dead.
void Session::keep_alive() {
  call_->exchange().post_after(context().options.keep_alive_ms, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self || self->done_) return;
    // One that still waits in the queue hears nothing of the engine.
    if (self->is_abandoned()) return self->give_up("nobody came back for it");
    if (!self->wrote_since_tick_) self->write_comment(std::string(api::kKeepAliveComment));
    self->wrote_since_tick_ = false;
    self->keep_alive();
  });
}

// Of a resumable session: nobody came back in time.
bool Session::is_abandoned() const {
  const auto since = log_ ? log_->unread_since() : std::nullopt;
  const Nanos patience = Nanos{context().options.resume_ms} * 1'000'000;
  return since && context().clock.now() - *since >= patience;
}

// Nobody keeps the session any longer, or finds it; its log may stay.
void Session::set_done() {
  done_ = true;
  if (log_) context().streams.let_go(id_);
  else context().streams.remove(id_);
}

void Session::finish() {
  set_done();
  const bool cut = std::any_of(lines_.begin(), lines_.end(), [](const Line& line) {
    return line.end.reason == FinishReason::kLength;
  });
  if (cut) warn_of_length();
  record(cut ? "length" : "stop");
  if (!stream_.stream) {
    http::Response response;
    response.body = whole_answer();
    return call_->respond(std::move(response));
  }
  ensure_events();
  std::string events;
  write_events(events);  // gathered while nobody read
  write_closing(events);
  events += api::kStreamEnd;
  write(std::move(events));
  close_events();
}

// Scoring a prompt generates nothing and is not cut.
void Session::warn_of_length() const {
  const auto most = lines_.front().request.max_new_tokens;
  if (most == 0) return;
  context().metrics.answer_cut(limited_by_context_);
  const auto unsaid = context().length_warnings.due(context().clock.now());
  if (!unsaid) return;
  log_warn("request {}: the answer was cut at {} tokens, {}; {} more since the last such line",
           call_->id(), most,
           limited_by_context_ ? "the end of the context" : "the request's own limit", *unsaid);
}

void Session::fail(const Error& error) {
  if (done_) return;
  set_done();
  abort_all();
  if (!lines_.empty()) record("error");
  if (!events_begun_) return call_->fail(error);
  write("data: " + api::error_object(error) + "\n\n");
  close_events();
}

void Session::client_gone() {
  if (done_) return;
  if (!log_) return give_up("the client went away");
  log_->detach(call_.get());
}

void Session::give_up(std::string_view what) {
  set_done();
  abort_all();
  record("abort");
  std::size_t tokens = 0;
  for (const auto& line : lines_) tokens += line.tokens.size();
  log_info("request {}: {} after {} tokens", call_->id(), what, tokens);
  if (!log_) return;
  log_->close();
  context().streams.remove(id_);
}

void Session::cancel() {
  if (done_) return;
  if (events_begun_)
    write("data: " +
          api::error_object({ErrorCode::kCancelled, "the request was cancelled", {}, {}, 0}) +
          "\n\n");
  give_up("cancelled");
}

void Session::shut_down() {
  fail({ErrorCode::kUnavailable,
        "the server was shut down before this answer was complete",
        {},
        "shutting_down",
        1});
}

void Session::abort_all() {
  for (const auto& line : lines_)
    if (!line.ended) context().engine.abort(line.id);
}

api::Usage Session::usage() const {
  api::Usage out;
  for (std::size_t i = 0; i < lines_.size(); ++i) {
    const Line& line = lines_[i];
    out.completion_tokens += static_cast<std::int64_t>(line.tokens.size());
    out.reasoning_tokens += reasoning_tokens(i);
    if (!line.new_prompt) continue;
    out.prompt_tokens += static_cast<std::int64_t>(line.request.prompt.size());
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
    if (line.tokens.size() > 1) {
      gaps += static_cast<std::int64_t>(line.tokens.size()) - 1;
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
  for (const auto& line : lines_)
    out.max_generation_tokens =
        std::max(out.max_generation_tokens, static_cast<std::int64_t>(line.tokens.size()));
  call_->take_answer(total.completion_tokens);
  if (!lines_.empty()) {
    const auto& times = lines_.front().end.timings;
    out.max_tokens = lines_.front().request.max_new_tokens;
    out.time_to_first_answer_token = seconds_between(call_->arrival(), first_answer_);
    out.time_to_first_token = seconds_between(call_->arrival(), times.first_token);
    out.queue = seconds_between(call_->arrival(), times.scheduled);
    out.prefill = seconds_between(times.scheduled, times.first_token);
    out.decode = seconds_between(times.first_token, times.finished);
  }
  context().metrics.request_finished(out);
}

}  // namespace strata::serve
