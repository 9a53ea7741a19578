#include "http/head_check.h"

#include <algorithm>
#include <cctype>

namespace strata::http {
namespace {

bool is_token_char(char c) {
  const auto u = static_cast<unsigned char>(c);
  if (std::isalnum(u) != 0) return true;
  return std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) ==
           std::tolower(static_cast<unsigned char>(y));
  });
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool is_host_char(char c) {
  const auto u = static_cast<unsigned char>(c);
  return std::isalnum(u) != 0 ||
         std::string_view(".-_~:[]%!$&'()*+;=").find(c) != std::string_view::npos;
}

// "HTTP/1.1" or "HTTP/1.0".
HeadVerdict check_request_line(std::string_view line, bool& http10) {
  const auto first = line.find(' ');
  const auto last = line.rfind(' ');
  if (first == std::string_view::npos || first == 0 || first == last)
    return {400, "The request line must be: method, one space, target, one space, version."};
  const auto method = line.substr(0, first);
  const auto target = line.substr(first + 1, last - first - 1);
  const auto version = line.substr(last + 1);
  if (!std::all_of(method.begin(), method.end(), is_token_char))
    return {400, "The request method holds a byte that is not allowed there."};
  const auto printable = [](char c) { return c > 0x20 && c < 0x7f; };
  if (target.empty() || !std::all_of(target.begin(), target.end(), printable))
    return {400, "The request target holds a byte that is not allowed there."};
  http10 = version == "HTTP/1.0";
  if (http10 || version == "HTTP/1.1") return {};
  if (version.substr(0, 5) == "HTTP/") return {505, "Only HTTP/1.1 and HTTP/1.0 are spoken here."};
  return {400, "The request line does not end with an HTTP version."};
}

struct Seen {
  int fields = 0;
  int hosts = 0;
  int lengths = 0;
  int encodings = 0;
};

HeadVerdict check_known_field(std::string_view name, std::string_view value, Seen& seen) {
  if (equals_ignoring_case(name, "host")) {
    if (++seen.hosts > 1) return {400, "There is more than one Host header."};
    if (!std::all_of(value.begin(), value.end(), is_host_char))
      return {400, "The Host header is malformed."};
  } else if (equals_ignoring_case(name, "content-length")) {
    if (++seen.lengths > 1) return {400, "There is more than one Content-Length header."};
    const auto digit = [](char c) { return c >= '0' && c <= '9'; };
    if (value.empty() || !std::all_of(value.begin(), value.end(), digit))
      return {400, "Content-Length must be a decimal number."};
    if (value.size() > 18) return {413, "The request body is too large."};
  } else if (equals_ignoring_case(name, "transfer-encoding")) {
    if (++seen.encodings > 1) return {400, "There is more than one Transfer-Encoding header."};
    if (!equals_ignoring_case(value, "chunked"))
      return {400, "The only transfer encoding understood is chunked."};
  }
  return {};
}

HeadVerdict check_field(std::string_view line, Seen& seen) {
  if (line.front() == ' ' || line.front() == '\t')
    return {400, "A header folded over several lines is not accepted."};
  const auto colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0)
    return {400, "A header line has no name or no colon."};
  const auto name = line.substr(0, colon);
  if (!std::all_of(name.begin(), name.end(), is_token_char))
    return {400, "A header name holds a byte that is not allowed there."};
  const auto value = trim(line.substr(colon + 1));
  const auto control = [](char c) {
    const auto u = static_cast<unsigned char>(c);
    return (u < 0x20 && u != '\t') || u == 0x7f;
  };
  if (std::any_of(value.begin(), value.end(), control))
    return {400, "A header value holds a control byte."};
  if (++seen.fields > kMaxHeaderFields) return {431, "There are too many request headers."};
  return check_known_field(name, value, seen);
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool percent_decode(std::string_view text, std::string& out) {
  out.clear();
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    if (i + 2 >= text.size()) return false;
    const int high = hex_value(text[i + 1]);
    const int low = hex_value(text[i + 2]);
    if (high < 0 || low < 0 || (high == 0 && low == 0)) return false;
    out.push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  return true;
}

}  // namespace

HeadVerdict check_head(std::string_view head) {
  Seen seen;
  bool http10 = false;
  bool first = true;
  while (true) {
    const auto end = head.find("\r\n");
    if (end == std::string_view::npos) return {400, "The request head is not complete."};
    const auto line = head.substr(0, end);
    head.remove_prefix(end + 2);
    if (line.find_first_of("\r\n") != std::string_view::npos)
      return {400, "Lines of the request head must end with CR LF."};
    if (!first && line.empty()) break;
    const auto verdict = first ? check_request_line(line, http10) : check_field(line, seen);
    if (verdict.status != 0) return verdict;
    first = false;
  }
  if (!http10 && seen.hosts == 0) return {400, "The Host header is missing."};
  if (seen.lengths > 0 && seen.encodings > 0)
    return {400, "Content-Length and Transfer-Encoding exclude each other."};
  if (http10 && seen.encodings > 0) return {400, "HTTP/1.0 knows no Transfer-Encoding."};
  return {};
}

bool has_bad_byte(std::string_view bytes, std::size_t from) {
  for (std::size_t i = from; i < bytes.size(); ++i) {
    if (bytes[i] == '\0') return true;
    if (bytes[i] == '\n' && (i == 0 || bytes[i - 1] != '\r')) return true;
  }
  return false;
}

bool split_target(std::string_view target, std::string& path, std::string& query) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (target.substr(0, scheme.size()) != scheme) continue;
    target.remove_prefix(scheme.size());
    const auto slash = target.find_first_of("/?");
    target = slash == std::string_view::npos ? "/" : target.substr(slash);
    break;
  }
  const auto mark = target.find('?');
  query = mark == std::string_view::npos ? "" : std::string(target.substr(mark + 1));
  target = target.substr(0, mark);
  if (target.empty()) target = "/";
  if (target != "*" && target.front() != '/') return false;
  return percent_decode(target, path);
}

}  // namespace strata::http
