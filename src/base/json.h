// Strict JSON reading: duplicate keys, trailing bytes, invalid UTF-8, too deep or too wide
// documents are errors that name the byte offset. Key order is kept (tool schemas need it).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"

namespace strata {

using Json = nlohmann::ordered_json;

struct JsonLimits {
  std::size_t max_depth = 64;
  std::size_t max_members = 65536;  // keys of one object, elements are not limited
};

// `what` names the document in the error message ("request body", "config.json").
Result<Json> parse_json(std::string_view text, std::string_view what,
                        const JsonLimits& limits = {});

// Appends `text` as a JSON string literal with quotes. Invalid UTF-8 becomes U+FFFD.
void append_json_string(std::string& out, std::string_view text);

}  // namespace strata
