#include "tokenizer/tokenizer_file.h"

#include <fmt/format.h>

#include <array>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/result.h"
#include "tokenizer/unicode.h"

namespace strata::tokenizer {
namespace {

constexpr TokenId kMaxId = 1 << 24;

// Byte-level BPE writes each byte as one printable letter: printable Latin-1 as itself, the other
// bytes, in order, as U+0100 and up. byte + 1 by code point; 0: no such letter.
constexpr std::array<std::uint16_t, 0x144> letter_table() {
  std::array<std::uint16_t, 0x144> table{};
  std::size_t next = 0x100;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    table[itself ? byte : next++] = static_cast<std::uint16_t>(byte + 1);
  }
  return table;
}
constexpr auto kByteOfLetter = letter_table();

// A SAX handler: the real file has 650 000 strings, a document of them would cost a second.
class FileReader final : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return true; }
  bool boolean(bool value) override;
  bool number_integer(number_integer_t value) override { return number(value); }
  bool number_unsigned(number_unsigned_t value) override {
    return number(value > kMaxId ? kMaxId : static_cast<std::int64_t>(value));
  }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override {
    return section() == Section::kModel && key_ == "dropout" ? stop("dropout is not supported")
                                                             : number(-1);
  }
  bool string(string_t& value) override;
  bool binary(binary_t& /*value*/) override { return false; }
  bool start_object(std::size_t size) override;
  bool start_array(std::size_t size) override;
  bool end_object() override;
  bool end_array() override;
  bool key(string_t& name) override {
    key_.swap(name);
    return true;
  }
  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) override {
    return message_.empty() ? stop(fmt::format("byte {}: {}", position, error.what())) : false;
  }

  TokenizerFile file;
  bool byte_level = false;
  const std::string& message() const { return message_; }

 private:
  enum class Section {
    kRoot,
    kModel,
    kVocab,
    kMerges,
    kMergePair,
    kAddedTokens,
    kAddedToken,
    kPreTokenizer,
    kElsewhere,
  };
  Section section() const { return sections_.empty() ? Section::kElsewhere : sections_.back(); }
  bool number(std::int64_t value);
  bool stop(std::string message) {
    message_ = std::move(message);
    return false;
  }
  bool letters_to_bytes(std::string_view letters, TokenizerFile::Slice& out);
  bool merge(std::string_view letters);
  bool model_string(const std::string& value);

  std::vector<Section> sections_;
  std::string key_;
  std::string message_;
  TokenizerFile::AddedToken added_;
  std::vector<TokenizerFile::Slice> pair_;
};

bool FileReader::letters_to_bytes(std::string_view letters, TokenizerFile::Slice& out) {
  out.offset = static_cast<std::uint32_t>(file.arena.size());
  for (std::size_t i = 0; i < letters.size();) {
    const CodePoint letter = code_point_at(letters, i);
    const std::uint16_t byte =
        letter.value < kByteOfLetter.size() ? kByteOfLetter[letter.value] : std::uint16_t{0};
    if (byte == 0)
      return stop(
          fmt::format("\"{}\" is not written in byte-level letters", letters.substr(0, 64)));
    file.arena.push_back(static_cast<char>(byte - 1));
    i += static_cast<std::size_t>(letter.length);
  }
  out.length = static_cast<std::uint32_t>(file.arena.size()) - out.offset;
  return true;
}

bool FileReader::merge(std::string_view letters) {
  const std::size_t space = letters.find(' ');
  TokenizerFile::MergeRule rule;
  if (space == std::string_view::npos)
    return stop(fmt::format("merge \"{}\" is not a pair", letters.substr(0, 64)));
  if (!letters_to_bytes(letters.substr(0, space), rule.left)) return false;
  if (!letters_to_bytes(letters.substr(space + 1), rule.right)) return false;
  file.merges.push_back(rule);
  return true;
}

bool FileReader::model_string(const std::string& value) {
  if (key_ == "type" && value != "BPE")
    return stop(fmt::format("model.type is \"{}\", not \"BPE\"", value));
  const bool affix = key_ == "continuing_subword_prefix" || key_ == "end_of_word_suffix";
  if (affix && !value.empty()) return stop(fmt::format("model.{} is not supported", key_));
  return true;
}

