#include "harmony/parser.h"

#include <gmock/gmock.h>

#include "base/random.h"
#include "tests/unit/harmony/tiny_tokenizer.h"

namespace strata::harmony {
namespace {

using ::testing::ElementsAre;

const char* kind_name(MessageKind kind) {
  switch (kind) {
    case MessageKind::kAnalysis: return "analysis";
    case MessageKind::kFinal: return "final";
    case MessageKind::kPreamble: return "preamble";
    case MessageKind::kToolCall: return "call";
    case MessageKind::kDiscarded: return "discarded";
  }
  return "";
}

struct Parsed {
  std::vector<std::string>
      messages;  // "kind: text", calls "call NAME: text"; open ones end in "..."
  ParserStats stats;
  bool done = false;
};

// Checks the grammar of events on the way: start, contents, end; nothing outside.
Parsed collect(const std::vector<Event>& events, const Parser& parser) {
  Parsed out;
  bool open = false;
  for (const Event& event : events) {
    std::string head = kind_name(event.message);
    if (!event.tool_name.empty()) head += " " + event.tool_name;
    if (event.kind == EventKind::kMessageStart) {
      EXPECT_FALSE(open);
      open = true;
      out.messages.push_back(head + ": ");
      continue;
    }
    EXPECT_TRUE(open);
    if (!open) return out;
    EXPECT_TRUE(out.messages.back().starts_with(head + ": "));
    EXPECT_EQ(event.text.empty(), event.kind == EventKind::kMessageEnd);
    EXPECT_EQ(event.token != kNoToken, event.kind == EventKind::kContent);
    if (event.kind == EventKind::kMessageEnd) open = false;
    out.messages.back() += event.text;
  }
  if (open) out.messages.back() += "...";
  out.stats = parser.stats();
  out.done = parser.done();
  return out;
}

const std::vector<std::string> kTools = {"get_weather", "math.sum", "spawn.agent"};

Parsed parse(std::string_view text, bool finish = true) {
  Parser parser(tiny_tokenizer(), kTools);
  std::vector<Event> events;
  for (const TokenId id : tiny_tokenizer().encode_with_specials(text)) parser.push(id, events);
  if (finish) parser.finish(events);
  return collect(events, parser);
}

#define MESSAGES(text) parse(text).messages

TEST(Parser, AnalysisThenFinal) {
  const Parsed parsed = parse(
      "<|channel|>analysis<|message|>Think.<|end|>"
      "<|start|>assistant<|channel|>final<|message|>4<|return|>");
  EXPECT_THAT(parsed.messages, ElementsAre("analysis: Think.", "final: 4"));
  EXPECT_TRUE(parsed.done);
  EXPECT_EQ(parsed.stats.malformed_headers, 0);
  EXPECT_EQ(parsed.stats.discarded_calls, 0);
}

TEST(Parser, PreambleThenCall) {
  const Parsed parsed = parse(
      "<|channel|>commentary<|message|>I'll look.<|end|>"
      "<|start|>assistant to=functions.get_weather<|channel|>commentary <|constrain|>json"
      "<|message|>{\"c\":1}<|call|>");
  EXPECT_THAT(parsed.messages, ElementsAre("preamble: I'll look.", "call get_weather: {\"c\":1}"));
  EXPECT_TRUE(parsed.done);
  EXPECT_EQ(parsed.stats.malformed_headers, 0);
}

// Forms that models are known to write; all mean the same call.
TEST(Parser, EveryFormOfACallHeader) {
  for (const char* header : {
           " to=functions.get_weather<|channel|>commentary <|constrain|>json",
           " to=functions.get_weather<|channel|>commentary json",
           " to=functions.get_weather<|channel|>commentary",
           " to=functions.get_weather<|channel|>analysis",
           "<|channel|>commentary to=functions.get_weather <|constrain|>json",
           "<|channel|>commentary to=functions.get_weather<|constrain|>json",
           "<|channel|>commentary to=functions.get_weather <|constrain|> json",
           "<|channel|>commentary to=functions.get_weather code",
           "<|channel|>commentary to=get_weather json",
           "<|channel|>analysis to=functions.get_weather",
           "<|channel|>analysis to=get_weather code",
           " to=functions.get_weather",
       }) {
    const Parsed parsed = parse(std::string(header) + "<|message|>{}<|call|>");
    EXPECT_THAT(parsed.messages, ElementsAre("call get_weather: {}")) << header;
    EXPECT_EQ(parsed.stats.malformed_headers, 0) << header;
  }
}

TEST(Parser, GarbledCallHeaders) {
  for (const char* header : {
           "<|channel|>commentary functions.get_weather <|constrain|>json",
           "<|channel|>commentary get_weather",
           "<|channel|>––commentary to=functions.get_weather <|constrain|>json",
           "<|channel|>commentaryto=functions.get_weather",
           "<|channel|>to=functions.get_weather",
           "<|channel|> to=functions.get_weather json",
           "<|channel|>commentary to=functions.get_weather to=functions.get_weather",
           "<|channel|>commentary to=functions.web-browsing to=functions.get_weather",
           "<|channel|>commentary to=functions.get_weather to=functions.web-browsing json",
           "<|channel|>commentary to=functions.get_weather <|constrain|>write: edit file now",
           "<|channel|>commentary to=assistant<|channel|>commentary to=functions.get_weather json",
           " to=functions.get_weather<|channel|>noise<|channel|>commentary some more words json",
           "<|channel|>commentary to= functions.get_weather",
           "<|start|>assistant<|channel|>commentary to=functions.get_weather",
       }) {
    const Parsed parsed = parse(std::string(header) + "<|message|>{}<|call|>");
    EXPECT_THAT(parsed.messages, ElementsAre("call get_weather: {}")) << header;
    EXPECT_EQ(parsed.stats.malformed_headers, 1) << header;
  }
}

TEST(Parser, DottedNamesWithAndWithoutPrefix) {
  EXPECT_THAT(MESSAGES(" to=math.sum<|message|>1<|call|>"), ElementsAre("call math.sum: 1"));
  EXPECT_THAT(MESSAGES(" to=functions.math.sum<|message|>1<|call|>"),
              ElementsAre("call math.sum: 1"));
  EXPECT_THAT(MESSAGES(" to=spawn.agent<|message|>1<|call|>"), ElementsAre("call spawn.agent: 1"));
  EXPECT_THAT(MESSAGES(" to=sum<|message|>1<|call|>"), ElementsAre("discarded: 1"));
  EXPECT_THAT(MESSAGES(" to=functions.sum<|message|>1<|call|>"), ElementsAre("discarded: 1"));
}

TEST(Parser, UnsolicitedRecipientsAreDiscardedAndCounted) {
  for (const char* header :
       {"<|channel|>commentary to=python code", "<|channel|>analysis to=python code",
        "<|channel|>commentary to=container.exec", "<|channel|>analysis to=browser.search",
        " to=functions.unknown<|channel|>commentary json", "<|channel|>commentary to=assistant"}) {
    const Parsed parsed = parse(std::string(header) + "<|message|>x<|call|>");
    EXPECT_THAT(parsed.messages, ElementsAre("discarded: x")) << header;
    EXPECT_EQ(parsed.stats.discarded_calls, 1) << header;
    EXPECT_TRUE(parsed.done);
  }
}

TEST(Parser, OtherRolesAreDiscarded) {
  const Parsed parsed = parse(
      "<|channel|>analysis<|message|>a<|end|>"
      "<|start|>functions.get_weather to=assistant<|channel|>commentary<|message|>made up<|end|>"
      "<|start|>user<|message|>me too<|end|>"
      "<|start|>assistant<|channel|>final<|message|>b<|return|>");
  EXPECT_THAT(parsed.messages,
              ElementsAre("analysis: a", "discarded: made up", "discarded: me too", "final: b"));
}

TEST(Parser, TheLastChannelWins) {
  EXPECT_THAT(MESSAGES("<|channel|>commentary to=assistant<|channel|>analysis<|message|>t<|end|>"),
              ElementsAre("analysis: t"));
  EXPECT_THAT(MESSAGES("<|channel|>commentary<|channel|>final<|message|>t<|return|>"),
              ElementsAre("final: t"));
  EXPECT_EQ(parse("<|channel|>final<|channel|>final<|message|>t").stats.malformed_headers, 1);
  EXPECT_THAT(MESSAGES("<|channel|>analysis<|channel|><|message|>t<|end|>"),
              ElementsAre("analysis: t"));
}

TEST(Parser, ChannelsWithoutMarkerOrName) {
  EXPECT_THAT(MESSAGES("<|message|>t<|return|>"), ElementsAre("final: t"));
  EXPECT_THAT(MESSAGES("<|channel|><|message|>t<|return|>"), ElementsAre("final: t"));
  EXPECT_THAT(MESSAGES("<|channel|>noise<|message|>t<|return|>"), ElementsAre("final: t"));
  EXPECT_THAT(MESSAGES("analysis<|message|>t<|return|>"), ElementsAre("analysis: t"));
  EXPECT_THAT(MESSAGES("<|channel|>commentaryanalysis<|message|>t<|return|>"),
              ElementsAre("analysis: t"));
  EXPECT_THAT(MESSAGES("<|channel|>analysiscommentary<|message|>t<|return|>"),
              ElementsAre("preamble: t"));
  EXPECT_THAT(MESSAGES("<|channel|>commentary to=user<|message|>t<|return|>"),
              ElementsAre("preamble: t"));
  EXPECT_THAT(MESSAGES("<|channel|>commentary to=all<|message|>t<|return|>"),
              ElementsAre("preamble: t"));
  EXPECT_THAT(MESSAGES("<|channel|>final to=user<|message|>t<|return|>"), ElementsAre("final: t"));
  EXPECT_THAT(MESSAGES("<|channel|>final <|constrain|>json<|message|>{}<|return|>"),
              ElementsAre("final: {}"));
}

TEST(Parser, TextWithoutMessageToken) {
  const Parsed parsed = parse(
      "I must refuse<|end|><|start|>assistant<|channel|>analysis<|message|>Hm<|end|>"
      "<|start|>assistant<|channel|>final<|message|>Sorry.<|return|>");
  EXPECT_THAT(parsed.messages,
              ElementsAre("final: I must refuse", "analysis: Hm", "final: Sorry."));
  EXPECT_EQ(parsed.stats.malformed_headers, 1);
  EXPECT_THAT(MESSAGES("<|channel|>analysis I  must refuse<|end|>"),
              ElementsAre("analysis: I  must refuse"));
  EXPECT_THAT(MESSAGES("<|channel|>I am sorry<|return|>"), ElementsAre("final: I am sorry"));
  EXPECT_THAT(MESSAGES("<|channel|>commentary to=functions.get_weather <|constrain|>json{\"a\":1}"
                       "<|call|>"),
              ElementsAre("call get_weather: {\"a\":1}"));
  EXPECT_THAT(MESSAGES("<|channel|>commentary to=functions.get_weather<|call|>"),
              ElementsAre("call get_weather: "));
  EXPECT_THAT(MESSAGES("<|channel|>commentary to=python print(1)<|call|>"),
              ElementsAre("discarded: print(1)"));
}

TEST(Parser, AHeaderAloneIsNoMessage) {
  for (const char* text : {"<|return|>", "<|end|>", "<|channel|>analysis<|end|>",
                           "<|channel|>final<|return|>", "<|channel|>commentary to=python<|call|>"})
    EXPECT_TRUE(MESSAGES(text).empty()) << text;
}

TEST(Parser, LengthInsideAHeaderLeaksNothing) {
  for (const char* text :
       {"", "<|channel|>", "<|channel|>anal", "<|channel|>commentary to=functions",
        "<|channel|>final", " to=functions.get_weather", "Plain text"}) {
    const Parsed parsed = parse(text);
    EXPECT_TRUE(parsed.messages.empty()) << text;
    EXPECT_EQ(parsed.stats.malformed_headers, 0) << text;
    EXPECT_FALSE(parsed.done);
  }
}

// A model that never learned the format: its text is shown, and shown before it ends.
TEST(Parser, EndlessHeadersAreContent) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "word ";
  EXPECT_THAT(parse(text, false).messages, ElementsAre("final: " + text + "..."));
  EXPECT_THAT(MESSAGES("<|channel|>analysis " + text + "<|end|><|start|>assistant" + text),
              ElementsAre("analysis: " + text, "final: " + text));
  EXPECT_THAT(MESSAGES(" to=functions.get_weather " + text + "<|call|>"),
              ElementsAre("call get_weather: " + text));
  EXPECT_EQ(parse(text).stats.malformed_headers, 1);
}

TEST(Parser, InterruptedMessagesAreClosed) {
  EXPECT_THAT(parse("<|channel|>analysis<|message|>Let", false).messages,
              ElementsAre("analysis: Let..."));
  EXPECT_THAT(MESSAGES("<|channel|>analysis<|message|>Let"), ElementsAre("analysis: Let"));
  EXPECT_THAT(MESSAGES("<|channel|>final<|message|>"), ElementsAre("final: "));
}

TEST(Parser, AFinalClosedByEndIsTheLast) {
  const Parsed parsed = parse(
      "<|channel|>final<|message|>A<|end|><|start|>assistant<|channel|>final<|message|>B<|return|"
      ">");
  EXPECT_THAT(parsed.messages, ElementsAre("final: A"));
  EXPECT_TRUE(parsed.done);
}

TEST(Parser, ACallOnTheFinalChannelIsNoAnswer) {
  EXPECT_THAT(MESSAGES("<|channel|>final to=get_weather<|message|>{}<|end|>"
                       "<|start|>assistant<|channel|>final<|message|>x<|return|>"),
              ElementsAre("call get_weather: {}", "final: x"));
}

TEST(Parser, NothingAfterAStopTokenCounts) {
  for (const char* stop : {"<|return|>", "<|call|>", "<|endoftext|>"}) {
    const Parsed parsed = parse(std::string("<|channel|>analysis<|message|>A") + stop +
                                "B<|start|>assistant<|channel|>final<|message|>C<|return|>");
    EXPECT_THAT(parsed.messages, ElementsAre("analysis: A")) << stop;
    EXPECT_TRUE(parsed.done);
  }
}

TEST(Parser, MessagesThatWereNotEndedOrStarted) {
  EXPECT_THAT(
      MESSAGES("<|channel|>analysis<|message|>a<|start|>assistant<|channel|>final<|message|>b"),
      ElementsAre("analysis: a", "final: b"));
  EXPECT_THAT(MESSAGES("<|channel|>analysis<|message|>a<|channel|>final<|message|>b<|return|>"),
              ElementsAre("analysis: a", "final: b"));
  EXPECT_THAT(
      MESSAGES("<|channel|>analysis<|message|>a<|end|><|channel|>final<|message|>b<|return|>"),
      ElementsAre("analysis: a", "final: b"));
  EXPECT_THAT(MESSAGES("<|channel|>analysis<|message|>a<|end|><|message|>b<|return|>"),
              ElementsAre("analysis: a", "final: b"));
  EXPECT_THAT(
      MESSAGES("<|channel|>analysis<|message|>a<|end|>assistant<|channel|>final<|message|>b"),
      ElementsAre("analysis: a", "final: b"));
  EXPECT_THAT(MESSAGES("<|channel|>final<|message|>a<|channel|>final<|message|>b<|return|>"),
              ElementsAre("final: a"));
}

TEST(Parser, AStartInAHeaderEndsWhatCameBefore) {
  EXPECT_THAT(MESSAGES("I must refuse<|start|>assistant<|channel|>final<|message|>b<|return|>"),
              ElementsAre("final: I must refuse", "final: b"));
  EXPECT_THAT(
      MESSAGES("<|channel|>analysis<|start|>assistant<|channel|>final<|message|>b<|return|>"),
      ElementsAre("final: b"));
}

TEST(Parser, MeaninglessSpecialsInContentAreDropped) {
  EXPECT_THAT(MESSAGES("<|channel|>final<|message|>a<|message|>b<|constrain|>c<|startoftext|>d"
                       "<|reserved_200000|>e<|return|>"),
              ElementsAre("final: abcde"));
}

TEST(Parser, AnalysisTokensCountHeadersAndEnds) {
  const auto count = [](std::string_view text) {
    return static_cast<int>(tiny_tokenizer().encode_with_specials(text).size());
  };
  const std::string first = "<|channel|>analysis<|message|>One two three.<|end|>";
  const std::string second = "<|start|>assistant<|channel|>analysis<|message|>More.<|end|>";
  const std::string call =
      "<|start|>assistant to=get_weather<|channel|>commentary<|message|>{}<|call|>";
  EXPECT_EQ(parse(first + second + call).stats.analysis_tokens, count(first) + count(second));
  EXPECT_EQ(parse("<|channel|>final<|message|>x<|return|>").stats.analysis_tokens, 0);
  const std::string cut = "<|channel|>analysis<|message|>One two";
  EXPECT_EQ(parse(cut).stats.analysis_tokens, count(cut));
  for (const char* unended :
       {"<|channel|>analysis<|message|>a<|channel|>analysis<|message|>b",
        "<|channel|>analysis<|message|>a<|start|>assistant<|channel|>analysis<|message|>b",
        "<|channel|>analysis a<|start|>assistant<|channel|>analysis<|message|>b"})
    EXPECT_EQ(parse(unended).stats.analysis_tokens, count(unended)) << unended;
}

TEST(Parser, StartsInFinal) {
  Parser parser(tiny_tokenizer(), kTools, Opened::kFinal);
  std::vector<Event> events;
  for (const TokenId id : tiny_tokenizer().encode_with_specials("Hello<|end|><|start|>assistant"))
    parser.push(id, events);
  EXPECT_TRUE(parser.done());
  parser.finish(events);
  EXPECT_THAT(collect(events, parser).messages, ElementsAre("final: Hello"));
  Parser empty(tiny_tokenizer(), kTools, Opened::kFinal);
  events.clear();
  empty.finish(events);
  EXPECT_THAT(collect(events, empty).messages, ElementsAre("final: "));
  EXPECT_FALSE(empty.done());
}

TEST(Parser, FinishTwiceAndPushAfterIt) {
  Parser parser(tiny_tokenizer(), kTools, Opened::kFinal);
  std::vector<Event> events;
  parser.push(tiny_tokenizer().encode("a")[0], events);
  parser.finish(events);
  const std::size_t count = events.size();
  parser.finish(events);
  parser.push(tiny_tokenizer().encode("b")[0], events);
  EXPECT_EQ(events.size(), count);
}

// --- bytes
// ------------------------------------------------------------------------------------------

std::vector<TokenId> byte_tokens(std::string_view bytes) {
  std::vector<TokenId> out;
  for (const char byte : bytes)
    for (const TokenId id : tiny_tokenizer().encode(std::string_view(&byte, 1))) out.push_back(id);
  return out;
}

Parsed parse_ids(const std::vector<TokenId>& ids) {
  Parser parser(tiny_tokenizer(), kTools);
  std::vector<Event> events;
  for (const TokenId id : ids) parser.push(id, events);
  parser.finish(events);
  return collect(events, parser);
}

TEST(Parser, CharactersSplitOverTokensAreWhole) {
  const auto& s = tiny_tokenizer().specials();
  Parser parser(tiny_tokenizer(), {});
  std::vector<Event> events;
  parser.push(s.message, events);
  const auto ids = byte_tokens("a\U0001F600");
  for (std::size_t i = 0; i < ids.size(); ++i) {
    parser.push(ids[i], events);
    EXPECT_EQ(events.size(), i < 4 ? 2U : 3U);
  }
  EXPECT_EQ(events.back().text, "\U0001F600");
  EXPECT_EQ(events.back().token, ids.back());
}

TEST(Parser, BrokenBytesDoNotLeakIntoTheNextMessage) {
  const auto& t = tiny_tokenizer();
  const auto& s = t.specials();
  std::vector<TokenId> ids = t.encode_with_specials("<|channel|>analysis<|message|>");
  for (const TokenId id : byte_tokens(" \xf0\x9f")) ids.push_back(id);
  ids.push_back(s.end);
  for (const TokenId id : t.encode_with_specials("<|start|>assistant<|channel|>final<|message|>ok"))
    ids.push_back(id);
  for (const TokenId id : byte_tokens(" \xf0\x9fX\xe4\xb8")) ids.push_back(id);
  EXPECT_THAT(parse_ids(ids).messages,
              ElementsAre("analysis:  \xef\xbf\xbd", "final: ok \xef\xbf\xbdX\xef\xbf\xbd"));
}

TEST(Parser, TextDoesNotDependOnTheTokensItCameIn) {
  const std::string content = "Hello Müller, こんにちは 👋🏾 {\"a\": [1, 2]}\n\n\u0301x";
  const auto& t = tiny_tokenizer();
  const auto head = t.encode_with_specials("<|channel|>final<|message|>");
  for (std::uint64_t round = 0; round < 50; ++round) {
    std::vector<TokenId> ids = head;
    for (std::size_t at = 0; at < content.size();) {
      const std::size_t take = 1 + random_at(round, at) % 5;
      t.encode(std::string_view(content).substr(at, take), ids);
      at += take;
    }
    ids.push_back(t.specials().return_);
    EXPECT_THAT(parse_ids(ids).messages, ElementsAre("final: " + content));
  }
}

// Whatever is sampled: the grammar of events holds (collect), texts are whole UTF-8, and contents
// are the decoding of the tokens between <|message|> and the end.
TEST(Parser, SurvivesEveryTokenStream) {
  const auto& t = tiny_tokenizer();
  std::vector<TokenId> frequent;
  for (TokenId id = 0; id < t.size(); ++id)
    if (t.is_special(id)) frequent.push_back(id);
  for (const char* word : {"analysis", "final", "commentary", " to=", "functions", ".", "get", "_",
                           "weather", "assistant", "user", " json", " code", "python"})
    for (const TokenId id : t.encode(word)) frequent.push_back(id);
  for (std::uint64_t round = 0; round < 3000; ++round) {
    Parser parser(t, kTools, static_cast<Opened>(round % 7 < 3 ? round % 7 : 0));
    std::vector<Event> events;
    const std::uint64_t length = random_at(round, 0) % 60;
    for (std::uint64_t i = 1; i <= length; ++i) {
      const std::uint64_t draw = random_at(round, i);
      const auto any =
          static_cast<TokenId>((draw >> 8) % static_cast<std::uint64_t>(t.size() + 40)) - 20;
      parser.push(draw % 3 == 0 ? any : frequent[(draw >> 8) % frequent.size()], events);
    }
    parser.finish(events);
    const Parsed parsed = collect(events, parser);
    EXPECT_LE(parsed.stats.analysis_tokens, static_cast<int>(length));
    for (const Event& event : events) {
      tokenizer::Utf8Stream utf8;
      std::string text;
      utf8.push(event.text, text);
      EXPECT_EQ(text, event.text);
      EXPECT_FALSE(utf8.pending());
    }
  }
}

}  // namespace
}  // namespace strata::harmony
