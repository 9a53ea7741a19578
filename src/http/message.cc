#include "http/message.h"

#include <fmt/format.h>

#include <iterator>

namespace strata::http {
namespace {

std::string_view reason_phrase(int status) {
  switch (status) {
    case 200: return "OK";
    case 204: return "No Content";
    case 304: return "Not Modified";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 413: return "Payload Too Large";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "Status";
  }
}

bool safe(std::string_view text) {
  return text.find_first_of(std::string_view("\r\n\0", 3)) == std::string_view::npos;
}

}  // namespace

std::string_view Request::header(std::string_view lower_case_name) const {
  for (const auto& [name, value] : headers)
    if (name == lower_case_name) return value;
  return {};
}

std::string response_head(const Response& response, BodyFraming framing, bool close) {
  std::string out =
      fmt::format("HTTP/1.1 {} {}\r\n", response.status, reason_phrase(response.status));
  const bool bodyless = response.status == 204 || response.status == 304;
  if (!bodyless && !response.content_type.empty())
    fmt::format_to(std::back_inserter(out), "Content-Type: {}\r\n", response.content_type);
  if (framing == BodyFraming::kChunked) out += "Transfer-Encoding: chunked\r\n";
  if (framing == BodyFraming::kLength && !bodyless)
    fmt::format_to(std::back_inserter(out), "Content-Length: {}\r\n", response.body.size());
  for (const auto& [name, value] : response.headers)
    if (safe(name) && safe(value))
      fmt::format_to(std::back_inserter(out), "{}: {}\r\n", name, value);
  if (close) out += "Connection: close\r\n";
  out += "\r\n";
  return out;
}

void append_chunk(std::string& out, std::string_view piece) {
  if (piece.empty()) return;
  fmt::format_to(std::back_inserter(out), "{:x}\r\n", piece.size());
  out += piece;
  out += "\r\n";
}

}  // namespace strata::http
