#include "api/fields.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace strata::api {
namespace {

// A number as a person would write it: 2, not 2.0.
std::string plain(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return fmt::format("{:.0f}", value);
  return fmt::format("{}", value);
}

std::optional<std::int64_t> as_integer(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (number > static_cast<std::uint64_t>(INT64_MAX)) return std::nullopt;
    return static_cast<std::int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (number == std::floor(number) && std::abs(number) < 9e15)
      return static_cast<std::int64_t>(number);
  }
  return std::nullopt;
}

}  // namespace

std::string element_path(std::string_view path, std::size_t index) {
  return fmt::format("{}[{}]", path, index);
}

const Json* Fields::find(std::string_view name) const {
  const auto& members = object_.get_ref<const Json::object_t&>();
  for (const auto& [key, value] : members)
    if (key == name) return value.is_null() ? nullptr : &value;
  return nullptr;
}

std::string Fields::path_of(std::string_view name) const {
  if (name.empty()) return path_;
  return path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
}

void Fields::fail(std::string_view name, std::string message, std::string detail) {
  if (error_) return;
  auto path = path_of(name);
  error_ = Error{ErrorCode::kInvalidRequest, fmt::format("{} {}", path, message), std::move(path),
                 std::move(detail), 0};
}

std::optional<bool> Fields::boolean(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  fail(name, fmt::format("must be true or false, not a value of type {}", value->type_name()));
  return std::nullopt;
}

std::optional<double> Fields::number(std::string_view name, double min, double max) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) {
    fail(name, fmt::format("must be a number, not a value of type {}", value->type_name()));
    return std::nullopt;
  }
  const double number = value->get<double>();
  if (number >= min && number <= max) return number;
  fail(name,
       fmt::format("must be between {} and {}, not {}", plain(min), plain(max), plain(number)));
  return std::nullopt;
}

std::optional<std::int64_t> Fields::integer(std::string_view name, std::int64_t min,
                                            std::int64_t max) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  const auto number = as_integer(*value);
  if (!number) {
    if (value->is_number()) {
      fail(name, fmt::format("must be an integer between {} and {}", min, max));
    } else {
      fail(name, fmt::format("must be an integer, not a value of type {}", value->type_name()));
    }
    return std::nullopt;
  }
  if (*number >= min && *number <= max) return number;
  fail(name, fmt::format("must be between {} and {}, not {}", min, max, *number));
  return std::nullopt;
}

std::optional<std::string> Fields::text(std::string_view name, std::size_t max_bytes) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) {
    fail(name, fmt::format("must be a string, not a value of type {}", value->type_name()));
    return std::nullopt;
  }
  const auto& text = value->get_ref<const std::string&>();
  if (text.size() > max_bytes) {
    fail(name, fmt::format("must not be longer than {} bytes", max_bytes));
    return std::nullopt;
  }
  return text;
}

const Json* Fields::object(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr || value->is_object()) return value;
  fail(name, fmt::format("must be an object, not a value of type {}", value->type_name()));
  return nullptr;
}

const Json* Fields::array(std::string_view name, std::size_t max_size) {
  const Json* value = find(name);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) {
    fail(name, fmt::format("must be an array, not a value of type {}", value->type_name()));
    return nullptr;
  }
  if (value->size() <= max_size) return value;
  fail(name, fmt::format("must not have more than {} elements, not {}", max_size, value->size()));
  return nullptr;
}

Result<Json> parse_object(std::string_view body) {
  if (body.empty()) return invalid("the request body is empty; a JSON object is expected");
  auto document = parse_json(body, "the request body");
  if (!document) return document;
  if (!document->is_object())
    return invalid(fmt::format("the request body must be a JSON object, not a value of type {}",
                               document->type_name()));
  return document;
}

}  // namespace strata::api
