// One choice of a chat answer: sampled tokens in, deltas out. Knows nothing of HTTP and engine.
#pragma once

#include <string>
#include <vector>

#include "api/response_types.h"
#include "base/ids.h"
#include "engine/token_stream.h"
#include "harmony/parser.h"
#include "serve/turn_memory.h"
#include "serve/visible_text.h"
#include "tokenizer/tokenizer.h"

namespace strata::serve {

enum class DeltaKind { kReasoning, kContent, kToolStart, kToolArguments };

struct Delta {
  DeltaKind kind = DeltaKind::kContent;
  std::string text;  // kToolStart: the function's name
  std::int32_t call = 0;
  std::vector<api::TokenLogprobText> logprobs;  // kContent
};

struct ChatChoiceOptions {
  std::vector<std::string> tool_names;
  harmony::Opened opened = harmony::Opened::kNothing;
  bool include_reasoning = true;
  bool ignore_eos = false;
  bool keep_token_ids = false;
  std::vector<std::string> stop;
  bool include_stop_text = false;
  std::vector<TokenId> stop_token_ids;  // the request's own, named in stop_reason
};

class ChatChoice {
 public:
  ChatChoice(const tokenizer::Tokenizer& tokenizer, ChatChoiceOptions options);

  // True: the choice is complete.
  bool push(const TokenOutput& output);
  void end(const SequenceEnd& ended);

  // What came since the last call; neighbours of one kind are one delta.
  std::vector<Delta> take();

  // After end().
  const std::string& finish_reason() const { return finish_reason_; }
  const api::StopCause& stop() const { return stop_; }
  const std::vector<TokenId>& token_ids() const { return token_ids_; }
  const harmony::ParserStats& stats() const { return parser_.stats(); }

  // The model is in the middle of its reasoning.
  bool in_reasoning() const {
    return message_open_ && open_kind_ == harmony::MessageKind::kAnalysis;
  }
  // Tokens of reasoning text so far.
  std::int32_t reasoning_tokens() const { return reasoning_tokens_; }
  // An answer or a tool call has begun: more than reasoning came.
  bool answering() const { return answering_; }
  // Messages so far, by their place among the pushed tokens.
  const std::vector<TurnPart>& parts() const { return parts_; }

 private:
  void handle(const harmony::Event& event);
  void open_visible();
  Delta& delta(DeltaKind kind);
  void move_visible();
  bool is_visible() const;
  bool opened_by_prompt() const {
    return options_.opened != harmony::Opened::kNothing && parts_.empty();
  }
  bool is_hidden_stop(TokenId token) const;

  const tokenizer::Tokenizer& tokenizer_;
  const ChatChoiceOptions options_;
  harmony::Parser parser_;
  VisibleText visible_;
  harmony::MessageKind open_kind_ = harmony::MessageKind::kDiscarded;
  bool message_open_ = false;
  bool any_visible_ = false;
  bool answering_ = false;
  std::int32_t reasoning_tokens_ = 0;
  std::size_t pushed_ = 0;  // tokens
  bool ended_ = false;
  std::vector<TurnPart> parts_;
  std::int32_t tool_calls_ = 0;
  std::vector<Delta> deltas_;
  std::vector<harmony::Event> events_;  // scratch
  std::vector<TokenId> token_ids_;
  std::string finish_reason_;
  api::StopCause stop_;
};

api::TokenLogprobText logprob_text(const TokenOutput& output, const tokenizer::Tokenizer& tok);

}  // namespace strata::serve
