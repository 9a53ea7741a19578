// Queues between threads. The engine thread never blocks on one of these for data: it drains them
// once per loop and sleeps only on its WakeEvent.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace strata {

// Many producers, one consumer; unbounded (callers bound what they submit).
template <typename T>
class MpscQueue {
 public:
  void push(T value) {
    const std::lock_guard lock(mutex_);
    items_.push_back(std::move(value));
  }
  // Takes everything at once; empty when there is nothing.
  std::vector<T> drain() {
    std::vector<T> out;
    const std::lock_guard lock(mutex_);
    out.swap(items_);
    return out;
  }

 private:
  std::mutex mutex_;
  std::vector<T> items_;  // GUARDED_BY(mutex_)
};

// Many producers, one consumer that blocks; close() wakes the consumer for good.
template <typename T>
class BlockingQueue {
 public:
  void push(T value) {
    {
      const std::lock_guard lock(mutex_);
      items_.push_back(std::move(value));
    }
    ready_.notify_one();
  }
  std::optional<T> pop() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [this] { return closed_ || !items_.empty(); });
    if (items_.empty()) return std::nullopt;
    T value = std::move(items_.front());
    items_.pop_front();
    return value;
  }
  void close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    ready_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<T> items_;  // GUARDED_BY(mutex_)
  bool closed_ = false;  // GUARDED_BY(mutex_)
};

// A sticky wake-up, like an eventfd: set() from any thread, wait() from one.
class WakeEvent {
 public:
  void set() {
    {
      const std::lock_guard lock(mutex_);
      set_ = true;
    }
    ready_.notify_one();
  }
  // Returns at once when set, else when set or after `timeout`; clears the event.
  template <typename Duration>
  void wait_for(Duration timeout) {
    std::unique_lock lock(mutex_);
    ready_.wait_for(lock, timeout, [this] { return set_; });
    set_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  bool set_ = false;  // GUARDED_BY(mutex_)
};

}  // namespace strata
