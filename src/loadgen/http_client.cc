#include "loadgen/http_client.h"

#include <fmt/format.h>

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <iterator>
#include <limits>
#include <optional>

#include "base/result.h"

namespace strata::loadgen {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using Tcp = asio::ip::tcp;
using ErrorCode = boost::system::error_code;
using Parser = http::response_parser<http::string_body>;

constexpr std::size_t kReadBytes = 64U << 10;
constexpr std::uint32_t kMaxHeadBytes = 256U << 10;

// An exchange on its way: what is needed to send it, and again if a kept connection was dead.
struct Exchange {
  std::string bytes;
  std::shared_ptr<Receiver> receiver;
};

class Connection;
using ConnectionRef = std::shared_ptr<Connection>;

// What a connection tells its client.
class Owner {
 public:
  virtual ~Owner() = default;
  virtual void became_idle(const ConnectionRef& connection) = 0;
  virtual void closed(const ConnectionRef& connection) = 0;
  virtual void exchange_ended() = 0;
  virtual void send_again(std::shared_ptr<Exchange> exchange) = 0;
};

// One connection and the exchange that runs on it, if any. A read is always pending, so that an
// idle connection notices when the server closes it.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(asio::io_context& io, Owner& owner) : owner_(owner), socket_(io) {}

  void open(const Tcp::resolver::results_type& endpoints, std::shared_ptr<Exchange> exchange) {
    exchange_ = std::move(exchange);
    asio::async_connect(socket_, endpoints,
                        [self = shared_from_this()](ErrorCode error, const Tcp::endpoint&) {
                          self->on_connected(error);
                        });
  }

  void reuse(std::shared_ptr<Exchange> exchange) {
    exchange_ = std::move(exchange);
    reused_ = true;
    start_exchange();
  }

  void close() {
    open_ = false;
    ErrorCode ignored;
    socket_.close(ignored);
  }

 private:
  void on_connected(ErrorCode error) {
    if (error) return fail("cannot connect: " + error.message());
    open_ = true;
    ErrorCode ignored;
    socket_.set_option(Tcp::no_delay(true), ignored);
    start_exchange();
    read();
  }

  void start_exchange() {
    parser_.emplace();
    parser_->eager(true);
    parser_->body_limit(std::numeric_limits<std::uint64_t>::max());
    parser_->header_limit(kMaxHeadBytes);
    head_told_ = false;
    asio::async_write(socket_, asio::buffer(exchange_->bytes),
                      [self = shared_from_this(), sent = exchange_](ErrorCode error, std::size_t) {
                        // The pending read tells more: the server may have answered and closed.
                        if (error && self->open_ && self->exchange_ == sent) {
                          ErrorCode ignored;
                          self->socket_.shutdown(Tcp::socket::shutdown_send, ignored);
                        }
                      });
  }

  void read() {
    socket_.async_read_some(asio::buffer(buffer_),
                            [self = shared_from_this()](ErrorCode error, std::size_t bytes) {
                              self->on_read(error, bytes);
                            });
  }

  void on_read(ErrorCode error, std::size_t bytes) {
    if (!open_) return;
    if (error) return on_read_end(error);
    if (!exchange_) return finish_connection();  // bytes nobody asked for
    unparsed_.append(buffer_.data(), bytes);
    parse();
    if (open_) read();
  }

  void on_read_end(ErrorCode error) {
    if (!exchange_) return finish_connection();
    if (error == asio::error::eof && parser_->is_header_done()) {
      ErrorCode incomplete;
      parser_->put_eof(incomplete);
      if (!incomplete) return end_exchange({}, false);
      return fail("the connection ended within the answer");
    }
    if (reused_ && unparsed_.empty() && !parser_->got_some()) {
      const auto exchange = std::exchange(exchange_, nullptr);
      finish_connection();
      return owner_.send_again(exchange);
    }
    fail(error == asio::error::eof ? "the connection ended before the answer" : error.message());
  }

  void parse() {
    while (exchange_ && !unparsed_.empty()) {
      ErrorCode error;
      const std::size_t used = parser_->put(asio::buffer(unparsed_), error);
      unparsed_.erase(0, used);
      if (error && error != http::error::need_more)
        return fail("the answer is not HTTP: " + error.message());
      if (parser_->is_header_done() && !head_told_) tell_head();
      std::string& body = parser_->get().body();
      if (!body.empty()) exchange_->receiver->on_body(body);
      body.clear();
      if (parser_->is_done()) return end_exchange({}, parser_->keep_alive() && unparsed_.empty());
      if (error == http::error::need_more || used == 0) return;
    }
  }

