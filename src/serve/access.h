// Who may use the service: API keys, Host and Origin headers. Immutable, any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/sha256.h"
#include "http/server.h"
#include "serve/service.h"

namespace strata::serve {

class Access {
 public:
  explicit Access(const ServiceOptions& options);

  // DNS rebinding: a page of another site whose name points at this machine.
  std::optional<Error> check_host(const http::Request& request) const;
  // The key in Authorization or X-Api-Key. Takes the same time whichever key is how wrong.
  std::optional<Error> check_key(const http::Request& request) const;
  // Whose request it is: the digest of its key; zero where any key is accepted.
  Sha256Digest client(const http::Request& request) const;
  // A page of a site that is not allowed may not start work here.
  std::optional<Error> check_origin(const http::Request& request) const;

  using Headers = std::vector<std::pair<std::string, std::string>>;
  // What every answer to this request carries for browsers.
  Headers cors_headers(const http::Request& request) const;
  // The answer to OPTIONS.
  http::Response preflight(const http::Request& request, std::string_view methods) const;

 private:
  bool origin_allowed(const http::Request& request) const;
  bool is_allowed_host(std::string_view host) const;

  std::vector<Sha256Digest> keys_;
  bool checks_host_ = false;
  std::vector<std::string> origins_;
  bool any_origin_ = false;
};

}  // namespace strata::serve
