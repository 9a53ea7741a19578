// A blocking TCP client for tests: sends any bytes, reads responses with their framing.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>

namespace strata::testing {

struct RawResponse {
  int status = 0;                              // 0: the connection ended before a whole response
  std::map<std::string, std::string> headers;  // names lower case
  std::string body;                            // chunks joined
  bool complete = false;
};

class RawClient {
 public:
  explicit RawClient(std::uint16_t port) {
    fd_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    const int one = 1;
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  }
  ~RawClient() { close(); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool connected() const { return connected_; }

  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  void finish_sending() { ::shutdown(fd_, SHUT_WR); }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  // Closes with RST instead of FIN.
  void reset() {
    const linger hard{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close();
  }
  void limit_receive_buffer(int bytes) {
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  }

  // Reads until `mark` was seen; what was read up to and including it. Empty at the end.
  std::string read_until(std::string_view mark) {
    while (true) {
      const auto at = buffer_.find(mark);
      if (at != std::string::npos) return take(at + mark.size());
      if (!fill()) return {};
    }
  }
  std::string read_all() {
    while (fill()) {
    }
    return take(buffer_.size());
  }

  RawResponse read_response(bool head_only = false) {
    RawResponse out;
    const auto head = read_until("\r\n\r\n");
    if (head.size() < 12) return out;
    out.status = std::atoi(head.substr(9, 3).c_str());
    parse_headers(head, out);
    if (head_only || out.status == 204 || out.status == 304 || out.status == 100) {
      out.complete = true;
    } else if (out.headers.count("content-length") != 0) {
      const auto size = std::strtoull(out.headers["content-length"].c_str(), nullptr, 10);
      out.complete = read_exactly(size, out.body);
    } else if (out.headers.count("transfer-encoding") != 0) {
      out.complete = read_chunks(out.body);
    } else {
      out.body = read_all();
      out.complete = true;
    }
    return out;
  }

 private:
  std::string take(std::size_t size) {
    std::string out = buffer_.substr(0, size);
    buffer_.erase(0, size);
    return out;
  }
  bool fill() {
    pollfd ready{fd_, POLLIN, 0};
    if (::poll(&ready, 1, 20'000) <= 0) return false;
    char bytes[8192];
    const auto got = ::recv(fd_, bytes, sizeof bytes, 0);
    if (got <= 0) return false;
    buffer_.append(bytes, static_cast<std::size_t>(got));
    return true;
  }
  bool read_exactly(std::size_t size, std::string& out) {
    while (buffer_.size() < size)
      if (!fill()) return false;
    out += take(size);
    return true;
  }
  bool read_chunks(std::string& out) {
    while (true) {
      const auto line = read_until("\r\n");
      if (line.empty()) return false;
      const auto size = std::strtoull(line.c_str(), nullptr, 16);
      if (size == 0) return !read_until("\r\n").empty();
      if (!read_exactly(size, out)) return false;
      if (read_until("\r\n") != "\r\n") return false;
    }
  }
  static void parse_headers(std::string_view head, RawResponse& out) {
    std::size_t at = head.find("\r\n") + 2;
    while (at < head.size()) {
      const auto end = head.find("\r\n", at);
      const auto line = head.substr(at, end - at);
      const auto colon = line.find(": ");
      if (line.empty() || colon == std::string_view::npos) break;
      std::string name(line.substr(0, colon));
      for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      out.headers[name] = std::string(line.substr(colon + 2));
      at = end + 2;
    }
  }

  int fd_ = -1;
  bool connected_ = false;
  std::string buffer_;
};

}  // namespace strata::testing
