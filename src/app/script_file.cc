#include "app/script_file.h"

#include <fmt/core.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "app/exit_code.h"
#include "base/json.h"
#include "base/result.h"

namespace strata::app {
namespace {

constexpr const char* kHint =
    R"(a line is {"text": "<|channel|>final<|message|>hi<|return|>"} or {"tokens": [1, 2]})";

struct Line {
  const std::string& where;  // "file:line"
  const tokenizer::Tokenizer& tokenizer;
  std::int32_t vocab;

  [[noreturn]] void fail(const std::string& what) const {
    throw StartupError(fmt::format("{}: {}", where, what), kHint, kExitModel);
  }

  std::vector<TokenId> tokens_of(const Json& list) const {
    if (!list.is_array()) fail("\"tokens\" must be a list of token ids");
    std::vector<TokenId> tokens;
    for (const Json& item : list) {
      if (!item.is_number_integer()) fail("\"tokens\" must be a list of token ids");
      const auto id = item.get<std::int64_t>();
      if (id < 0 || id >= vocab)
        fail(fmt::format("token {} is outside the vocabulary of {}", id, vocab));
      tokens.push_back(static_cast<TokenId>(id));
    }
    return tokens;
  }

  std::vector<TokenId> parse(const std::string& text) const {
    const auto json = parse_json(text, "line");
    if (!json) fail(json.error().message);
    if (!json->is_object() || json->size() != 1) fail("needs one key, \"text\" or \"tokens\"");
    if (json->contains("tokens")) return tokens_of((*json)["tokens"]);
    if (!json->contains("text")) fail(fmt::format("unknown key \"{}\"", json->begin().key()));
    if (!(*json)["text"].is_string()) fail("\"text\" must be a string");
    return tokenizer.encode_with_specials((*json)["text"].get<std::string>());
  }
};

}  // namespace

std::vector<std::vector<TokenId>> read_script(const std::filesystem::path& file,
                                              const tokenizer::Tokenizer& tokenizer,
                                              std::int32_t vocab) {
  std::ifstream in(file);
  if (!in) throw StartupError(fmt::format("{}: cannot be read", file.string()), kHint, kExitModel);
  std::vector<std::vector<TokenId>> scripts;
  std::string text;
  for (int number = 1; std::getline(in, text); ++number) {
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("{}:{}", file.string(), number);
    scripts.push_back(Line{where, tokenizer, vocab}.parse(text));
  }
  if (scripts.empty())
    throw StartupError(fmt::format("{}: holds no line", file.string()), kHint, kExitModel);
  return scripts;
}

}  // namespace strata::app
