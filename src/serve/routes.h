// The service's routes; internal to serve/.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "serve/call.h"

namespace strata::serve {

// Answers the call, now or later: checks who asks, finds the route, runs it.
void route(const std::shared_ptr<Call>& call);

// "//v1/models/" -> "/models": doubled and closing slashes and the /v1 prefix are optional.
std::string canonical_path(std::string_view path);

}  // namespace strata::serve
