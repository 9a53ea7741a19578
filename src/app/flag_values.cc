#include "app/flag_values.h"

#include <fmt/core.h>

#include <charconv>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>

#include "app/exit_code.h"

namespace strata::app {
namespace {

template <typename T>
std::optional<T> parse_whole(std::string_view text) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || text.empty()) return std::nullopt;
  return value;
}

// "25.6" and "k" of "25.6k"; the unit may be empty.
struct NumberWithUnit {
  double number = 0.0;
  std::string_view unit;
};

std::optional<NumberWithUnit> split_unit(std::string_view text) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const auto number = parse_whole<double>(text.substr(0, digits));
  if (!number) return std::nullopt;
  return NumberWithUnit{*number, text.substr(digits)};
}

}  // namespace

void usage_error(const std::string& message, std::string hint) {
  throw StartupError(message, std::move(hint), kExitUsage);
}

std::int64_t parse_integer(std::string_view flag, std::string_view text, std::int64_t min,
                           std::int64_t max) {
  const auto value = parse_whole<std::int64_t>(text);
  if (!value) usage_error(fmt::format("{} needs a whole number, not '{}'", flag, text));
  if (*value < min || *value > max)
    usage_error(fmt::format("{} must lie between {} and {}, not {}", flag, min, max, *value));
  return *value;
}

double parse_real(std::string_view flag, std::string_view text, double min, double max) {
  const auto value = parse_whole<double>(text);
  if (!value || !std::isfinite(*value))
    usage_error(fmt::format("{} needs a number, not '{}'", flag, text));
  if (*value < min || *value > max)
    usage_error(fmt::format("{} must lie between {} and {}, not {}", flag, min, max, *value));
  return *value;
}

std::int32_t parse_token_count(std::string_view flag, std::string_view text) {
  if (text == "auto" || text == "-1") return 0;
  const auto parts = split_unit(text);
  double scale = 1.0;
  bool known = parts.has_value();
  if (known && !parts->unit.empty()) {
    if (parts->unit == "k") scale = 1e3;
    else if (parts->unit == "K") scale = 1024.0;
    else if (parts->unit == "m") scale = 1e6;
    else if (parts->unit == "M") scale = 1048576.0;
    else known = false;
  }
  const double tokens = known ? std::round(parts->number * scale) : 0.0;
  if (!known || (scale == 1.0 && tokens != parts->number))
    usage_error(fmt::format("{} needs a number of tokens, not '{}'", flag, text),
                "write 4096, 32k (32,000), 32K (32,768) or auto");
  if (tokens < 1.0 || tokens > std::numeric_limits<std::int32_t>::max())
    usage_error(fmt::format("{} must lie between 1 and {}, not {}", flag,
                            std::numeric_limits<std::int32_t>::max(), text));
  return static_cast<std::int32_t>(tokens);
}

std::int64_t parse_bytes(std::string_view flag, std::string_view text, std::int64_t unit_bytes) {
  const auto parts = split_unit(text);
  double scale = static_cast<double>(unit_bytes);
  bool known = parts.has_value();
  if (known && !parts->unit.empty()) {
    const std::string_view unit = parts->unit;
    const std::size_t power = std::string_view("BKMGT").find(unit[0]);
    const std::string_view rest = unit.substr(1);
    known = power != std::string_view::npos && (rest.empty() || (power > 0 && rest == "iB"));
    if (known) scale = std::ldexp(1.0, static_cast<int>(10 * power));
  }
  const double bytes = known ? std::round(parts->number * scale) : -1.0;
  if (bytes < 0.0 || bytes > 0x1p60)
    usage_error(fmt::format("{} needs a size, not '{}'", flag, text),
                "write a number with a unit: 512MiB, 8GiB, 1.5T");
  return static_cast<std::int64_t>(bytes);
}

std::string parse_date(std::string_view flag, std::string_view text) {
  namespace chrono = std::chrono;
  if (text.size() == 10 && text[4] == '-' && text[7] == '-') {
    const auto year = parse_whole<int>(text.substr(0, 4));
    const auto month = parse_whole<unsigned>(text.substr(5, 2));
    const auto day = parse_whole<unsigned>(text.substr(8, 2));
    if (year && month && day &&
        chrono::year_month_day(chrono::year(*year), chrono::month(*month), chrono::day(*day)).ok())
      return std::string(text);
  }
  usage_error(fmt::format("{} needs a date as YYYY-MM-DD, not '{}'", flag, text));
}

}  // namespace strata::app
