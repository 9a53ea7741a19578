// Values of flags: text -> checked numbers. Every function throws StartupError (exit code
// kExitUsage) naming the flag, the value and what is allowed. Pure.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace strata::app {

[[noreturn]] void usage_error(const std::string& message, std::string hint = {});

std::int64_t parse_integer(std::string_view flag, std::string_view text, std::int64_t min,
                           std::int64_t max);
double parse_real(std::string_view flag, std::string_view text, double min, double max);

// A count of tokens: 4096, 32k (32,000), 32K (32,768), 25.6k. "auto" and -1 yield 0.
std::int32_t parse_token_count(std::string_view flag, std::string_view text);

// Bytes with an optional unit: 8GiB, 8G (the same), 512M, 1.5T; without one the number is
// multiplied by `unit_bytes`.
std::int64_t parse_bytes(std::string_view flag, std::string_view text, std::int64_t unit_bytes);

// YYYY-MM-DD, an existing day.
std::string parse_date(std::string_view flag, std::string_view text);

// The value paired with `text`; fails listing what is allowed.
template <typename T>
T parse_choice(std::string_view flag, std::string_view text,
               std::initializer_list<std::pair<std::string_view, T>> choices) {
  std::string allowed;
  for (const auto& [name, value] : choices) {
    if (text == name) return value;
    allowed += (allowed.empty() ? "" : ", ") + std::string(name);
  }
  usage_error(std::string(flag) + " cannot be '" + std::string(text) + "'", "allowed: " + allowed);
}

}  // namespace strata::app
