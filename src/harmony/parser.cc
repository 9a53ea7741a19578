#include "harmony/parser.h"

#include <string_view>

namespace strata::harmony {
namespace {

// Longer than any header: the name of a tool has at most 64 characters.
constexpr int kLongestHeader = 128;  // tokens

}  // namespace

Parser::Parser(const tokenizer::Tokenizer& tokenizer, std::vector<std::string> declared_tools,
               Opened opened)
    : tokenizer_(tokenizer), declared_tools_(std::move(declared_tools)) {
  if (opened == Opened::kNothing) return;
  state_ = State::kContent;
  is_final_channel_ = opened == Opened::kFinal;
  kind_ = opened == Opened::kFinal ? MessageKind::kFinal : MessageKind::kAnalysis;
  announce_ = true;
}

void Parser::push(TokenId token, std::vector<Event>& events) {
  if (done_ || finished_) return;
  if (announce_) emit(EventKind::kMessageStart, {}, events);
  announce_ = false;
  last_token_ = token;
  ++message_tokens_;
  if (state_ == State::kContent && kind_ == MessageKind::kAnalysis) ++stats_.analysis_tokens;
  if (tokenizer_.is_special(token)) on_special(token, events);
  else on_text(token, events);
}

void Parser::finish(std::vector<Event>& events) {
  if (finished_) return;
  finished_ = true;
  if (announce_) emit(EventKind::kMessageStart, {}, events);
  announce_ = false;
  if (state_ == State::kContent) close_message(events);
}

void Parser::on_special(TokenId token, std::vector<Event>& events) {
  const tokenizer::SpecialIds& ids = tokenizer_.specials();
  const bool stops = token == ids.return_ || token == ids.call || token == ids.end_of_text;
  if (stops || token == ids.end) {
    if (state_ == State::kHeader && !open_headless(events))
      stats_.malformed_headers += header_.empty() ? 0 : 1;
    if (state_ == State::kContent) close_message(events);
    state_ = State::kExpectStart;
    done_ |= stops;
  } else if (token == ids.start || token == ids.channel) {
    // In a message: the model forgot to end it. In a header, <|start|> begins anew. Either way this
    // token counts to the message it begins.
    if (state_ == State::kContent) {
      ++stats_.malformed_headers;
      if (kind_ == MessageKind::kAnalysis) --stats_.analysis_tokens;
    } else if (state_ == State::kHeader && token == ids.start) {
      --message_tokens_;
      if (!open_headless(events)) ++stats_.malformed_headers;
    }
    if (state_ == State::kContent) close_message(events);
    if (done_) return;
    if (token == ids.start) return begin_header(true);
    if (state_ != State::kHeader) begin_header(false);
    header_.push_back({HeaderMarker::kChannel, {}});
  } else if (token == ids.message && state_ != State::kContent) {
    if (state_ == State::kExpectStart) begin_header(false);
    open_message(read_header(header_, has_role_, declared_tools_), events);
  } else if (token == ids.constrain && state_ == State::kHeader) {
    header_.push_back({HeaderMarker::kConstrain, {}});
  }
  // Any other special has no meaning here; it is dropped.
}

void Parser::on_text(TokenId token, std::vector<Event>& events) {
  const std::string_view bytes = tokenizer_.token_bytes(token);
  if (state_ == State::kContent) {
    std::string text;
    utf8_.push(bytes, text);
    if (!text.empty()) emit(EventKind::kContent, std::move(text), events);
    return;
  }
  if (state_ == State::kExpectStart) begin_header(false);
  last_piece().text += bytes;
  if (message_tokens_ % kLongestHeader == 0) open_headless(events);
}

void Parser::begin_header(bool has_role) {
  state_ = State::kHeader;
  has_role_ = has_role;
  header_.clear();
  message_tokens_ = 1;
}

HeaderPiece& Parser::last_piece() {
  if (header_.empty()) header_.emplace_back();
  return header_.back();
}

// Content without a channel is shown: it is the best answer there is. The final channel is shown
// whatever recipient its header names, unless that is a tool.
void Parser::set_kind(const Header& header) {
  is_final_channel_ = header.channel == Channel::kFinal;
  tool_name_ = header.tool;
  const bool to_nobody = header.recipient.empty() || is_final_channel_ ||
                         (header.channel == Channel::kAnalysis && header.recipient == "assistant");
  const bool to_stranger = header.tool.empty() && !to_nobody;
  if (!header.from_assistant || to_stranger) kind_ = MessageKind::kDiscarded;
  else if (!header.tool.empty()) kind_ = MessageKind::kToolCall;
  else if (header.channel == Channel::kAnalysis) kind_ = MessageKind::kAnalysis;
  else if (header.channel == Channel::kCommentary) kind_ = MessageKind::kPreamble;
  else kind_ = MessageKind::kFinal;
  if (kind_ != MessageKind::kFinal) is_final_channel_ = false;
}

void Parser::open_message(const Header& header, std::vector<Event>& events) {
  set_kind(header);
  state_ = State::kContent;
  header_.clear();
  stats_.malformed_headers += header.malformed ? 1 : 0;
  stats_.discarded_calls += kind_ == MessageKind::kDiscarded ? 1 : 0;
  if (kind_ == MessageKind::kAnalysis) stats_.analysis_tokens += message_tokens_;
  emit(EventKind::kMessageStart, {}, events);
}

// No <|message|> came: what is in the header beyond channel and recipient is content. A header
// alone is no message, except a call without arguments. Returns whether a message was opened.
bool Parser::open_headless(std::vector<Event>& events) {
  const Header header = read_headless(header_, has_role_, declared_tools_);
  if (header.content.empty() && header.tool.empty()) return false;
  open_message(header, events);
  std::string text;
  utf8_.push(header.content, text);
  if (!text.empty()) emit(EventKind::kContent, std::move(text), events);
  return true;
}

void Parser::close_message(std::vector<Event>& events) {
  std::string text;
  utf8_.finish(text);
  if (!text.empty()) emit(EventKind::kContent, std::move(text), events);
  emit(EventKind::kMessageEnd, {}, events);
  state_ = State::kExpectStart;
  done_ |= is_final_channel_ && !finished_;
}

void Parser::emit(EventKind kind, std::string text, std::vector<Event>& events) const {
  Event event;
  event.kind = kind;
  event.message = kind_;
  event.text = std::move(text);
  if (kind_ == MessageKind::kToolCall) event.tool_name = tool_name_;
  if (kind == EventKind::kContent) event.token = last_token_;
  events.push_back(std::move(event));
}

}  // namespace strata::harmony
