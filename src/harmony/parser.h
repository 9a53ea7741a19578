// Sampled token ids -> message events. Total: never throws, never fails, whatever is sampled.
// One parser per choice, on the thread of its session.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "harmony/header.h"
#include "tokenizer/tokenizer.h"

namespace strata::harmony {

enum class EventKind {
  kMessageStart,  // header complete: channel and recipient are known
  kContent,       // text appended to the current message (whole UTF-8 characters)
  kMessageEnd,    // the message is closed
};

// What a message is for, decided once its header is complete.
enum class MessageKind {
  kAnalysis,   // reasoning
  kFinal,      // the answer; also content that came without any channel
  kPreamble,   // commentary without recipient: visible to the user
  kToolCall,   // to a declared function
  kDiscarded,  // to a tool that was not offered: counted, never shown
};

struct Event {
  EventKind kind = EventKind::kContent;
  MessageKind message = MessageKind::kFinal;
  std::string text;          // kContent
  std::string tool_name;     // kToolCall: the declared name, without namespace
  TokenId token = kNoToken;  // kContent: the token that completed the text
};

// The message the prompt ends in, left open for the model to go on with.
enum class Opened { kNothing, kFinal, kAnalysis };

struct ParserStats {
  int malformed_headers = 0;
  int discarded_calls = 0;
  int analysis_tokens = 0;  // tokens that belong to analysis messages, headers included
};

class Parser {
 public:
  // `declared_tools`: names as offered, those outside the namespace "functions" with their own
  // ("get_weather", "agents.spawn"); recipients match with or without "functions.".
  Parser(const tokenizer::Tokenizer& tokenizer, std::vector<std::string> declared_tools,
         Opened opened = Opened::kNothing);

  // Feeds one sampled token, stop tokens included; appends events. After done() or finish()
  // further tokens are ignored.
  void push(TokenId token, std::vector<Event>& events);
  // The token stream ended (length, abort, stop): closes the open message. An unfinished header is
  // dropped.
  void finish(std::vector<Event>& events);

  // A stop token was seen, or a message of the final channel was completed by <|end|>. Content
  // that came without any channel completes nothing: the answer may follow.
  bool done() const { return done_; }
  const ParserStats& stats() const { return stats_; }

 private:
  enum class State { kExpectStart, kHeader, kContent };
  void on_special(TokenId token, std::vector<Event>& events);
  void on_text(TokenId token, std::vector<Event>& events);
  void begin_header(bool has_role);
  HeaderPiece& last_piece();
  void set_kind(const Header& header);
  void open_message(const Header& header, std::vector<Event>& events);
  bool open_headless(std::vector<Event>& events);
  void close_message(std::vector<Event>& events);
  void emit(EventKind kind, std::string text, std::vector<Event>& events) const;

  const tokenizer::Tokenizer& tokenizer_;
  std::vector<std::string> declared_tools_;
  tokenizer::Utf8Stream utf8_;
  State state_ = State::kHeader;
  bool done_ = false;
  bool finished_ = false;
  bool announce_ = false;  // the prompt opened the message: its start is still to be told
  MessageKind kind_ = MessageKind::kFinal;
  bool is_final_channel_ = false;  // of the open message: closing it completes the answer
  std::string tool_name_;
  bool has_role_ = false;  // the header under way follows a sampled <|start|>
  std::vector<HeaderPiece> header_;
  int message_tokens_ = 0;  // of the message under way, its header included
  TokenId last_token_ = kNoToken;
  ParserStats stats_;
};

}  // namespace strata::harmony
