#include "loadgen/workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/random.h"
#include "base/result.h"

namespace strata::loadgen {
namespace {

// Ids below are bytes, ids above may be specials of a small vocabulary.
constexpr std::int32_t kFirstId = 256;
constexpr std::int32_t kEndId = 4000;
constexpr std::int32_t kDefaultRandomOutput = 128;
constexpr std::int32_t kDefaultCustomOutput = 256;

constexpr std::array<std::string_view, 64> kWords = {
    "the",   "of",   "and",   "to",   "in",   "is",    "for",   "that", "on",   "with",  "as",
    "are",   "at",   "be",    "this", "have", "from",  "or",    "one",  "had",  "by",    "word",
    "but",   "not",  "what",  "all",  "were", "we",    "when",  "your", "can",  "said",  "there",
    "use",   "each", "which", "she",  "do",   "how",   "their", "if",   "will", "up",    "other",
    "about", "out",  "many",  "then", "them", "these", "so",    "some", "her",  "would", "make",
    "like",  "him",  "into",  "time", "has",  "look",  "two",   "more", "write"};

// Draws of one run, each a function of the seed and its number.
class Draws {
 public:
  Draws(std::string_view name, std::uint64_t seed) : key_(random_at(fnv1a64(name), seed)) {}
  std::int32_t below(std::int32_t first, std::int32_t end) {
    const auto range = static_cast<std::uint64_t>(end - first);
    return first + static_cast<std::int32_t>(random_at(key_, counter_++) % range);
  }

 private:
  std::uint64_t key_;
  std::uint64_t counter_ = 0;
};

std::int32_t random_length(Draws& draws, std::int32_t tokens, double ratio) {
  const double low = std::floor(tokens * (1.0 - ratio));
  const double high = std::ceil(tokens * (1.0 + ratio));
  return std::max(draws.below(static_cast<std::int32_t>(low), static_cast<std::int32_t>(high) + 1),
                  1);
}

void append_tokens(Prompt& prompt, Draws& draws, std::int32_t count, Api api) {
  for (std::int32_t i = 0; i < count; ++i) {
    if (api == Api::kCompletions) {
      prompt.ids.push_back(draws.below(kFirstId, kEndId));
    } else {
      if (!prompt.text.empty()) prompt.text += ' ';
      prompt.text += kWords[static_cast<std::size_t>(draws.below(0, kWords.size()))];
    }
  }
  prompt.input_tokens += count;
}

Prompt custom_prompt(const Json& row, std::int32_t default_output, const std::string& where) {
  const auto text = row.find("prompt");
  if (!row.is_object() || text == row.end() || !text->is_string())
    throw StartupError(where + " needs a string \"prompt\"", R"({"prompt": "Hello"})");
  Prompt prompt;
  prompt.text = text->get<std::string>();
  prompt.output_tokens = default_output;
  const auto output = row.find("output_tokens");
  if (output == row.end() || output->is_null()) return prompt;
  const bool whole = output->is_number_integer() && *output >= 1 &&
                     *output <= std::numeric_limits<std::int32_t>::max();
  if (!whole) throw StartupError(where + ": output_tokens needs a whole number of at least 1");
  prompt.output_tokens = output->get<std::int32_t>();
  return prompt;
}

}  // namespace

std::vector<Prompt> random_prompts(const LoadOptions& options) {
  const std::int32_t output =
      options.output_tokens > 0 ? options.output_tokens : kDefaultRandomOutput;
  Draws content("prompt content", options.seed);
  Draws lengths("prompt lengths", options.seed);
  Prompt prefix;
  append_tokens(prefix, content, options.prefix_tokens, options.api);
  std::vector<Prompt> prompts;
  for (std::int32_t i = 0; i < options.num_prompts; ++i) {
    Prompt prompt = prefix;
    append_tokens(prompt, content,
                  random_length(lengths, options.input_tokens, options.range_ratio), options.api);
    prompt.output_tokens = random_length(lengths, output, options.range_ratio);
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

std::vector<Prompt> custom_prompts(const LoadOptions& options, std::string_view text) {
  const std::int32_t output =
      options.output_tokens > 0 ? options.output_tokens : kDefaultCustomOutput;
  std::vector<Prompt> rows;
  int number = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{} line {}", options.dataset_path, number);
    const auto json = parse_json(line, where);
    if (!json) throw StartupError(json.error().message);
    rows.push_back(custom_prompt(*json, output, where));
  }
  if (rows.empty()) throw StartupError(options.dataset_path + " has no prompts");
  std::vector<Prompt> prompts;
  for (std::int32_t i = 0; i < options.num_prompts; ++i)
    prompts.push_back(rows[static_cast<std::size_t>(i) % rows.size()]);
  return prompts;
}

std::vector<Prompt> make_prompts(const LoadOptions& options) {
  if (options.dataset == Dataset::kRandom) return random_prompts(options);
  std::ifstream in(options.dataset_path, std::ios::binary);
  if (!in)
    throw StartupError("cannot read the data set " + options.dataset_path,
                       "--dataset-path takes a JSONL file");
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  return custom_prompts(options, text);
}

std::string request_body(const LoadOptions& options, const Prompt& prompt) {
  Json body;
  body["model"] = options.model;
  if (options.api == Api::kChat) {
    body["messages"] = Json::array({Json{{"role", "user"}, {"content", prompt.text}}});
    body["max_completion_tokens"] = prompt.output_tokens;
  } else {
    if (prompt.ids.empty()) body["prompt"] = prompt.text;
    else body["prompt"] = prompt.ids;
    body["max_tokens"] = prompt.output_tokens;
  }
  body["stream"] = true;
  body["stream_options"] = Json{{"include_usage", true}};
  if (options.ignore_eos) body["ignore_eos"] = true;
  if (options.temperature) body["temperature"] = *options.temperature;
  if (!options.extra_body.empty()) body.update(Json::parse(options.extra_body));
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace strata::loadgen
