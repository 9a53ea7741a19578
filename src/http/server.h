// HTTP/1.1 server: sockets, framing, limits, time-outs, server-sent events. Knows no OpenAI and no
// tokens. Beast and Asio stay behind this header (at most four translation units include them).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace strata::http {

struct Request {
  std::string method;                                        // upper case
  std::string path;                                          // decoded, without query
  std::string query;                                         // raw, after '?'
  std::vector<std::pair<std::string, std::string>> headers;  // names lower case
  std::string body;
  std::string remote_address;
  std::string_view header(std::string_view lower_case_name) const;  // "" when absent
};

struct Response {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string content_type = "application/json";
  std::string body;
};

// One request's way back to its client. Its methods may be called from any thread; callbacks run
// on the connection's executor, never concurrently with each other. Exactly one of respond() or
// start_stream() is called.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const Request& request() const = 0;
  virtual void respond(Response response) = 0;

  // Streaming with chunked transfer encoding. write() queues a piece; when more than the unsent
  // limit is queued the connection is cut and on_close runs. finish() ends the body.
  virtual void start_stream(Response head) = 0;
  virtual void write(std::string piece) = 0;
  virtual void finish() = 0;

  // Runs `task` on the connection's executor, also after a close; not once the server is gone.
  virtual void post(std::function<void()> task) = 0;
  // Runs the callback of on_wake() soon, on the connection's executor and also after a close; calls
  // before it runs are one. Much cheaper than post() where many exchanges are woken at once.
  virtual void wake() = 0;
  virtual void on_wake(std::function<void()> callback) = 0;  // once, before the first wake()
  // Runs `task` there after `delay_ms`; used for keep-alive comments.
  virtual void post_after(int delay_ms, std::function<void()> task) = 0;
  // `callback` runs once when the client goes away before the response was complete.
  virtual void on_close(std::function<void()> callback) = 0;
  virtual bool closed() const = 0;
};

using Handler = std::function<void(std::shared_ptr<Exchange>)>;

// Body of an answer to what is refused before it is a request (bad framing, too large, too slow):
// status and one English sentence. http adds "Connection: close".
using ErrorResponse = std::function<Response(int status, std::string_view message)>;

struct ServerOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 8000;  // 0: any free port
  int threads = 2;
  std::size_t max_body_bytes = 16U << 20;
  std::size_t max_header_bytes = 16U << 10;
  std::size_t max_unsent_bytes = 1U << 20;  // per stream
  int max_connections = 4096;
  int header_timeout_s = 10;
  int body_timeout_s = 30;
  int keep_alive_timeout_s = 75;
  int write_timeout_s = 60;           // without progress
  ErrorResponse error_response = {};  // empty: {"error":{"message":...}}
};

class Server {
 public:
  // Binds and listens. Throws StartupError: address in use, bad address.
  Server(const ServerOptions& options, Handler handler);
  ~Server();  // stops, cuts what is open (on_close runs) and joins
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  std::uint16_t port() const;
  // Stops accepting; open exchanges go on.
  void stop_accepting();
  int open_connections() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace strata::http
