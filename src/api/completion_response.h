// Answers of /v1/completions as JSON: whole and as server-sent events. Pure.
#pragma once

#include <string>
#include <vector>

#include "api/response_types.h"

namespace strata::api {

std::string completion_response(const AnswerIdentity& identity,
                                const std::vector<CompletionChoice>& choices, const Usage& usage,
                                const Timings& timings);

// Appends one event with one choice. `usage`: null, or the usage so far (continuous_usage_stats).
void completion_chunk(std::string& out, const AnswerIdentity& identity,
                      const CompletionChoice& choice, bool announce_usage, const Usage* usage);
// Appends the event after the last choice: choices: [] and the usage of all.
void completion_usage_chunk(std::string& out, const AnswerIdentity& identity, const Usage& usage,
                            const Timings& timings);

}  // namespace strata::api
