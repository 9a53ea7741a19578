#include "serve/text_choice.h"

#include <algorithm>
#include <utility>

#include "serve/chat_choice.h"

namespace strata::serve {
namespace {

// Characters that begin in `bytes`.
std::int64_t count_characters(std::string_view bytes) {
  return std::count_if(bytes.begin(), bytes.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0U) != 0x80U; });
}

}  // namespace

TextChoice::TextChoice(const tokenizer::Tokenizer& tokenizer, TextChoiceOptions options)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      visible_(options_.stop, options_.include_stop_text) {}

void TextChoice::echo(const std::string& text, TokenId first_token) {
  ready_.text += text;
  if (options_.logprobs)
    add_token({std::string(tokenizer_.token_bytes(first_token)), 0.0F, {}}, false);
}

void TextChoice::add_prompt_logprobs(const std::vector<PromptLogprob>& logprobs) {
  for (const auto& prompt : logprobs)
    add_token(logprob_text({prompt.token, true, prompt.logprob, prompt.top}, tokenizer_), true);
}

void TextChoice::add_token(api::TokenLogprobText token, bool has_logprob) {
  const auto chosen = std::pair(token.bytes, token.logprob);
  const auto listed = [&chosen](const auto& other) { return other.first == chosen.first; };
  if (!token.top.empty() && std::none_of(token.top.begin(), token.top.end(), listed))
    token.top.push_back(chosen);
  const auto characters = count_characters(token.bytes);
  ready_.tokens.push_back({std::move(token), has_logprob, text_offset_});
  text_offset_ += characters;
}

bool TextChoice::is_own_stop(TokenId token) const {
  const auto& own = options_.stop_token_ids;
  return std::find(own.begin(), own.end(), token) != own.end();
}

bool TextChoice::push(const TokenOutput& output) {
  token_ids_.push_back(output.token);
  const bool special = tokenizer_.is_special(output.token);
  if (is_own_stop(output.token) && !options_.include_stop_text && !special) return false;
  if (options_.logprobs) visible_.add_token(logprob_text(output, tokenizer_));
  if (special && options_.skip_special_tokens) return false;
  std::string text;
  utf8_.push(tokenizer_.token_bytes(output.token), text);
  const bool stopped = visible_.push(text);
  move_visible();
  return stopped;
}

void TextChoice::end(const SequenceEnd& ended) {
  if (visible_.matched()) {
    stop_.text = visible_.matched();
  } else {
    std::string rest;
    utf8_.finish(rest);
    visible_.push(rest);
    visible_.flush();
    move_visible();
    if (is_own_stop(ended.stop_token)) stop_.token = ended.stop_token;
  }
  finish_reason_ = ended.reason == FinishReason::kLength ? "length" : "stop";
}

void TextChoice::move_visible() {
  auto piece = visible_.take();
  ready_.text += piece.text;
  for (auto& token : piece.tokens) add_token(std::move(token), true);
}

TextChoice::Piece TextChoice::take() { return std::exchange(ready_, {}); }

}  // namespace strata::serve
