// One accepted socket and its exchanges, one after another; internal to http/.
//
// Every member function runs on the connection's strand unless it says otherwise.
#pragma once

#include <array>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "http/server.h"

namespace strata::http {

class Connection;
class LiveExchange;

// What the server and its connections share; lives until the last of them is gone.
struct Shared {
  boost::asio::io_context io;
  ServerOptions options;
  Handler handler;
  std::atomic<bool> gone{false};  // the threads have been joined: nothing runs any more
  std::mutex mutex;
  std::unordered_map<Connection*, std::weak_ptr<Connection>> open;  // GUARDED_BY(mutex)

  Response error(int status, std::string_view message) const;

  // Exchanges that were woken and whose turn comes: one task of the io_context serves many.
  std::mutex wake_mutex;
  std::vector<std::shared_ptr<LiveExchange>> woken;  // GUARDED_BY(wake_mutex)
  // Any thread. `self`: this.
  void wake(const std::shared_ptr<Shared>& self, std::shared_ptr<LiveExchange> exchange);
  void run_woken(const std::shared_ptr<Shared>& self);
  // The threads have been joined.
  void close();
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Socket = boost::asio::ip::tcp::socket;
  using Strand = boost::asio::strand<boost::asio::io_context::executor_type>;
  Connection(Socket socket, std::shared_ptr<Shared> shared);
  ~Connection();

  void start();
  // Answers with an error whatever is sent, for a server with too many connections.
  void start_refused();
  // Closes at once; on_close of a running exchange runs. Called through post() by the server.
  void cut();

  // ---- For LiveExchange.
  void send_response(const Response& response);
  void send_stream_head(const Response& head);
  void send_piece(std::string_view piece);
  void send_end();
  // Runs `task`; what it wrote leaves at once.
  void run_and_flush(const std::function<void()>& task);
  const std::shared_ptr<Shared>& shared() const { return shared_; }
  const Strand& executor() const { return strand_; }

 private:
  enum class Phase { kHead, kBody, kServing, kLinger, kClosed };
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  void ensure_read();
  void on_read(boost::system::error_code error, std::size_t bytes);
  void read_head();
  void begin_request(std::size_t head_size);
  void read_body();
  void dispatch();
  void refuse(int status, std::string_view message);
  void refuse_parse_error(boost::system::error_code error);
  void schedule_flush();
  void flush();
  void write_some();
  void all_written();
  void response_sent();
  void linger();
  void arm(int seconds);
  void disarm();
  void on_timeout();

  std::shared_ptr<Shared> shared_;  // owns the io_context: first, so that it goes last
  Socket socket_;
  const Strand strand_;  // the socket's executor
  boost::asio::steady_timer timer_;
  std::uint64_t timer_generation_ = 0;
  bool armed_ = false;
  Phase phase_ = Phase::kHead;

  // Input: bytes received and not yet consumed, pipelined requests included.
  std::string in_;
  std::size_t head_scanned_ = 0;
  bool head_started_ = false;
  bool reading_ = false;
  bool peer_done_ = false;  // the peer sent its FIN
  std::size_t discarded_ = 0;
  std::array<char, 16384> read_buffer_{};
  // Called by the parser, which keeps a reference.
  void (*check_chunk_)(std::uint64_t, boost::beast::string_view, boost::system::error_code&);
  std::optional<Parser> parser_;
  Request request_;

  // Output: `writing_` is with the kernel, `out_` collects what comes meanwhile.
  std::string out_;
  std::string writing_;
  std::size_t written_ = 0;
  bool flush_scheduled_ = false;
  bool holds_flush_ = false;   // run_and_flush() is running
  bool head_request_ = false;  // HEAD: bodies are not sent
  bool http10_ = false;
  bool keep_alive_ = true;
  bool response_queued_ = false;  // the response is complete, perhaps not yet sent
  std::shared_ptr<LiveExchange> exchange_;
};

}  // namespace strata::http
