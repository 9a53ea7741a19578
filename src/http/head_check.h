// The strict reading of a request head. Whatever common servers and proxies disagree about is
// refused here, before the Beast parser sees it: a request must mean the same to everyone on its
// way. Pure functions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace strata::http {

inline constexpr int kMaxHeaderFields = 100;

// status 0: fine; else the HTTP status and one English sentence.
struct HeadVerdict {
  int status = 0;
  const char* message = "";
};

// `head`: from the request line up to and including the empty line.
HeadVerdict check_head(std::string_view head);

// A line feed without a carriage return before it, or a control byte no head may hold, in
// `bytes` from `from` on: such a head will never be completed and is refused at once.
bool has_bad_byte(std::string_view bytes, std::size_t from);

// Splits a request target (origin-form, absolute-form or "*") into the decoded path and the raw
// query. False for bad percent escapes, NUL bytes and targets that are neither.
bool split_target(std::string_view target, std::string& path, std::string& query);

}  // namespace strata::http
