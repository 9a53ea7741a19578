#include "http/connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/http/error.hpp>
#include <cctype>
#include <iterator>
#include <utility>

#include "http/head_check.h"
#include "http/live_exchange.h"
#include "http/message.h"

namespace strata::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
using ErrorCode = boost::system::error_code;

// Pipelined input kept while a request is served; more stays in the kernel's buffer.
constexpr std::size_t kMaxReadAhead = 64U << 10;
// Chunk headers and trailers that do not get complete within this are refused.
constexpr std::size_t kMaxUnparsed = 32U << 10;
// What a refused client may still send before it is cut without having read its answer.
constexpr std::size_t kMaxDiscarded = 64U << 20;
constexpr int kLingerSeconds = 2;
// Exchanges one task runs before it lets another thread in.
constexpr std::size_t kWakeBatch = 64;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

// A chunk extension has no meaning here and is a known way to smuggle.
void check_chunk(std::uint64_t /*size*/, beast::string_view extensions, ErrorCode& error) {
  if (!extensions.empty()) error = beast::http::error::bad_chunk_extension;
}

}  // namespace

Response Shared::error(int status, std::string_view message) const {
  if (options.error_response) return options.error_response(status, message);
  Response response;
  response.status = status;
  // The sentences of this folder hold nothing that JSON would have to escape.
  response.body = fmt::format(R"({{"error":{{"message":"{}"}}}})", message);
  return response;
}

void Shared::wake(const std::shared_ptr<Shared>& self, std::shared_ptr<LiveExchange> exchange) {
  bool is_first = false;
  {
    const std::lock_guard lock(wake_mutex);
    if (gone.load(std::memory_order_acquire)) return;
    is_first = woken.empty();
    woken.push_back(std::move(exchange));
  }
  if (is_first) asio::post(io, [self] { self->run_woken(self); });
}

// A part at a time, so that every thread gets its share.
void Shared::run_woken(const std::shared_ptr<Shared>& self) {
  std::vector<std::shared_ptr<LiveExchange>> mine;
  bool more = false;
  {
    const std::lock_guard lock(wake_mutex);
    const auto count = static_cast<std::ptrdiff_t>(std::min(woken.size(), kWakeBatch));
    mine.assign(std::make_move_iterator(woken.begin()),
                std::make_move_iterator(woken.begin() + count));
    woken.erase(woken.begin(), woken.begin() + count);
    more = !woken.empty();
  }
  if (more) asio::post(io, [self] { self->run_woken(self); });
  for (const auto& exchange : mine) exchange->run_wake();
}

void Shared::close() {
  std::vector<std::shared_ptr<LiveExchange>> left;  // hold this
  const std::lock_guard lock(wake_mutex);
  gone.store(true, std::memory_order_release);
  left.swap(woken);
}

Connection::Connection(Socket socket, std::shared_ptr<Shared> shared)
    : shared_(std::move(shared)),
      socket_(std::move(socket)),
      strand_(*socket_.get_executor().target<Strand>()),
      timer_(socket_.get_executor()),
      check_chunk_(check_chunk) {}

Connection::~Connection() {
  const std::lock_guard lock(shared_->mutex);
  shared_->open.erase(this);
}

void Connection::start() {
  asio::dispatch(executor(), [self = shared_from_this()] {
    ErrorCode ignored;
    self->socket_.non_blocking(true, ignored);
    self->arm(self->shared_->options.header_timeout_s);
    self->read_head();
  });
}

void Connection::start_refused() {
  asio::dispatch(executor(), [self = shared_from_this()] {
    ErrorCode ignored;
    self->socket_.non_blocking(true, ignored);
    self->refuse(503, "The server has too many open connections.");
  });
}

void Connection::cut() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  disarm();
  ErrorCode ignored;
  socket_.close(ignored);
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->open.erase(this);
  }
  if (const auto exchange = std::exchange(exchange_, nullptr)) exchange->lost();
}

// ---- Input.

void Connection::ensure_read() {
  if (reading_ || peer_done_ || phase_ == Phase::kClosed) return;
  reading_ = true;
  socket_.async_read_some(asio::buffer(read_buffer_),
                          [self = shared_from_this()](ErrorCode error, std::size_t bytes) {
                            self->on_read(error, bytes);
                          });
}

