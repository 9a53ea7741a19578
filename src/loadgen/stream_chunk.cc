#include "loadgen/stream_chunk.h"

#include <array>
#include <nlohmann/json.hpp>

namespace strata::loadgen {
namespace {

// Names of the levels that matter; deeper ones are only counted.
constexpr std::size_t kLevels = 4;

// Reads a chunk without building a document: the generator shares a small machine with the server
// it measures.
class ChunkReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  StreamChunk take() { return std::move(chunk_); }
  bool is_object() const { return is_object_; }

  bool null() override { return true; }
  bool boolean(bool /*value*/) override { return true; }
  bool number_integer(number_integer_t value) override { return number(value); }
  bool number_unsigned(number_unsigned_t value) override {
    return number(static_cast<std::int64_t>(value));
  }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override { return true; }
  bool binary(binary_t& /*value*/) override { return true; }
  bool parse_error(std::size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return false;
  }

  bool string(string_t& value) override {
    // {"error": "..."} or {"error": {"message": "..."}}
    if (at(1, "error") || (at(2, "error") && name(2) == "message")) {
      chunk_.error = std::move(value);
    } else if (at(3, "choices") && name(3) == "finish_reason") {
      chunk_.has_finish = true;
    } else if ((at(3, "choices") && name(3) == "text") ||
               (at(4, "choices") && (name(3) == "delta" || name(3) == "message") &&
                name(4) == "content")) {
      chunk_.text += value;
    }
    return true;
  }

  bool start_object(std::size_t /*size*/) override {
    if (depth_ == 0) is_object_ = true;
    if (depth_ == 1 && name(1) == "error") chunk_.error.emplace();
    if (depth_ == 2 && name(1) == "choices") chunk_.has_choice = true;
    return enter();
  }
  bool end_object() override { return leave(); }
  bool start_array(std::size_t /*size*/) override { return enter(); }
  bool end_array() override { return leave(); }
  bool key(string_t& text) override {
    if (depth_ >= 1 && depth_ <= kLevels) keys_[depth_ - 1] = text;
    return true;
  }

 private:
  // The key at level 1 (the document's own) to kLevels. An array is a level without keys.
  const std::string& name(std::size_t level) const { return keys_[level - 1]; }
  bool at(std::size_t depth, std::string_view top) const {
    return depth_ == depth && name(1) == top;
  }

  bool enter() {
    ++depth_;
    if (depth_ <= kLevels) keys_[depth_ - 1].clear();
    return true;
  }
  bool leave() {
    --depth_;
    return true;
  }
  bool number(std::int64_t value) {
    if (!at(2, "usage")) return true;
    if (name(2) == "prompt_tokens") chunk_.prompt_tokens = value;
    if (name(2) == "completion_tokens") chunk_.completion_tokens = value;
    return true;
  }

  StreamChunk chunk_;
  std::size_t depth_ = 0;
  std::array<std::string, kLevels> keys_;
  bool is_object_ = false;
};

}  // namespace

std::optional<StreamChunk> read_chunk(std::string_view json) {
  ChunkReader reader;
  if (!nlohmann::json::sax_parse(json, &reader) || !reader.is_object()) return std::nullopt;
  return reader.take();
}

}  // namespace strata::loadgen
