#include "http/server.h"

#include <fmt/format.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <thread>

#include "base/log.h"
#include "base/result.h"
#include "http/connection.h"

namespace strata::http {
namespace {

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
using ErrorCode = boost::system::error_code;

// Connections above the limit that get a 503 before they are closed; more are closed at once.
constexpr int kRefusedConnections = 64;
constexpr auto kAcceptPause = std::chrono::milliseconds(100);

Tcp::endpoint resolve(asio::io_context& io, const std::string& host, std::uint16_t port) {
  ErrorCode error;
  const auto address = asio::ip::make_address(host, error);
  if (!error) return {address, port};
  Tcp::resolver resolver(io);
  const auto found = resolver.resolve(host, std::to_string(port), error);
  if (error || found.empty())
    throw StartupError(
        fmt::format("cannot resolve the host name \"{}\": {}", host, error.message()),
        "use an address such as 127.0.0.1 or 0.0.0.0 with --host");
  return found.begin()->endpoint();
}

}  // namespace

class Server::Impl {
 public:
  Impl(const ServerOptions& options, Handler handler)
      : shared_(std::make_shared<Shared>()),
        acceptor_(asio::make_strand(shared_->io)),
        pause_(acceptor_.get_executor()) {
    shared_->options = options;
    shared_->handler = std::move(handler);
    listen();
    accept();
    for (int i = 0; i < std::max(1, options.threads); ++i)
      threads_.emplace_back([shared = shared_] { shared->io.run(); });
  }

  ~Impl() {
    // On the acceptor's strand: no connection can come in behind the last that is cut.
    asio::post(acceptor_.get_executor(), [this] {
      close_acceptor();
      for (const auto& connection : connections())
        asio::post(connection->executor(), [connection] { connection->cut(); });
      keep_running_.reset();  // the threads end when nothing is left to do
    });
    for (auto& thread : threads_) thread.join();
    shared_->close();
    // What other threads posted meanwhile holds the connections that hold this context.
    shared_->io.restart();
    shared_->io.poll();
  }

  std::uint16_t port() const { return port_; }

  void stop_accepting() {
    asio::post(acceptor_.get_executor(), [this] { close_acceptor(); });
  }

  int open_connections() const {
    const std::lock_guard lock(shared_->mutex);
    return static_cast<int>(shared_->open.size());
  }

 private:
  void listen() {
    const auto& options = shared_->options;
    const auto endpoint = resolve(shared_->io, options.host, options.port);
    ErrorCode error;
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(Tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error)
      throw StartupError(
          fmt::format("cannot listen on {}:{}: {}", options.host, options.port, error.message()),
          error == asio::error::address_in_use
              ? "another program uses this port; choose a free one with --port"
              : "check --host and --port");
    port_ = acceptor_.local_endpoint().port();
  }

  void close_acceptor() {
    ErrorCode ignored;
    acceptor_.close(ignored);
    pause_.cancel();
  }

  void accept() {
    acceptor_.async_accept(
        asio::make_strand(shared_->io),
        [this](ErrorCode error, Tcp::socket socket) { on_accept(error, std::move(socket)); });
  }

  void on_accept(ErrorCode error, Tcp::socket socket) {
    if (!acceptor_.is_open()) return;
    if (error == asio::error::operation_aborted) return;
    if (error) {
      // Out of file descriptors, mostly: the backlog keeps the clients meanwhile.
      log_warn("http: cannot accept a connection: {}", error.message());
      pause_.expires_after(kAcceptPause);
      pause_.async_wait([this](ErrorCode cancelled) {
        if (!cancelled && acceptor_.is_open()) accept();
      });
      return;
    }
    admit(std::move(socket));
    accept();
  }

  void admit(Tcp::socket socket) {
    ErrorCode ignored;
    socket.set_option(Tcp::no_delay(true), ignored);
    const int open = open_connections();
    const int limit = shared_->options.max_connections;
    if (open >= limit + kRefusedConnections) return;  // the destructor closes the socket
    const auto connection = std::make_shared<Connection>(std::move(socket), shared_);
    {
      const std::lock_guard lock(shared_->mutex);
      shared_->open.emplace(connection.get(), connection);
    }
    if (open >= limit) {
      connection->start_refused();
    } else {
      connection->start();
    }
  }

  std::vector<std::shared_ptr<Connection>> connections() const {
    std::vector<std::shared_ptr<Connection>> out;
    const std::lock_guard lock(shared_->mutex);
    for (const auto& [_, weak] : shared_->open)
      if (auto connection = weak.lock()) out.push_back(std::move(connection));
    return out;
  }

  std::shared_ptr<Shared> shared_;
  Tcp::acceptor acceptor_;
  asio::steady_timer pause_;
  std::uint16_t port_ = 0;
  std::vector<std::thread> threads_;
  asio::executor_work_guard<asio::io_context::executor_type> keep_running_{
      shared_->io.get_executor()};
};

Server::Server(const ServerOptions& options, Handler handler)
    : impl_(std::make_unique<Impl>(options, std::move(handler))) {}
Server::~Server() = default;
std::uint16_t Server::port() const { return impl_->port(); }
void Server::stop_accepting() { impl_->stop_accepting(); }
int Server::open_connections() const { return impl_->open_connections(); }

}  // namespace strata::http
