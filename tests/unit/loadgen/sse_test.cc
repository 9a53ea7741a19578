#include "loadgen/sse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace strata::loadgen {
namespace {

using testing::ElementsAre;

std::vector<std::string> parse(std::string_view text, std::size_t piece) {
  SseParser parser;
  std::vector<std::string> events;
  for (std::size_t at = 0; at < text.size(); at += piece)
    parser.feed(text.substr(at, piece), [&](std::string_view data) { events.emplace_back(data); });
  return events;
}

TEST(Sse, EventsAreTheSameWhereverTheBytesAreSplit) {
  constexpr std::string_view kText =
      ": keep-alive\n\ndata: {\"a\":1}\n\nevent: x\r\nid: 7\r\ndata:two\r\n\r\n\r\n"
      "data: three\ndata: lines\ndata\n\nretry: 5\n\ndata: \xe4\xbd\xa0\n\ndata: [DONE]\r\rdata: "
      "open";
  for (std::size_t piece = 1; piece <= kText.size(); ++piece)
    EXPECT_THAT(parse(kText, piece),
                ElementsAre("{\"a\":1}", "two", "three\nlines\n", "\xe4\xbd\xa0", "[DONE]"))
        << "pieces of " << piece;
}

TEST(Sse, OnlyOneSpaceIsTaken) {
  EXPECT_THAT(parse("data:  x \n\n", 100), ElementsAre(" x "));
  EXPECT_THAT(parse("data:\n\n", 100), ElementsAre(""));
}

}  // namespace
}  // namespace strata::loadgen
