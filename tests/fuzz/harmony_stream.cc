// Whatever a model samples, the parser's events follow their grammar. Input: two bytes a token;
// the upper half of the range is spread over the specials, so that headers occur.
#include <cstdint>

#include "base/check.h"
#include "harmony/parser.h"
#include "tokenizer/tokenizer.h"

using strata::TokenId;
using strata::harmony::Event;
using strata::harmony::EventKind;
using strata::harmony::MessageKind;
using strata::harmony::Parser;
using strata::tokenizer::Tokenizer;

namespace {

void check_events(const std::vector<Event>& events) {
  bool open = false;
  for (const Event& event : events) {
    STRATA_CHECK(open == (event.kind != EventKind::kMessageStart));
    STRATA_CHECK(event.text.empty() == (event.kind != EventKind::kContent));
    STRATA_CHECK(event.tool_name.empty() == (event.message != MessageKind::kToolCall));
    open = event.kind != EventKind::kMessageEnd;
    strata::tokenizer::Utf8Stream utf8;
    std::string text;
    utf8.push(event.text, text);
    STRATA_CHECK(text == event.text && !utf8.pending());
  }
  STRATA_CHECK(!open);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto tokenizer =
      Tokenizer::load(STRATA_SOURCE_DIR "/models/strata-tiny/tokenizer.json");
  static const std::vector<TokenId> specials = [] {
    std::vector<TokenId> out;
    for (TokenId id = 0; id < tokenizer->size(); ++id)
      if (tokenizer->is_special(id)) out.push_back(id);
    return out;
  }();
  if (size == 0) return 0;
  Parser parser(*tokenizer, {"get_weather", "a.b"},
                static_cast<strata::harmony::Opened>(data[0] % 3));
  std::vector<Event> events;
  int pushed = 0;
  for (std::size_t i = 1; i + 1 < size; i += 2, ++pushed) {
    const unsigned draw = data[i] | static_cast<unsigned>(data[i + 1]) << 8;
    parser.push(draw >= 0x8000 ? specials[draw % specials.size()] : static_cast<TokenId>(draw),
                events);
  }
  parser.finish(events);
  check_events(events);
  STRATA_CHECK(parser.stats().analysis_tokens <= pushed);
  return 0;
}
