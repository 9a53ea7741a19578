#include "serve/access.h"

#include <algorithm>
#include <cctype>
#include <span>

namespace strata::serve {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

Sha256Digest digest(std::string_view text) {
  return sha256(std::as_bytes(std::span(text.data(), text.size())));
}

// Every byte is looked at, whatever the first ones are.
bool equal(const Sha256Digest& a, const Sha256Digest& b) {
  unsigned difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned>(a[i] ^ b[i]);
  return difference == 0;
}

std::string_view key_of(const http::Request& request) {
  const auto authorization = request.header("authorization");
  constexpr std::string_view kBearer = "bearer ";
  if (authorization.size() > kBearer.size() &&
      lower(authorization.substr(0, kBearer.size())) == kBearer) {
    auto key = authorization.substr(kBearer.size());
    while (!key.empty() && key.front() == ' ') key.remove_prefix(1);
    return key;
  }
  return request.header("x-api-key");
}

// "localhost:8000" -> "localhost", "[::1]:8000" -> "[::1]".
std::string_view without_port(std::string_view host) {
  const auto bracket = host.find(']');
  const auto colon = host.find(':', bracket == std::string_view::npos ? 0 : bracket);
  return host.substr(0, colon);
}

std::string_view without_scheme(std::string_view origin) {
  const auto at = origin.find("://");
  return at == std::string_view::npos ? std::string_view() : origin.substr(at + 3);
}

bool is_local(std::string_view host) {
  constexpr std::string_view kSuffix = ".localhost";
  return host == "localhost" || host == "127.0.0.1" || host == "[::1]" ||
         (host.size() > kSuffix.size() && host.substr(host.size() - kSuffix.size()) == kSuffix);
}

}  // namespace

Access::Access(const ServiceOptions& options) : checks_host_(options.check_host) {
  for (const auto& key : options.api_keys) keys_.push_back(digest(key));
  for (const auto& origin : options.allowed_origins) {
    if (origin == "*") any_origin_ = true;
    origins_.push_back(lower(origin));
  }
}

bool Access::is_allowed_host(std::string_view host) const {
  if (any_origin_) return true;
  return std::any_of(origins_.begin(), origins_.end(), [host](const std::string& origin) {
    return without_port(without_scheme(origin)) == host;
  });
}

std::optional<Error> Access::check_host(const http::Request& request) const {
  if (!checks_host_) return std::nullopt;
  const auto host = lower(without_port(request.header("host")));
  if (host.empty() || is_local(host) || is_allowed_host(host)) return std::nullopt;
  return Error{ErrorCode::kForbidden,
               "the Host header names another machine than this one; a server without an API key "
               "answers to local names and to the hosts of --allowed-origins",
               "host", "host_not_allowed", 0};
}

std::optional<Error> Access::check_key(const http::Request& request) const {
  if (keys_.empty()) return std::nullopt;
  const auto given = key_of(request);
  const auto given_digest = digest(given);
  bool known = false;
  for (const auto& key : keys_) known |= equal(key, given_digest);
  if (known) return std::nullopt;
  return Error{ErrorCode::kUnauthorized,
               given.empty() ? "an API key is needed: send it as Authorization: Bearer KEY"
                             : "the API key is not correct",
               "", "invalid_api_key", 0};
}

Sha256Digest Access::client(const http::Request& request) const {
  return keys_.empty() ? Sha256Digest{} : digest(key_of(request));
}

bool Access::origin_allowed(const http::Request& request) const {
  if (any_origin_) return true;
  const auto origin = lower(request.header("origin"));
  if (std::find(origins_.begin(), origins_.end(), origin) != origins_.end()) return true;
  const auto host = without_scheme(origin);
  return !host.empty() && (is_local(without_port(host)) || host == lower(request.header("host")));
}

std::optional<Error> Access::check_origin(const http::Request& request) const {
  const bool reads = request.method == "GET" || request.method == "HEAD";
  if (reads || request.header("origin").empty() || origin_allowed(request)) return std::nullopt;
  return Error{ErrorCode::kForbidden,
               "pages of this origin may not use the server; allow it with --allowed-origins",
               "origin", "origin_not_allowed", 0};
}

Access::Headers Access::cors_headers(const http::Request& request) const {
  const auto origin = request.header("origin");
  if (origin.empty()) return {};
  Headers out = {{"Vary", "Origin"}};
  if (!origin_allowed(request)) return out;
  out.emplace_back("Access-Control-Allow-Origin", std::string(origin));
  out.emplace_back("Access-Control-Expose-Headers",
                   "x-request-id, x-strata-stream-id, openai-processing-ms, retry-after, "
                   "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
                   "x-ratelimit-reset-requests, x-ratelimit-limit-tokens, "
                   "x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens");
  return out;
}

http::Response Access::preflight(const http::Request& request, std::string_view methods) const {
  http::Response response;
  response.status = 204;
  response.headers.emplace_back("Allow", std::string(methods));
  if (request.header("origin").empty() || !origin_allowed(request)) return response;
  response.headers.emplace_back("Access-Control-Allow-Methods", std::string(methods));
  const auto asked = request.header("access-control-request-headers");
  if (!asked.empty())
    response.headers.emplace_back("Access-Control-Allow-Headers", std::string(asked));
  response.headers.emplace_back("Access-Control-Max-Age", "600");
  return response;
}

}  // namespace strata::serve
