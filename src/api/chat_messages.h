// The `messages` array; internal to api/.
#pragma once

#include <optional>
#include <vector>

#include "api/chat_request.h"
#include "api/fields.h"

namespace strata::api {

void parse_messages(Fields& fields, std::optional<Error>& error, std::vector<ChatMessage>& out);

}  // namespace strata::api
