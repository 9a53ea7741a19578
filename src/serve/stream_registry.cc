#include "serve/stream_registry.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "serve/event_log.h"
#include "serve/session.h"

namespace strata::serve {
namespace {

constexpr Nanos kSweepInterval = 1'000'000'000;

}  // namespace

void StreamRegistry::add(const std::string& id, const std::shared_ptr<Session>& session,
                         std::shared_ptr<EventLog> log, const Sha256Digest& client) {
  const auto kept = log ? session : nullptr;
  const std::lock_guard lock(mutex_);
  entries_.insert_or_assign(id, Entry{session, kept, std::move(log), client});
}

// A session's destructor comes back here: none may run under the lock.
void StreamRegistry::let_go(const std::string& id) {
  std::shared_ptr<Session> last;
  const std::lock_guard lock(mutex_);
  if (const auto found = entries_.find(id); found != entries_.end())
    last = std::exchange(found->second.kept, nullptr);
}

void StreamRegistry::remove(const std::string& id) {
  decltype(entries_)::node_type last;
  const std::lock_guard lock(mutex_);
  last = entries_.extract(id);
}

void StreamRegistry::clear() {
  decltype(entries_) last;
  const std::lock_guard lock(mutex_);
  last.swap(entries_);
}

StreamRegistry::Found StreamRegistry::find(const std::string& id,
                                           const Sha256Digest& client) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end() || found->second.client != client) return {};
  return {found->second.session.lock(), found->second.log};
}

std::vector<std::shared_ptr<Session>> StreamRegistry::running() const {
  std::vector<std::shared_ptr<Session>> out;
  const std::lock_guard lock(mutex_);
  for (const auto& [_, entry] : entries_)
    if (auto session = entry.session.lock()) out.push_back(std::move(session));
  return out;
}

void StreamRegistry::sweep(Nanos now) {
  if (now < next_sweep_.load(std::memory_order_relaxed)) return;
  next_sweep_.store(now + std::min(kSweepInterval, keep_), std::memory_order_relaxed);
  struct Ended {
    Nanos since;
    std::size_t bytes;
    std::string id;
  };
  const std::lock_guard lock(mutex_);
  std::vector<Ended> ended;
  std::size_t bytes = 0;
  for (const auto& [id, entry] : entries_) {
    if (!entry.log || !entry.log->closed()) continue;
    ended.push_back({entry.log->unread_since().value_or(now), entry.log->bytes(), id});
    bytes += ended.back().bytes;
  }
  std::sort(ended.begin(), ended.end(),
            [](const Ended& a, const Ended& b) { return a.since < b.since; });
  for (const auto& one : ended) {
    if (now - one.since < keep_ && bytes <= max_bytes_) break;
    bytes -= one.bytes;
    entries_.erase(one.id);
  }
}

}  // namespace strata::serve
