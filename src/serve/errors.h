// Errors of requests as HTTP answers. The one place where an ErrorCode becomes a status.
#pragma once

#include "base/result.h"
#include "http/server.h"

namespace strata::serve {

int http_status(ErrorCode code);
// Status, OpenAI error object and the headers clients act on (Retry-After, x-should-retry).
http::Response error_response(const Error& error);
Error error_of_status(int status, std::string_view message);

}  // namespace strata::serve
