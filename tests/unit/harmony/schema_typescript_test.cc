// Expected texts were derived by hand from the rules of openai/harmony's encoding.rs.
#include <gmock/gmock.h>

#include "harmony/render.h"

namespace strata::harmony {
namespace {

std::string type_of(const std::string& schema) {
  const auto type = schema_to_typescript(schema);
  return type ? *type : "error: " + type.error().message;
}

// The type of one optional property `p`.
std::string property(const std::string& schema) {
  const std::string text = type_of(R"({"type":"object","properties":{"p":)" + schema + "}}");
  EXPECT_TRUE(text.starts_with("{\n") && text.ends_with("}")) << text;
  return text.substr(2, text.size() - 3);
}

TEST(SchemaTypescript, PlainTypes) {
  EXPECT_EQ(type_of(R"({"type":"string"})"), "string");
  EXPECT_EQ(type_of(R"({"type":"number"})"), "number");
  EXPECT_EQ(type_of(R"({"type":"integer"})"), "number");
  EXPECT_EQ(type_of(R"({"type":"boolean"})"), "boolean");
  EXPECT_EQ(type_of(R"({"type":"array"})"), "Array<any>");
  EXPECT_EQ(type_of(R"({"type":"array","items":{"type":"integer"}})"), "number[]");
  EXPECT_EQ(type_of(R"({"type":["integer","null"]})"), "number | null");
  EXPECT_EQ(type_of(R"({"type":"object"})"), "{\n}");
}

TEST(SchemaTypescript, UnknownThingsAreAny) {
  for (const char* schema :
       {"{}", "true", "[]", "7", R"({"type":"null"})", R"({"type":[]})", R"({"type":7})",
        R"({"anyOf":[{"type":"string"}]})", R"({"$ref":"#/$defs/a"})", R"({"const":1})",
        R"({"enum":["a"]})", R"({"oneOf":7})"})
    EXPECT_EQ(type_of(schema), "any") << schema;
}

TEST(SchemaTypescript, Enums) {
  EXPECT_EQ(type_of(R"({"type":"string","enum":["a","b \"c\""]})"), R"("a" | "b "c"")");
  EXPECT_EQ(type_of(R"({"type":"string","enum":[]})"), "string");
  EXPECT_EQ(type_of(R"({"type":"string","enum":[1,2]})"), "string");
  EXPECT_EQ(type_of(R"({"type":"integer","enum":[1,2]})"), "number");
}

TEST(SchemaTypescript, ObjectsKeepTheOrderOfTheSchema) {
  EXPECT_EQ(type_of(R"({"description":"args","type":"object","required":["z"],"properties":{
                "z":{"type":"string","description":"last\nfirst"},
                "a":{"type":"integer"}}})"),
            "// args\n{\n// last\nfirst\nz: string,\na?: number,\n}");
}

TEST(SchemaTypescript, NestedObjectsAreIndentedByFour) {
  EXPECT_EQ(property(R"({"type":"object","description":"box","properties":{
                "q":{"type":"array","items":{"type":"object","properties":{"r":{}}}}}})"),
            "// box\np?:     // box\n{\n    q?: {\n        r?: any,\n        }[],\n    },\n");
}

TEST(SchemaTypescript, CommentsOfAProperty) {
  EXPECT_EQ(property(R"({"type":"string","title":"T","description":"D","examples":["x",1,"y"]})"),
            "// T\n//\n// D\n// Examples:\n// - \"x\"\n// - \"y\"\np?: string,\n");
  EXPECT_EQ(property(R"({"examples":[]})"), "p?: any,\n");
}

TEST(SchemaTypescript, Nullable) {
  EXPECT_EQ(property(R"({"type":"string","nullable":true})"), "p?: string | null,\n");
  EXPECT_EQ(property(R"({"type":["string","null"],"nullable":true})"), "p?: string | null,\n");
  EXPECT_EQ(property(R"({"type":"string","nullable":false})"), "p?: string,\n");
  EXPECT_EQ(type_of(R"({"type":"string","nullable":true})"), "string");  // properties only
}

TEST(SchemaTypescript, Defaults) {
  EXPECT_EQ(property(R"({"type":"string","default":"d"})"), "p?: string, // default: \"d\"\n");
  EXPECT_EQ(property(R"({"type":"string","enum":["d"],"default":"d"})"),
            "p?: \"d\", // default: d\n");
  EXPECT_EQ(property(R"({"type":"integer","default":10})"), "p?: number, // default: 10\n");
  EXPECT_EQ(property(R"({"default":null})"), "p?: any, // default: null\n");
  EXPECT_EQ(property(R"({"default":{"b":[1, true],"a":"\u0001\"\b/é"}})"),
            "p?: any, // default: {\"b\":[1,true],\"a\":\"\\u0001\\\"\\b/é\"}\n");
}

TEST(SchemaTypescript, NumbersAreWrittenAsTheCrateDoes) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"0.5", "0.5"},
      {"1.0", "1.0"},
      {"-2.50", "-2.5"},
      {"100.0", "100.0"},
      {"1e15", "1000000000000000.0"},
      {"1e16", "1e16"},
      {"12e20", "1.2e21"},
      {"0.00001", "0.00001"},
      {"0.000001", "1e-6"},
      {"1.5e-7", "1.5e-7"},
      {"-0.0", "-0.0"},
      {"123.456", "123.456"},
      {"18446744073709551615", "18446744073709551615"}};
  for (const auto& [json, text] : cases)
    EXPECT_EQ(property(std::string(R"({"default":)") + json + "}"),
              std::string("p?: any, // default: ") + text + "\n");
}

TEST(SchemaTypescript, OneOfProperty) {
  EXPECT_EQ(property(R"({"description":"either","default":20,"oneOf":[
                {"type":"string","default":"s","description":"hidden"},
                {"type":"number","description":"a number","nullable":true},
                {"type":"string","enum":["e"],"default":"e","description":"either"}]})"),
            "// either\n// default: 20\np?:\n | string // default: \"s\"\n"
            " | number | null // a number\n | \"e\" // default: e\n,\n");
}

TEST(SchemaTypescript, OneOfPropertyThatSharesItsDescription) {
  EXPECT_EQ(property(R"({"description":"same","oneOf":[
                {"type":"string","description":"same"},{"type":"object","properties":{"q":{}}}]})"),
            "p?:\n | string\n | {\n   q?: any,\n   }\n,\n");
  EXPECT_EQ(property(R"({"oneOf":[{"type":"string","description":"only"}]})"),
            "p?:\n | string // only\n,\n");
  EXPECT_EQ(property(R"({"description":"gone","default":1,"oneOf":{}})"), "p?: any,\n");
}

TEST(SchemaTypescript, OneOfAtTheTop) {
  EXPECT_EQ(type_of(R"({"oneOf":[
                {"type":"string","description":"text","default":"d"},
                {"type":"string","enum":["e"],"default":"e"},
                {"type":"array","items":{"oneOf":[{"type":"boolean"}]}}]})"),
            "\n | string // text default: \"d\"\n | \"e\" // default: \"e\"\n"
            " | \n    | boolean[]");
}

TEST(SchemaTypescript, ErrorsAreTheClients) {
  const auto type = schema_to_typescript("{\"type\":");
  ASSERT_FALSE(type);
  EXPECT_EQ(type.error().code, ErrorCode::kInvalidRequest);
}

}  // namespace
}  // namespace strata::harmony