void Connection::on_read(ErrorCode error, std::size_t bytes) {
  reading_ = false;
  if (phase_ == Phase::kClosed) return;
  if (phase_ == Phase::kLinger) {
    discarded_ += bytes;
    if (error || discarded_ > kMaxDiscarded) return cut();
    return ensure_read();
  }
  if (error) {
    peer_done_ = true;
    // A client that only closed its sending side still gets an answer that is already complete.
    if (error == asio::error::eof && phase_ == Phase::kServing && response_queued_) return;
    return cut();
  }
  in_.append(read_buffer_.data(), bytes);
  switch (phase_) {
    case Phase::kHead: read_head(); break;
    case Phase::kBody: read_body(); break;
    case Phase::kServing:
      if (in_.size() < kMaxReadAhead) ensure_read();
      break;
    default: break;
  }
}

void Connection::read_head() {
  phase_ = Phase::kHead;
  // Empty lines before a request line are skipped: old clients send one after a body.
  while (head_scanned_ == 0 && in_.size() >= 2 && in_[0] == '\r' && in_[1] == '\n') in_.erase(0, 2);
  if (!in_.empty() && !head_started_) {
    head_started_ = true;
    arm(shared_->options.header_timeout_s);
  }
  const auto from = head_scanned_ > 3 ? head_scanned_ - 3 : 0;
  const auto end = in_.find("\r\n\r\n", from);
  const auto limit = shared_->options.max_header_bytes;
  if (end != std::string::npos && end + 4 <= limit) return begin_request(end + 4);
  if (end != std::string::npos || in_.size() > limit)
    return refuse(431, "The request head is too large.");
  if (has_bad_byte(in_, head_scanned_))
    return refuse(400, "Lines of the request head must end with CR LF and hold no NUL byte.");
  head_scanned_ = in_.size();
  ensure_read();
}

void Connection::begin_request(std::size_t head_size) {
  const auto verdict = check_head(std::string_view(in_).substr(0, head_size));
  if (verdict.status != 0) return refuse(verdict.status, verdict.message);
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(shared_->options.max_header_bytes));
  parser_->body_limit(shared_->options.max_body_bytes);
  parser_->eager(false);
  ErrorCode error;
  const auto used = parser_->put(asio::buffer(in_.data(), head_size), error);
  if (error && error != beast::http::error::need_more) return refuse_parse_error(error);
  if (!parser_->is_header_done()) return refuse(400, "The request head is malformed.");
  in_.erase(0, used);
  head_started_ = false;
  head_scanned_ = 0;

  const auto& message = parser_->get();
  request_ = Request{};
  request_.method = std::string(message.method_string());
  for (const auto& field : message)
    request_.headers.emplace_back(lower(field.name_string()), std::string(field.value()));
  head_request_ = request_.method == "HEAD";
  http10_ = message.version() == 10;
  keep_alive_ = !http10_ && message.keep_alive();
  if (!split_target(message.target(), request_.path, request_.query))
    return refuse(400, "The request target is malformed.");
  const auto expect = lower(request_.header("expect"));
  if (!expect.empty() && expect != "100-continue")
    return refuse(417, "The only expectation understood is 100-continue.");
  if (!expect.empty() && !http10_ && in_.empty() && !parser_->is_done()) {
    out_ += "HTTP/1.1 100 Continue\r\n\r\n";
    schedule_flush();
  }
  parser_->eager(true);
  phase_ = Phase::kBody;
  parser_->on_chunk_header(check_chunk_);
  read_body();
}

void Connection::read_body() {
  while (!parser_->is_done() && !in_.empty()) {
    ErrorCode error;
    const auto used = parser_->put(asio::buffer(in_), error);
    in_.erase(0, used);
    if (error == beast::http::error::need_more || (!error && used == 0)) break;
    if (error) return refuse_parse_error(error);
  }
  if (parser_->is_done()) return dispatch();
  if (in_.size() > kMaxUnparsed) return refuse(400, "The chunked body is malformed.");
  arm(shared_->options.body_timeout_s);
  ensure_read();
}

void Connection::dispatch() {
  disarm();
  request_.body = std::move(parser_->get().body());
  parser_.reset();
  ErrorCode ignored;
  const auto peer = socket_.remote_endpoint(ignored);
  if (!ignored) request_.remote_address = peer.address().to_string();
  phase_ = Phase::kServing;
  response_queued_ = false;
  exchange_ = std::make_shared<LiveExchange>(shared_from_this(), std::move(request_));
  const auto exchange = exchange_;
  shared_->handler(exchange);
  if (phase_ == Phase::kServing && in_.size() < kMaxReadAhead) ensure_read();
}

void Connection::refuse_parse_error(ErrorCode error) {
  if (error == beast::http::error::body_limit) return refuse(413, "The request body is too large.");
  if (error == beast::http::error::header_limit)
    return refuse(431, "The request head is too large.");
  if (phase_ == Phase::kBody) return refuse(400, "The chunked body is malformed.");
  refuse(400, "The request head is malformed.");
}

