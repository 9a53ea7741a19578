// ChatView: what the terminal chat shows of an answer. Pure: message events in, text out.
#pragma once

#include <string>

#include "harmony/parser.h"

namespace strata::app {

struct ChatStyle {
  bool reasoning = false;  // show it at all: on a terminal
  bool color = false;      // dim it; otherwise it is set apart in brackets
};

class ChatView {
 public:
  explicit ChatView(ChatStyle style) : style_(style) {}

  // Text to print for the event, possibly empty.
  std::string show(const harmony::Event& event);
  // Closes what is open; ends with a newline.
  std::string finish();

  // What the answer said, for the conversation's next turn.
  const std::string& reasoning() const { return reasoning_; }
  const std::string& answer() const { return answer_; }

 private:
  std::string open(harmony::MessageKind kind);
  std::string close();

  const ChatStyle style_;
  bool in_reasoning_ = false;  // a shown reasoning message is open
  bool at_line_start_ = true;
  std::string reasoning_;
  std::string answer_;
};

}  // namespace strata::app
