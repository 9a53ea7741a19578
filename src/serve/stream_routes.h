// Routes that name a request by the id of its answer; internal to serve/.
#pragma once

#include <memory>
#include <string>

#include "serve/call.h"

namespace strata::serve {

// GET /streams/{id}: the events of a resumable stream from `?from=` or behind Last-Event-ID on.
void resume_stream(const std::shared_ptr<Call>& call, const std::string& id);
// DELETE /streams/{id}: ends the request and forgets its events.
void delete_stream(const std::shared_ptr<Call>& call, const std::string& id);
// POST /chat/completions/{id}/answer_now: ends the reasoning of a running chat.
void answer_now(const std::shared_ptr<Call>& call, const std::string& id);

}  // namespace strata::serve
