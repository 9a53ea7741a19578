#include "base/json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace strata {
namespace {

TEST(Json, KeepsKeyOrder) {
  const auto json = parse_json(R"({"b":1,"a":[true,null,"x",-2,1.5],"c":{"z":1,"y":2}})", "test");
  ASSERT_TRUE(json.has_value());
  EXPECT_EQ(json->dump(), R"({"b":1,"a":[true,null,"x",-2,1.5],"c":{"z":1,"y":2}})");
}

TEST(Json, NamesTheByteOffset) {
  const auto json = parse_json(R"({"a": tru})", "request body");
  ASSERT_FALSE(json.has_value());
  EXPECT_NE(json.error().message.find("request body is not valid JSON at byte 9"),
            std::string::npos)
      << json.error().message;
}

TEST(Json, RefusesDuplicateKeysDepthAndTrailingBytes) {
  EXPECT_NE(parse_json(R"({"a":1,"a":2})", "t").error().message.find("duplicate key \"a\""),
            std::string::npos);
  EXPECT_FALSE(parse_json(std::string(100, '[') + std::string(100, ']'), "t").has_value());
  EXPECT_FALSE(parse_json("{} x", "t").has_value());
  EXPECT_FALSE(parse_json("", "t").has_value());
  EXPECT_FALSE(parse_json("\"\xc3\x28\"", "t").has_value());
  EXPECT_FALSE(parse_json("\"\\ud800\"", "t").has_value());
}

TEST(Json, ManyKeysAreLinear) {
  std::string text = "{";
  for (int i = 0; i < 60000; ++i) text += (i == 0 ? "\"k" : ",\"k") + std::to_string(i) + "\":0";
  text += "}";
  EXPECT_TRUE(parse_json(text, "t").has_value());
  EXPECT_FALSE(parse_json(text, "t", {.max_depth = 64, .max_members = 1000}).has_value());
}

TEST(Json, EscapesStrings) {
  std::string out;
  append_json_string(out, std::string_view("a\"\\\n\x01\xff\xe4\xb8\xad", 9));
  EXPECT_EQ(out, "\"a\\\"\\\\\\n\\u0001\xef\xbf\xbd\xe4\xb8\xad\"");
}

}  // namespace
}  // namespace strata
