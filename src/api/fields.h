// Reading of one JSON object's members with range checks; internal to api/. The first thing that
// is wrong is kept as the error, with the member's path as its `param`; later ones are ignored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace strata::api {

class Fields {
 public:
  // `object` REQUIRES to be a JSON object that outlives this. `path`: "" or "messages[0]".
  Fields(const Json& object, std::string path, std::optional<Error>& error)
      : object_(object), path_(std::move(path)), error_(error) {}

  // nullptr when the member is absent or null, which mean the same everywhere.
  const Json* find(std::string_view name) const;
  bool has(std::string_view name) const { return find(name) != nullptr; }

  std::optional<bool> boolean(std::string_view name);
  std::optional<double> number(std::string_view name, double min, double max);
  std::optional<std::int64_t> integer(std::string_view name, std::int64_t min, std::int64_t max);
  std::optional<std::string> text(std::string_view name, std::size_t max_bytes = kAnyLength);
  // A member that must be an object or array of at most `max_size` elements.
  const Json* object(std::string_view name);
  const Json* array(std::string_view name, std::size_t max_size);

  std::string path_of(std::string_view name) const;
  void fail(std::string_view name, std::string message, std::string detail = {});
  bool ok() const { return !error_.has_value(); }

  static constexpr std::size_t kAnyLength = static_cast<std::size_t>(-1);

 private:
  const Json& object_;
  const std::string path_;
  std::optional<Error>& error_;
};

std::string element_path(std::string_view path, std::size_t index);

// The document as an object, or an error that says what came instead.
Result<Json> parse_object(std::string_view body);

}  // namespace strata::api
