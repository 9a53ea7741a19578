#include "http/live_exchange.h"

#include <algorithm>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>

#include "base/check.h"
#include "http/connection.h"

namespace strata::http {

LiveExchange::LiveExchange(std::shared_ptr<Connection> connection, Request request)
    : connection_(std::move(connection)), request_(std::move(request)) {}

// Steps called on the strand run at once, so their order is the caller's.
template <typename Step>
void LiveExchange::run(Step step) {
  if (connection_->shared()->gone.load(std::memory_order_acquire)) return;
  if (connection_->executor().running_in_this_thread()) return step();
  boost::asio::post(connection_->executor(),
                    [self = shared_from_this(), step = std::move(step)]() mutable { step(); });
}

void LiveExchange::respond(Response response) {
  run([this, response = std::move(response)] {
    if (closed()) return;
    STRATA_CHECK(state_ == State::kWaiting, "respond() after an answer was begun");
    state_ = State::kAnswered;
    connection_->send_response(response);
  });
}

void LiveExchange::start_stream(Response head) {
  run([this, head = std::move(head)] {
    if (closed()) return;
    STRATA_CHECK(state_ == State::kWaiting, "start_stream() after an answer was begun");
    state_ = State::kStreaming;
    connection_->send_stream_head(head);
  });
}

void LiveExchange::write(std::string piece) {
  run([this, piece = std::move(piece)] {
    if (closed() || state_ != State::kStreaming) return;
    connection_->send_piece(piece);
  });
}

void LiveExchange::finish() {
  run([this] {
    if (closed() || state_ != State::kStreaming) return;
    state_ = State::kAnswered;
    connection_->send_end();
  });
}

void LiveExchange::post(std::function<void()> task) {
  if (connection_->shared()->gone.load(std::memory_order_acquire)) return;
  boost::asio::post(connection_->executor(),
                    [self = shared_from_this(), task = std::move(task)] { task(); });
}

void LiveExchange::wake() {
  if (!woken_.exchange(true, std::memory_order_acq_rel))
    connection_->shared()->wake(connection_->shared(), shared_from_this());
}

void LiveExchange::run_wake() {
  boost::asio::dispatch(connection_->executor(), [self = shared_from_this()] {
    self->woken_.store(false, std::memory_order_release);
    self->connection_->run_and_flush(self->on_wake_);
  });
}

void LiveExchange::post_after(int delay_ms, std::function<void()> task) {
  run([this, delay_ms, task = std::move(task)]() mutable {
    if (closed() || state_ == State::kAnswered) return;
    auto timer = std::make_shared<boost::asio::steady_timer>(connection_->executor(),
                                                             std::chrono::milliseconds(delay_ms));
    timers_.push_back(timer);
    timer->async_wait([self = shared_from_this(), timer,
                       task = std::move(task)](boost::system::error_code error) {
      std::erase(self->timers_, timer);
      if (!error) task();
    });
  });
}

void LiveExchange::on_close(std::function<void()> callback) {
  run([this, callback = std::move(callback)]() mutable {
    if (closed()) {
      callback();
    } else if (state_ != State::kAnswered) {
      on_close_ = std::move(callback);
    }
  });
}

void LiveExchange::drop_callbacks() {
  on_close_ = nullptr;
  const auto timers = timers_;  // cancel() may complete while we walk
  for (const auto& timer : timers) timer->cancel();
}

void LiveExchange::lost() {
  if (closed_.exchange(true, std::memory_order_acq_rel)) return;
  const auto callback = std::move(on_close_);
  drop_callbacks();
  if (callback) callback();
}

void LiveExchange::complete() { drop_callbacks(); }

}  // namespace strata::http