bool FileReader::boolean(bool value) {
  if (section() == Section::kModel && key_ == "ignore_merges") file.ignore_merges = value;
  if (section() == Section::kModel && key_ == "byte_fallback" && value)
    return stop("model.byte_fallback is not supported");
  if (section() == Section::kPreTokenizer) {
    if (key_ == "use_regex" && !value) byte_level = true;
    if ((key_ == "add_prefix_space" || key_ == "invert") && value)
      return stop(fmt::format("pre_tokenizer: {} is not supported", key_));
  }
  return true;
}

bool FileReader::number(std::int64_t value) {
  const bool id_in_range = value >= 0 && value < kMaxId;
  if (section() == Section::kVocab) {
    TokenizerFile::Token token{static_cast<TokenId>(value), {}};
    if (!id_in_range) return stop(fmt::format("token \"{}\" has no valid id", key_));
    if (!letters_to_bytes(key_, token.bytes)) return false;
    file.vocab.push_back(token);
  } else if (section() == Section::kAddedToken && key_ == "id") {
    if (!id_in_range) return stop("an added token has no valid id");
    added_.id = static_cast<TokenId>(value);
  }
  return true;
}

bool FileReader::string(string_t& value) {
  switch (section()) {
    case Section::kMerges: return merge(value);
    case Section::kMergePair: return letters_to_bytes(value, pair_.emplace_back());
    case Section::kModel: return model_string(value);
    case Section::kVocab: return stop(fmt::format("token \"{}\" has no valid id", key_));
    case Section::kAddedToken:
      if (key_ == "content") added_.content = value;
      return true;
    case Section::kPreTokenizer:
      if (key_ == "Regex" || key_ == "String") file.pattern += value;
      return true;
    default: return true;
  }
}

bool FileReader::start_object(std::size_t /*size*/) {
  Section child = Section::kElsewhere;
  if (sections_.empty()) {
    child = Section::kRoot;
  } else if (section() == Section::kRoot) {
    if (key_ == "normalizer") return stop("a normalizer is not supported");
    if (key_ == "model") child = Section::kModel;
    if (key_ == "pre_tokenizer") child = Section::kPreTokenizer;
  } else if (section() == Section::kModel && key_ == "vocab") {
    child = Section::kVocab;
  } else if (section() == Section::kAddedTokens) {
    child = Section::kAddedToken;
    added_ = {};
  } else if (section() == Section::kPreTokenizer) {
    child = Section::kPreTokenizer;
  }
  sections_.push_back(child);
  return true;
}

bool FileReader::start_array(std::size_t /*size*/) {
  Section child = Section::kElsewhere;
  if (section() == Section::kModel && key_ == "merges") child = Section::kMerges;
  if (section() == Section::kRoot && key_ == "added_tokens") child = Section::kAddedTokens;
  if (section() == Section::kPreTokenizer) child = Section::kPreTokenizer;
  if (section() == Section::kMerges) {
    child = Section::kMergePair;
    pair_.clear();
  }
  sections_.push_back(child);
  return true;
}

bool FileReader::end_object() {
  if (section() == Section::kAddedToken) {
    if (added_.id == kNoToken || added_.content.empty())
      return stop("an added token lacks id or content");
    file.added_tokens.push_back(added_);
  }
  sections_.pop_back();
  return true;
}

bool FileReader::end_array() {
  if (section() == Section::kMergePair) {
    if (pair_.size() != 2) return stop(fmt::format("a merge has {} parts, not 2", pair_.size()));
    file.merges.push_back({pair_[0], pair_[1]});
  }
  sections_.pop_back();
  return true;
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  std::string text;
  if (stream.seekg(0, std::ios::end)) {
    const auto size = stream.tellg();
    text.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
    stream.seekg(0).read(text.data(), static_cast<std::streamsize>(text.size()));
  }
  if (!stream)
    throw StartupError(fmt::format("{}: the tokenizer cannot be read", path.string()),
                       "a model directory needs its tokenizer.json");
  return text;
}

}  // namespace

TokenizerFile read_tokenizer_file(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  FileReader reader;
  bool good = Json::sax_parse(text.begin(), text.end(), &reader);
  std::string message = reader.message();
  if (good && !reader.byte_level) {
    good = false;
    message = "pre_tokenizer has no ByteLevel step with use_regex false";
  }
  if (!good)
    throw StartupError(fmt::format("{}: {}", path.string(), message),
                       "Strata reads the tokenizer.json of openai/gpt-oss models");
  return std::move(reader.file);
}

}  // namespace strata::tokenizer
