// Reading of the golden data files (tests/golden/README.md): JSON with base64 number arrays.
#pragma once

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"

namespace strata::test {

inline std::string golden_path(std::string_view name) {
  return std::string(STRATA_SOURCE_DIR) + "/tests/golden/data/" + std::string(name);
}

inline std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline std::string from_base64(std::string_view text) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  unsigned held = 0;
  int bits = 0;
  for (const char c : text) {
    const auto digit = kDigits.find(c);
    if (digit == std::string_view::npos) continue;  // padding
    held = held << 6 | static_cast<unsigned>(digit);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes.push_back(static_cast<char>(held >> bits & 0xffU));
  }
  return bytes;
}

template <typename T>
std::vector<T> numbers(const nlohmann::json& base64) {
  const std::string bytes = from_base64(base64.get<std::string>());
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

inline std::vector<TokenId> token_ids(const nlohmann::json& base64) {
  const auto halves = numbers<std::uint16_t>(base64);
  return {halves.begin(), halves.end()};
}

}  // namespace strata::test
