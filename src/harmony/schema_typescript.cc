// JSON schema -> the TypeScript-like type of the developer message. The layout, odd as some of it
// is, is what the model was trained on: it follows openai/harmony's encoding.rs to the byte.
#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "harmony/render.h"

namespace strata::harmony {
namespace {

const Json* member(const Json& schema, const char* key) {
  if (!schema.is_object()) return nullptr;
  const auto at = schema.find(key);
  return at == schema.end() ? nullptr : &*at;
}

const std::string* string_member(const Json& schema, const char* key) {
  const Json* value = member(schema, key);
  return value != nullptr && value->is_string() ? value->get_ptr<const std::string*>() : nullptr;
}

const Json* array_member(const Json& schema, const char* key) {
  const Json* value = member(schema, key);
  return value != nullptr && value->is_array() ? value : nullptr;
}

bool is_enum(const Json& schema) {
  const Json* values = array_member(schema, "enum");
  return values != nullptr && !values->empty();
}

bool is_nullable(const Json& schema) {
  const Json* value = member(schema, "nullable");
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

// Shortest decimal form, laid out as Rust's serde_json does: 1.0, 0.00001, 1e16, 1.5e-7.
std::string number_text(double value) {
  std::array<char, 40> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), std::fabs(value),
                                 std::chars_format::scientific)
                       .ptr;
  const std::string_view text(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
  const std::size_t e = text.find('e');
  std::string digits(text.substr(0, e));
  std::erase(digits, '.');
  int exponent = 0;
  const std::size_t sign = text[e + 1] == '+' ? 2 : 1;
  std::from_chars(text.data() + e + sign, end, exponent);
  const int count = static_cast<int>(digits.size());
  const int point = exponent + 1;  // the decimal point stands before digit `point`
  std::string out = std::signbit(value) ? "-" : "";
  if (point >= count && point <= 16)
    return out + digits + std::string(static_cast<std::size_t>(point - count), '0') + ".0";
  if (point > 0 && point <= 16) return out + digits.insert(static_cast<std::size_t>(point), ".");
  if (point > -5 && point <= 0)
    return out + "0." + std::string(static_cast<std::size_t>(-point), '0') + digits;
  if (count > 1) digits.insert(1, ".");
  return out + digits + "e" + std::to_string(point - 1);
}

std::string compact_json(const Json& value) {
  if (value.is_number_float()) return number_text(value.get<double>());
  if (!value.is_structured()) return value.dump();
  std::string out(1, value.is_array() ? '[' : '{');
  for (const auto& item : value.items()) {
    if (out.size() > 1) out += ',';
    if (value.is_object()) out += Json(item.key()).dump() + ":";
    out += compact_json(item.value());
  }
  return out + (value.is_array() ? ']' : '}');
}

std::string type_of(const Json& schema, const std::string& indent);

// A string default stands in quotes unless it is one of an enum's values.
std::string default_text(const Json& schema, const Json& value) {
  if (!value.is_string()) return compact_json(value);
  const auto& text = value.get_ref<const std::string&>();
  return is_enum(schema) ? text : "\"" + text + "\"";
}

std::string enum_values(const Json& schema) {
  std::string out;
  if (const Json* values = array_member(schema, "enum"))
    for (const Json& value : *values)
      if (value.is_string())
        out += (out.empty() ? "\"" : " | \"") + value.get_ref<const std::string&>() + "\"";
  return out.empty() ? "string" : out;
}

std::string type_list(const Json& types) {
  std::string out;
  for (const Json& type : types) {
    if (!type.is_string()) continue;
    const auto& name = type.get_ref<const std::string&>();
    out += (out.empty() ? "" : " | ") + (name == "integer" ? "number" : name);
  }
  return out;
}

std::string nullable_type(const Json& schema, const std::string& indent) {
  std::string out = type_of(schema, indent);
  if (is_nullable(schema) && out.find("null") == std::string::npos) out += " | null";
  return out;
}

// One variant a line, its description and default behind it. Here, unlike in properties, the
// default of an enum is written as JSON.
std::string one_of_type(const Json& variants, const std::string& indent) {
  std::string out;
  for (const Json& variant : variants) {
    out += "\n" + indent + " | " + nullable_type(variant, indent + "   ");
    const std::string* description = string_member(variant, "description");
    const Json* preset = member(variant, "default");
    if (description != nullptr || preset != nullptr) out += " //";
    if (description != nullptr) out += " " + *description;
    if (preset == nullptr) continue;
    const bool bare = preset->is_string() && !is_enum(variant);
    out += " default: " + (bare ? default_text(variant, *preset) : compact_json(*preset));
  }
  return out;
}

// Description and default stand above the name; a description that the first variant shares stands
// behind no variant.
std::string one_of_property(const std::string& head, const Json& schema,
                            const std::string& indent) {
  const Json& variants = *array_member(schema, "oneOf");
  const std::string* description = string_member(schema, "description");
  const std::string* first =
      variants.empty() ? nullptr : string_member(variants.front(), "description");
  const bool shared = description != nullptr && first != nullptr && *description == *first;
  const bool above = description != nullptr && !shared;
  std::string out;
  if (above) out += indent + "// " + *description + "\n";
  if (const Json* preset = member(schema, "default"))
    out += indent + "// default: " + default_text(schema, *preset) + "\n";
  out += head + "\n";
  for (std::size_t i = 0; i < variants.size(); ++i) {
    const Json& variant = variants[i];
    out += indent + " | " + nullable_type(variant, indent + "   ");
    const std::string* text = string_member(variant, "description");
    if ((i == 0 && above) || (text != nullptr && description != nullptr && *text == *description))
      text = nullptr;
    const Json* preset = member(variant, "default");
    if (text != nullptr || preset != nullptr) out += " //";
    if (text != nullptr) out += " " + *text;
    if (preset != nullptr) out += " default: " + default_text(variant, *preset);
    out += "\n";
  }
  return out + indent + ",\n";
}

std::string property(const std::string& name, const Json& schema, bool required,
                     const std::string& indent) {
  std::string out;
  const bool has_one_of = member(schema, "oneOf") != nullptr;
  const std::string head = indent + name + (required ? ":" : "?:");
  if (const std::string* title = string_member(schema, "title"))
    out += indent + "// " + *title + "\n" + indent + "//\n";
  if (const std::string* description = string_member(schema, "description");
      description != nullptr && !has_one_of)
    out += indent + "// " + *description + "\n";
  if (const Json* examples = array_member(schema, "examples");
      examples != nullptr && !examples->empty()) {
    out += indent + "// Examples:\n";
    for (const Json& example : *examples)
      if (example.is_string())
        out += indent + "// - \"" + example.get_ref<const std::string&>() + "\"\n";
  }
  if (array_member(schema, "oneOf") != nullptr) return out + one_of_property(head, schema, indent);
  out += head + " " + nullable_type(schema, indent + "    ") + ",";
  const Json* preset = member(schema, "default");
  if (preset != nullptr && !has_one_of) out += " // default: " + default_text(schema, *preset);
  return out + "\n";
}

std::string object_type(const Json& schema, const std::string& indent) {
  std::string out;
  if (const std::string* description = string_member(schema, "description"))
    out += indent + "// " + *description + "\n";
  out += "{\n";
  const Json* properties = member(schema, "properties");
  const Json* required = array_member(schema, "required");
  if (properties != nullptr && properties->is_object()) {
    for (const auto& item : properties->items()) {
      bool needed = false;
      if (required != nullptr)
        for (const Json& name : *required) needed |= name.is_string() && name == item.key();
      out += property(item.key(), item.value(), needed, indent);
    }
  }
  return out + indent + "}";
}

std::string type_of(const Json& schema, const std::string& indent) {
  if (const Json* variants = array_member(schema, "oneOf")) return one_of_type(*variants, indent);
  if (const Json* types = array_member(schema, "type"))
    if (std::string list = type_list(*types); !list.empty()) return list;
  const std::string* name = string_member(schema, "type");
  if (name == nullptr) return "any";
  if (*name == "object") return object_type(schema, indent);
  if (*name == "string") return enum_values(schema);
  if (*name == "number" || *name == "integer") return "number";
  if (*name == "boolean") return "boolean";
  if (*name != "array") return "any";
  const Json* items = member(schema, "items");
  return items == nullptr ? "Array<any>" : type_of(*items, indent) + "[]";
}

}  // namespace

Result<std::string> schema_to_typescript(const std::string& schema_json) {
  const Result<Json> schema = parse_json(schema_json, "schema");
  if (!schema) return tl::make_unexpected(schema.error());
  return type_of(*schema, "");
}

}  // namespace strata::harmony
