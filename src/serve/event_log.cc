#include "serve/event_log.h"

#include <fmt/format.h>

#include <utility>

#include "api/objects.h"

namespace strata::serve {
namespace {

constexpr std::string_view kEventEnd = "\n\n";

}  // namespace

EventLog::EventLog(std::size_t capacity_bytes, const Clock& clock, std::function<void()> wake)
    : capacity_(capacity_bytes),
      clock_(clock),
      wake_(std::move(wake)),
      unread_since_(clock.now()) {}

void EventLog::append(std::string_view events) {
  const std::lock_guard lock(mutex_);
  std::string out;
  while (!events.empty()) {
    const auto end = events.find(kEventEnd);
    const auto size = end == std::string_view::npos ? events.size() : end + kEventEnd.size();
    add(events.substr(0, size), out);
    events.remove_prefix(size);
  }
  if (reader_ && !out.empty()) reader_->write(std::move(out));
}

void EventLog::add(std::string_view event, std::string& out) {
  auto text = fmt::format("id: {}\n{}", next_, event);
  out += text;
  bytes_ += text.size();
  events_.push_back({next_++, std::move(text)});
  while (bytes_ > capacity_ && events_.size() > 1) {
    bytes_ -= events_.front().text.size();
    events_.pop_front();
  }
}

void EventLog::comment(const std::string& text) {
  const std::lock_guard lock(mutex_);
  if (reader_) reader_->write(text);
}

void EventLog::close() {
  const std::lock_guard lock(mutex_);
  if (std::exchange(closed_, true)) return;
  end_reader();
}

void EventLog::end_reader() {
  if (!reader_) return;
  reader_->end_events();
  reader_ = nullptr;
  unread_since_ = clock_.now();
}

Result<void> EventLog::attach(const std::shared_ptr<Call>& reader, std::uint64_t from) {
  {
    const std::lock_guard lock(mutex_);
    const auto first = events_.empty() ? next_ : events_.front().number;
    if (from == 0) from = first;
    if (from < first)
      return fail(ErrorCode::kNotFound,
                  fmt::format("events before number {} are no longer kept", first), "from",
                  "events_expired");
    if (from > next_)
      return invalid(fmt::format("must be at most {}, the number of the next event", next_),
                     "from");
    if (reader_) {
      const Error taken{ErrorCode::kCancelled,
                        "another client reads this stream now",
                        {},
                        "stream_taken_over",
                        0};
      reader_->write("data: " + api::error_object(taken) + "\n\n");
      end_reader();
    }
    reader->begin_events();
    std::string out;
    for (const auto& event : events_)
      if (event.number >= from) out += event.text;
    if (!out.empty()) reader->write(std::move(out));
    if (closed_) {
      reader->end_events();
      unread_since_ = clock_.now();
      return {};
    }
    reader_ = reader;
  }
  wake_();
  return {};
}

void EventLog::detach(const Call* reader) {
  {
    const std::lock_guard lock(mutex_);
    if (reader_.get() != reader) return;
    reader_ = nullptr;
    unread_since_ = clock_.now();
  }
  wake_();
}

bool EventLog::comment_to(const Call* reader, const std::string& text) {
  const std::lock_guard lock(mutex_);
  if (reader_.get() != reader) return false;
  reader_->write(text);
  return true;
}

bool EventLog::has_reader() const {
  const std::lock_guard lock(mutex_);
  return reader_ != nullptr;
}

std::optional<Nanos> EventLog::unread_since() const {
  const std::lock_guard lock(mutex_);
  if (reader_) return std::nullopt;
  return unread_since_;
}

bool EventLog::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

std::size_t EventLog::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace strata::serve
