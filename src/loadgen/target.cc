// The parts of http_client.h that need no sockets of their own.
#include <algorithm>

#include "base/result.h"
#include "loadgen/http_client.h"

namespace strata::loadgen {
namespace {

class WholeAnswer final : public Receiver {
 public:
  void on_head(int status, const Header& /*header*/) override { answer.status = status; }
  void on_body(std::string_view piece) override { answer.body += piece; }
  void on_end(const std::string& error) override { answer.error = error; }
  HttpAnswer answer;
};

[[noreturn]] void bad_url(const std::string& url, const std::string& hint) {
  throw StartupError("'" + url + "' is no base URL", hint);
}

}  // namespace

std::string Target::host_header() const {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + port;
}

Target parse_target(const std::string& url) {
  constexpr std::string_view kScheme = "http://";
  if (url.starts_with("https://"))
    bad_url(url, "TLS is not spoken: measure the server itself, or put a proxy in between");
  if (!url.starts_with(kScheme)) bad_url(url, "write http://HOST:PORT");
  std::string_view rest = std::string_view(url).substr(kScheme.size());
  Target target;
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  target.prefix = rest.substr(slash);
  while (target.prefix.ends_with('/')) target.prefix.pop_back();
  rest = rest.substr(0, slash);
  const std::size_t bracket = rest.starts_with('[') ? rest.find(']') : 0;
  if (bracket == std::string_view::npos) bad_url(url, "the ] of the address is missing");
  const std::size_t colon = std::min(rest.find(':', bracket), rest.size());
  target.host = bracket > 0 ? rest.substr(1, bracket - 1) : rest.substr(0, colon);
  target.port = colon < rest.size() ? std::string(rest.substr(colon + 1)) : "80";
  const bool digits = target.port.find_first_not_of("0123456789") == std::string::npos;
  if (target.host.empty() || target.port.empty() || target.port.size() > 5 || !digits)
    bad_url(url, "write http://HOST:PORT");
  return target;
}

HttpAnswer http_get(const Target& target, const std::string& path,
                    const std::vector<std::pair<std::string, std::string>>& headers) {
  HttpClient client(target);
  const auto receiver = std::make_shared<WholeAnswer>();
  client.send({"GET", path, headers, {}}, receiver);
  client.run();
  return receiver->answer;
}

}  // namespace strata::loadgen
