// EventLog: the events of one resumable stream, numbered from 1. Its session appends; at most one
// reader at a time gets them as they come, and a later one from a number on, as far back as the log
// reaches. Any thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "serve/call.h"

namespace strata::serve {

class EventLog {
 public:
  // `wake` tells the session that a reader came or went; it must not call back at once.
  EventLog(std::size_t capacity_bytes, const Clock& clock, std::function<void()> wake);

  // ---- Session.
  // Whole events ("data: ...\n\n", one after another); each gets its "id:" line.
  void append(std::string_view events);
  // Not numbered, not kept.
  void comment(const std::string& text);
  // Nothing follows: the reader's answer ends.
  void close();

  // ---- Readers. Events from number `from` on; 0: as far back as the log reaches. A reader that is
  // there already is told so and sent away. Fails when events are gone or do not exist yet.
  Result<void> attach(const std::shared_ptr<Call>& reader, std::uint64_t from);
  // Its client is gone. Others are left alone.
  void detach(const Call* reader);

  // To `reader` if it still is the one; says whether it is.
  bool comment_to(const Call* reader, const std::string& text);

  bool has_reader() const;
  // Nobody reads, since when.
  std::optional<Nanos> unread_since() const;
  bool closed() const;
  std::size_t bytes() const;

 private:
  struct Event {
    std::uint64_t number;
    std::string text;
  };
  void add(std::string_view event, std::string& out);
  void end_reader();

  const std::size_t capacity_;
  const Clock& clock_;
  const std::function<void()> wake_;
  mutable std::mutex mutex_;
  // All below: GUARDED_BY(mutex_). Writing to a reader under the lock keeps the order.
  std::deque<Event> events_;
  std::size_t bytes_ = 0;
  std::uint64_t next_ = 1;
  bool closed_ = false;
  std::shared_ptr<Call> reader_;
  Nanos unread_since_ = 0;
};

}  // namespace strata::serve
