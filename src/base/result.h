// Result<T>: a value or an Error, for everything a request can get wrong.
// Start-up trouble throws StartupError instead (one catch, in main); broken invariants CHECK.
#pragma once

#include <stdexcept>
#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace strata {

// Who is at fault decides the HTTP status; serve/errors maps each code exactly once.
enum class ErrorCode {
  kInvalidRequest,      // client: a field is wrong (400)
  kContextOverflow,     // client: prompt and answer do not fit the context (400)
  kUnauthorized,        // client: missing or wrong API key (401)
  kForbidden,           // client: refused by policy, such as a foreign Host header (403)
  kNotFound,            // client: no such route, model or object (404)
  kMethodNotAllowed,    // client (405)
  kTimeout,             // client too slow (408)
  kTooLarge,            // client: body over the limit (413)
  kUnsupportedMedia,    // client: wrong content type (415)
  kRateLimited,         // client or load: try again later (429)
  kContentFilter,       // client: a guard rule blocked the input (400)
  kUnavailable,         // operator or load: loading, draining, breaker open (503)
  kInsufficientMemory,  // operator: memory for this request cannot be had now (503)
  kCancelled,           // client went away (499 in logs, never sent)
  kInternal,            // bug or dead device (500)
};

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;    // one plain English sentence for a person
  std::string param;      // the request field at fault, empty when none
  std::string detail;     // stable machine-readable code such as "context_length_exceeded"
  int retry_after_s = 0;  // > 0: seconds for the Retry-After header
};

template <typename T>
using Result = tl::expected<T, Error>;

using Unexpected = tl::unexpected<Error>;

inline Unexpected fail(ErrorCode code, std::string message, std::string param = {},
                       std::string detail = {}) {
  return Unexpected(Error{code, std::move(message), std::move(param), std::move(detail), 0});
}

inline Unexpected invalid(std::string message, std::string param = {}) {
  return fail(ErrorCode::kInvalidRequest, std::move(message), std::move(param));
}

// Start-up trouble: flags, files, devices. `hint` says what the operator can do about it.
class StartupError : public std::runtime_error {
 public:
  explicit StartupError(const std::string& message, std::string hint = {}, int exit_code = 2)
      : std::runtime_error(message), hint_(std::move(hint)), exit_code_(exit_code) {}
  const std::string& hint() const { return hint_; }
  int exit_code() const { return exit_code_; }

 private:
  std::string hint_;
  int exit_code_;
};

// The device under a backend died (illegal address, lost card, injected fault). Caught once, in
// Engine's loop: every client gets an answer, health turns red, the engine is rebuilt or exits.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// An allocation at a named site failed. A scheduling outcome where the engine can shed load.
class MemoryError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace strata