  void tell_head() {
    head_told_ = true;
    const auto& head = parser_->get();
    exchange_->receiver->on_head(static_cast<int>(head.result_int()), [&](std::string_view name) {
      const auto found = head.find({name.data(), name.size()});
      if (found == head.end()) return std::string_view();
      return std::string_view(found->value().data(), found->value().size());
    });
  }

  void fail(const std::string& error) { end_exchange(error, false); }

  void end_exchange(const std::string& error, bool reusable) {
    const auto exchange = std::exchange(exchange_, nullptr);
    const auto self = shared_from_this();
    if (reusable) owner_.became_idle(self);
    else finish_connection();
    exchange->receiver->on_end(error);
    owner_.exchange_ended();
  }

  void finish_connection() {
    close();
    owner_.closed(shared_from_this());
  }

  Owner& owner_;
  Tcp::socket socket_;
  std::array<char, kReadBytes> buffer_;
  std::string unparsed_;
  std::optional<Parser> parser_;
  std::shared_ptr<Exchange> exchange_;
  bool open_ = false;
  bool reused_ = false;
  bool head_told_ = false;
};

}  // namespace

class HttpClient::Impl final : public Owner {
 public:
  explicit Impl(Target target) : target_(std::move(target)) {
    Tcp::resolver resolver(io_);
    ErrorCode error;
    endpoints_ = resolver.resolve(target_.host, target_.port, error);
    if (error)
      throw StartupError(
          fmt::format("cannot resolve the host \"{}\": {}", target_.host, error.message()),
          "check --base-url");
  }

  void send(const HttpRequest& request, std::shared_ptr<Receiver> receiver) {
    ++open_exchanges_;
    start(std::make_shared<Exchange>(Exchange{serialise(request), std::move(receiver)}));
  }

  void at(Nanos when, std::function<void()> task) {
    ++tasks_;
    const auto timer = std::make_shared<asio::steady_timer>(io_);
    timer->expires_at(std::chrono::steady_clock::time_point(std::chrono::nanoseconds(when)));
    timer->async_wait([this, timer, run = std::move(task)](ErrorCode) {
      --tasks_;
      run();
      stop_when_done();
    });
  }

  void run() {
    io_.restart();
    stop_when_done();
    io_.run();
    for (const auto& connection : idle_) connection->close();
    idle_.clear();
    io_.restart();
    io_.poll();  // the reads that were pending let go of their connections
  }

  void became_idle(const ConnectionRef& connection) override { idle_.push_back(connection); }
  void closed(const ConnectionRef& connection) override { std::erase(idle_, connection); }
  void exchange_ended() override {
    --open_exchanges_;
    stop_when_done();
  }
  void send_again(std::shared_ptr<Exchange> exchange) override { open(std::move(exchange)); }

 private:
  void start(std::shared_ptr<Exchange> exchange) {
    if (idle_.empty()) return open(std::move(exchange));
    const ConnectionRef connection = idle_.back();
    idle_.pop_back();
    connection->reuse(std::move(exchange));
  }

  void open(std::shared_ptr<Exchange> exchange) {
    std::make_shared<Connection>(io_, *this)->open(endpoints_, std::move(exchange));
  }

  void stop_when_done() {
    if (open_exchanges_ == 0 && tasks_ == 0) io_.stop();
  }

  std::string serialise(const HttpRequest& request) const {
    std::string out = fmt::format("{} {}{} HTTP/1.1\r\nHost: {}\r\n", request.method,
                                  target_.prefix, request.path, target_.host_header());
    for (const auto& [name, value] : request.headers)
      fmt::format_to(std::back_inserter(out), "{}: {}\r\n", name, value);
    if (!request.body.empty())
      fmt::format_to(std::back_inserter(out), "Content-Length: {}\r\n", request.body.size());
    return out + "\r\n" + request.body;
  }

  const Target target_;
  asio::io_context io_{1};
  Tcp::resolver::results_type endpoints_;
  std::vector<ConnectionRef> idle_;
  int open_exchanges_ = 0;
  int tasks_ = 0;
};

HttpClient::HttpClient(const Target& target) : impl_(std::make_unique<Impl>(target)) {}
HttpClient::~HttpClient() = default;
void HttpClient::send(const HttpRequest& request, std::shared_ptr<Receiver> receiver) {
  impl_->send(request, std::move(receiver));
}
void HttpClient::at(Nanos when, std::function<void()> task) { impl_->at(when, std::move(task)); }
void HttpClient::run() { impl_->run(); }

}  // namespace strata::loadgen