void Connection::refuse(int status, std::string_view message) {
  phase_ = Phase::kServing;
  keep_alive_ = false;
  parser_.reset();
  disarm();
  send_response(shared_->error(status, message));
}

// ---- Output.

void Connection::send_response(const Response& response) {
  out_ += response_head(response, BodyFraming::kLength, !keep_alive_);
  if (!head_request_ && response.status != 204 && response.status != 304) out_ += response.body;
  response_queued_ = true;
  schedule_flush();
}

void Connection::send_stream_head(const Response& head) {
  if (http10_) keep_alive_ = false;
  out_ += response_head(head, http10_ ? BodyFraming::kClose : BodyFraming::kChunked, !keep_alive_);
  schedule_flush();
}

void Connection::send_piece(std::string_view piece) {
  if (phase_ == Phase::kClosed || head_request_) return;
  if (http10_) {
    out_ += piece;
  } else {
    append_chunk(out_, piece);
  }
  const auto unsent = out_.size() + writing_.size() - written_;
  if (unsent > shared_->options.max_unsent_bytes) return cut();
  schedule_flush();
}

void Connection::send_end() {
  if (!http10_ && !head_request_) out_ += "0\r\n\r\n";
  response_queued_ = true;
  schedule_flush();
}

// Flushing waits for the end of the running handler: what it queued leaves in one write.
void Connection::schedule_flush() {
  if (flush_scheduled_ || !writing_.empty() || phase_ == Phase::kClosed) return;
  flush_scheduled_ = true;
  if (holds_flush_) return;
  asio::post(executor(), [self = shared_from_this()] {
    self->flush_scheduled_ = false;
    self->flush();
  });
}

void Connection::run_and_flush(const std::function<void()>& task) {
  const bool scheduled_before = flush_scheduled_;
  holds_flush_ = !scheduled_before;
  task();
  holds_flush_ = false;
  if (scheduled_before || !flush_scheduled_) return;
  flush_scheduled_ = false;
  flush();
}

void Connection::flush() {
  if (phase_ == Phase::kClosed || !writing_.empty()) return;
  if (out_.empty()) {
    if (response_queued_) response_sent();
    return;
  }
  std::swap(out_, writing_);
  written_ = 0;
  write_some();
}

// Mostly the kernel takes everything at once, and nothing has to be waited for.
void Connection::write_some() {
  ErrorCode error;
  written_ += socket_.write_some(
      asio::buffer(writing_.data() + written_, writing_.size() - written_), error);
  if (error && error != asio::error::would_block) return cut();
  if (written_ == writing_.size()) return all_written();
  if (phase_ == Phase::kServing) arm(shared_->options.write_timeout_s);
  socket_.async_wait(Socket::wait_write, [self = shared_from_this()](ErrorCode failed) {
    if (self->phase_ == Phase::kClosed) return;
    if (failed) return self->cut();
    self->write_some();
  });
}

void Connection::all_written() {
  writing_.clear();
  written_ = 0;
  if (phase_ == Phase::kServing) disarm();
  flush();
}

void Connection::response_sent() {
  response_queued_ = false;
  if (const auto exchange = std::exchange(exchange_, nullptr)) exchange->complete();
  head_request_ = false;
  if (!keep_alive_ || peer_done_) return linger();
  phase_ = Phase::kHead;
  arm(shared_->options.keep_alive_timeout_s);
  read_head();
}

// Closing at once would reset the connection when unread input is left, and the client might then
// never see its answer: say goodbye, read a little, close.
void Connection::linger() {
  phase_ = Phase::kLinger;
  in_.clear();
  in_.shrink_to_fit();
  ErrorCode ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
  if (ignored || peer_done_) return cut();
  arm(kLingerSeconds);
  ensure_read();
}

// ---- Time.

void Connection::arm(int seconds) {
  const auto generation = ++timer_generation_;
  armed_ = true;
  timer_.expires_after(std::chrono::seconds(seconds));
  timer_.async_wait([self = shared_from_this(), generation](ErrorCode error) {
    if (!error && generation == self->timer_generation_) self->on_timeout();
  });
}

void Connection::disarm() {
  if (!std::exchange(armed_, false)) return;
  ++timer_generation_;
  timer_.cancel();
}

void Connection::on_timeout() {
  switch (phase_) {
    case Phase::kHead:
      if (!head_started_) return cut();
      return refuse(408, "The request head did not arrive in time.");
    case Phase::kBody: return refuse(408, "The request body did not arrive in time.");
    default: return cut();
  }
}

}  // namespace strata::http
