// The Exchange of a running request; internal to http/.
#pragma once

#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <vector>

#include "http/server.h"

namespace strata::http {

class Connection;

class LiveExchange final : public Exchange, public std::enable_shared_from_this<LiveExchange> {
 public:
  LiveExchange(std::shared_ptr<Connection> connection, Request request);

  const Request& request() const override { return request_; }
  void respond(Response response) override;
  void start_stream(Response head) override;
  void write(std::string piece) override;
  void finish() override;
  void post(std::function<void()> task) override;
  void wake() override;
  void on_wake(std::function<void()> callback) override { on_wake_ = std::move(callback); }
  void post_after(int delay_ms, std::function<void()> task) override;
  void on_close(std::function<void()> callback) override;
  bool closed() const override { return closed_.load(std::memory_order_acquire); }

  // ---- For Shared, on a thread of the server.
  void run_wake();

  // ---- For Connection, on its strand.
  // The client is gone: runs on_close unless the response was complete.
  void lost();
  // The response left: callbacks are dropped, so that sessions held by them end.
  void complete();

 private:
  enum class State { kWaiting, kStreaming, kAnswered };
  template <typename Step>
  void run(Step step);
  void drop_callbacks();

  std::shared_ptr<Connection> connection_;
  const Request request_;
  std::atomic<bool> closed_{false};
  std::atomic<bool> woken_{false};  // and on_wake_ has not begun to run
  std::function<void()> on_wake_;
  // On the strand only.
  State state_ = State::kWaiting;
  std::function<void()> on_close_;
  std::vector<std::shared_ptr<boost::asio::steady_timer>> timers_;
};

}  // namespace strata::http
