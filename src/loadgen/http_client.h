// HTTP/1.1 client of the load generator: many exchanges on one thread, keep-alive connections, no
// limit of its own on how many are open. Asio and Beast stay behind this header.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace strata::loadgen {

struct Target {
  std::string host;
  std::string port;
  std::string prefix;  // path that stands before every route; no closing slash
  std::string host_header() const;
};

// http://HOST[:PORT][/PREFIX]. Throws StartupError; https is not spoken.
Target parse_target(const std::string& url);

struct HttpRequest {
  std::string method;
  std::string path;  // behind the target's prefix
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
};

// What comes back. Called on the thread of HttpClient::run(): on_head once, on_body as bytes
// arrive, on_end once and last. `error` is empty when the answer was complete.
class Receiver {
 public:
  virtual ~Receiver() = default;
  // `header`: value of a header by name, "" when absent; valid during the call only.
  using Header = std::function<std::string_view(std::string_view name)>;
  virtual void on_head(int status, const Header& header) = 0;
  virtual void on_body(std::string_view piece) = 0;
  virtual void on_end(const std::string& error) = 0;
};

// All methods on one thread.
class HttpClient {
 public:
  // Resolves the target. Throws StartupError when that fails.
  explicit HttpClient(const Target& target);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Sends on an idle connection, or a new one. A kept connection that turns out to be closed is
  // replaced once.
  void send(const HttpRequest& request, std::shared_ptr<Receiver> receiver);
  // Runs `task` when the monotonic clock (Clock::now) reaches `when`.
  void at(Nanos when, std::function<void()> task);
  // Returns when no exchange is open and no task is left.
  void run();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

struct HttpAnswer {
  int status = 0;
  std::string body;
  std::string error;  // of the transport
};

// One exchange, waited for.
HttpAnswer http_get(const Target& target, const std::string& path,
                    const std::vector<std::pair<std::string, std::string>>& headers);

}  // namespace strata::loadgen
