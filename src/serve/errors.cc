#include "serve/errors.h"

#include "api/objects.h"

namespace strata::serve {

int http_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidRequest:
    case ErrorCode::kContextOverflow:
    case ErrorCode::kContentFilter: return 400;
    case ErrorCode::kUnauthorized: return 401;
    case ErrorCode::kForbidden: return 403;
    case ErrorCode::kNotFound: return 404;
    case ErrorCode::kMethodNotAllowed: return 405;
    case ErrorCode::kTimeout: return 408;
    case ErrorCode::kTooLarge: return 413;
    case ErrorCode::kUnsupportedMedia: return 415;
    case ErrorCode::kRateLimited: return 429;
    case ErrorCode::kCancelled: return 499;
    case ErrorCode::kUnavailable:
    case ErrorCode::kInsufficientMemory: return 503;
    case ErrorCode::kInternal: break;
  }
  return 500;
}

http::Response error_response(const Error& error) {
  http::Response response;
  response.status = http_status(error.code);
  response.body = api::error_object(error);
  if (error.retry_after_s > 0)
    response.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  // OpenAI's clients retry 408, 409, 429 and 5xx by themselves.
  if (error.code == ErrorCode::kInternal) response.headers.emplace_back("x-should-retry", "false");
  return response;
}

Error error_of_status(int status, std::string_view message) {
  Error error;
  error.message = std::string(message);
  switch (status) {
    case 408: error.code = ErrorCode::kTimeout; break;
    case 413: error.code = ErrorCode::kTooLarge; break;
    case 431:
      error.code = ErrorCode::kInvalidRequest;
      error.detail = "headers_too_large";
      break;
    case 503: error.code = ErrorCode::kUnavailable; break;
    default:
      error.code = ErrorCode::kInvalidRequest;
      error.detail = "bad_http_request";
      break;
  }
  return error;
}

}  // namespace strata::serve
