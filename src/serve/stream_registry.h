// StreamRegistry: requests that may be named by the id of their answer: running chats, which can be
// told to answer now, and resumable streams, also for a while after their end. Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/sha256.h"

namespace strata::serve {

class EventLog;
class Session;

class StreamRegistry {
 public:
  // `keep`: how long a stream that ended and that nobody reads stays.
  StreamRegistry(Nanos keep, std::size_t max_bytes) : keep_(keep), max_bytes_(max_bytes) {}

  // `client`: whose request it is. A session with a `log` is kept until let_go(): nobody else may
  // hold it while its client is away.
  void add(const std::string& id, const std::shared_ptr<Session>& session,
           std::shared_ptr<EventLog> log, const Sha256Digest& client);
  // The session has ended; its log stays.
  void let_go(const std::string& id);
  void remove(const std::string& id);
  void clear();
  // Empty when there is none of that client: who has no right to it does not learn that it exists.
  struct Found {
    std::shared_ptr<Session> session;  // null: it has ended
    std::shared_ptr<EventLog> log;
  };
  Found find(const std::string& id, const Sha256Digest& client) const;

  // Those that have not ended.
  std::vector<std::shared_ptr<Session>> running() const;

  // Forgets streams whose time is over; cheap when there is nothing to do.
  void sweep(Nanos now);

 private:
  struct Entry {
    std::weak_ptr<Session> session;
    std::shared_ptr<Session> kept;
    std::shared_ptr<EventLog> log;  // resumable streams only
    Sha256Digest client{};
  };

  const Nanos keep_;
  const std::size_t max_bytes_;  // of logs whose streams have ended
  std::atomic<Nanos> next_sweep_{0};
  mutable std::mutex mutex_;
  std::unordered_map<std::string, Entry> entries_;  // GUARDED_BY(mutex_)
};

}  // namespace strata::serve
