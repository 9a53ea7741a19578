#include "serve/chat_choice.h"

#include <algorithm>
#include <utility>

namespace strata::serve {

using harmony::EventKind;
using harmony::MessageKind;

api::TokenLogprobText logprob_text(const TokenOutput& output, const tokenizer::Tokenizer& tok) {
  api::TokenLogprobText out;
  out.bytes = std::string(tok.token_bytes(output.token));
  out.logprob = output.logprob;
  for (const auto& other : output.top)
    out.top.emplace_back(std::string(tok.token_bytes(other.token)), other.logprob);
  return out;
}

ChatChoice::ChatChoice(const tokenizer::Tokenizer& tokenizer, ChatChoiceOptions options)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      parser_(tokenizer, options_.tool_names, options_.opened),
      visible_(options_.stop, options_.include_stop_text) {
  if (options_.opened == harmony::Opened::kNothing) return;
  open_kind_ =
      options_.opened == harmony::Opened::kFinal ? MessageKind::kFinal : MessageKind::kAnalysis;
  message_open_ = true;
}

bool ChatChoice::is_visible() const {
  return message_open_ &&
         (open_kind_ == MessageKind::kFinal || open_kind_ == MessageKind::kPreamble);
}

// A stop token of the request ends the answer and is not part of it.
bool ChatChoice::is_hidden_stop(TokenId token) const {
  const auto& own = options_.stop_token_ids;
  return !options_.include_stop_text && !tokenizer_.is_special(token) &&
         std::find(own.begin(), own.end(), token) != own.end();
}

bool ChatChoice::push(const TokenOutput& output) {
  if (options_.keep_token_ids) token_ids_.push_back(output.token);
  ++pushed_;
  if (is_hidden_stop(output.token)) return false;
  if (in_reasoning() && !tokenizer_.is_special(output.token)) ++reasoning_tokens_;
  if (output.has_logprob && is_visible() && !tokenizer_.is_special(output.token))
    visible_.add_token(logprob_text(output, tokenizer_));
  events_.clear();
  parser_.push(output.token, events_);
  for (const auto& event : events_) handle(event);
  if (visible_.matched()) return true;
  return parser_.done() && !options_.ignore_eos;
}

void ChatChoice::handle(const harmony::Event& event) {
  if (visible_.matched()) return;
  switch (event.kind) {
    case EventKind::kMessageStart:
      message_open_ = true;
      open_kind_ = event.message;
      answering_ |= is_visible() || event.message == MessageKind::kToolCall;
      parts_.push_back({event.message, event.tool_name, opened_by_prompt() ? 0 : pushed_, pushed_});
      if (is_visible()) open_visible();
      if (event.message == MessageKind::kToolCall) {
        auto& start = deltas_.emplace_back();
        start.kind = DeltaKind::kToolStart;
        start.text = event.tool_name;
        start.call = tool_calls_++;
      }
      break;
    case EventKind::kContent:
      if (is_visible()) {
        visible_.push(event.text);
        move_visible();
      } else if (event.message == MessageKind::kAnalysis && options_.include_reasoning) {
        delta(DeltaKind::kReasoning).text += event.text;
      } else if (event.message == MessageKind::kToolCall) {
        delta(DeltaKind::kToolArguments).text += event.text;
      }
      break;
    case EventKind::kMessageEnd:
      if (is_visible()) {
        visible_.flush();
        move_visible();
      }
      message_open_ = false;
      // Ended by a token of its own, or by the end of all.
      parts_.back().end = ended_ ? pushed_ : pushed_ - 1;
      break;
  }
}

// A preamble and the final message are both content, a line apart.
void ChatChoice::open_visible() {
  if (any_visible_) {
    visible_.push_unmatched("\n");
    move_visible();
  }
  any_visible_ = true;
}

Delta& ChatChoice::delta(DeltaKind kind) {
  if (deltas_.empty() || deltas_.back().kind != kind) {
    auto& added = deltas_.emplace_back();
    added.kind = kind;
    added.call = std::max(tool_calls_ - 1, 0);
  }
  return deltas_.back();
}

void ChatChoice::move_visible() {
  auto piece = visible_.take();
  if (piece.text.empty() && piece.tokens.empty()) return;
  auto& content = delta(DeltaKind::kContent);
  content.text += piece.text;
  std::move(piece.tokens.begin(), piece.tokens.end(), std::back_inserter(content.logprobs));
}

void ChatChoice::end(const SequenceEnd& ended) {
  ended_ = true;
  events_.clear();
  parser_.finish(events_);
  for (const auto& event : events_) handle(event);
  if (visible_.matched()) {
    stop_.text = visible_.matched();
    finish_reason_ = "stop";
    return;
  }
  const auto& own = options_.stop_token_ids;
  if (std::find(own.begin(), own.end(), ended.stop_token) != own.end())
    stop_.token = ended.stop_token;
  if (ended.reason == FinishReason::kLength) {
    finish_reason_ = "length";
  } else {
    finish_reason_ = tool_calls_ > 0 ? "tool_calls" : "stop";
  }
}

std::vector<Delta> ChatChoice::take() { return std::exchange(deltas_, {}); }

}  // namespace strata::serve
