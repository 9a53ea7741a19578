// Writing of response heads; internal to http/.
#pragma once

#include <string>

#include "http/server.h"

namespace strata::http {

enum class BodyFraming {
  kLength,   // Content-Length of response.body
  kChunked,  // Transfer-Encoding: chunked
  kClose,    // until the connection closes (HTTP/1.0 streams)
};

// The status line and headers with the empty line. Headers that could break the framing (a CR, LF
// or NUL in a name or value) are left out.
std::string response_head(const Response& response, BodyFraming framing, bool close);

// Appends one chunk; nothing for an empty piece, which would end the body.
void append_chunk(std::string& out, std::string_view piece);

}  // namespace strata::http
