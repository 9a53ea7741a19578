// The files of the chat page, embedded in the program.
#pragma once

#include <optional>
#include <string_view>

#include "http/server.h"

namespace strata::serve {

// The answer for "/", "/chat" and the files the page loads; nothing for other paths.
std::optional<http::Response> page_response(std::string_view path);

}  // namespace strata::serve
