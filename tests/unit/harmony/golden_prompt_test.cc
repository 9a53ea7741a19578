// The prompts of the goldens, rendered by an independent Python program (tools/train/harmony.py):
// the same messages give the same ids. Format: tests/golden/README.md.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "harmony/render.h"
#include "tests/unit/harmony/tiny_tokenizer.h"

namespace strata::harmony {
namespace {

// Base64 of little-endian uint16 values.
std::vector<TokenId> unpack_ids(const std::string& text) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<TokenId> ids;
  unsigned bits = 0;
  int count = 0;
  std::string bytes;
  for (const char c : text) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<unsigned>(kDigits.find(c));
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes.push_back(static_cast<char>(bits >> count & 0xffU));
  }
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2)
    ids.push_back(static_cast<unsigned char>(bytes[i]) | static_cast<unsigned char>(bytes[i + 1])
                                                             << 8);
  return ids;
}

std::string text_of(const Json& object, const char* key) {
  return object.contains(key) && object[key].is_string() ? object[key].get<std::string>() : "";
}

Conversation conversation_of(const Json& line) {
  Conversation out;
  const std::string effort = text_of(line, "effort");
  out.effort = effort == "low" ? Effort::kLow : effort == "high" ? Effort::kHigh : Effort::kMedium;
  out.current_date = text_of(line, "date");
  for (const Json& tool : line["tools"]) {
    if (out.tools.empty()) out.tools.emplace_back();
    const Json& function = tool["function"];
    out.tools[0].tools.push_back(
        {text_of(function, "name"), text_of(function, "description"),
         function.contains("parameters") ? function["parameters"].dump() : std::string()});
  }
  for (const Json& message : line["messages"]) {
    EXPECT_EQ(text_of(message, "role"), "user");  // the goldens are single questions
    out.messages.push_back({Role::kUser, "", "", "", "", text_of(message, "content")});
  }
  return out;
}

TEST(GoldenPrompts, AreRenderedToTheSameIds) {
  std::ifstream file(STRATA_SOURCE_DIR "/tests/golden/data/golden.jsonl");
  ASSERT_TRUE(file) << "the goldens are missing";
  int checked = 0;
  for (std::string text; std::getline(file, text);) {
    const auto line = parse_json(text, "golden.jsonl");
    ASSERT_TRUE(line) << line.error().message;
    if ((*line)["messages"].empty()) continue;  // long prompts have their ids only
    const auto ids = render(conversation_of(*line), tiny_tokenizer());
    ASSERT_TRUE(ids) << ids.error().message;
    EXPECT_EQ(*ids, unpack_ids(text_of(*line, "prompt"))) << tiny_tokenizer().decode(*ids);
    ++checked;
  }
  EXPECT_GE(checked, 100);
}

}  // namespace
}  // namespace strata::harmony
