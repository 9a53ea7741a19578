// One choice of a /v1/completions answer: sampled tokens in, raw text out. Knows nothing of HTTP
// and engine.
#pragma once

#include <string>
#include <vector>

#include "api/response_types.h"
#include "base/ids.h"
#include "engine/token_stream.h"
#include "serve/visible_text.h"
#include "tokenizer/tokenizer.h"

namespace strata::serve {

struct TextChoiceOptions {
  bool logprobs = false;
  bool skip_special_tokens = true;
  std::vector<std::string> stop;
  bool include_stop_text = false;
  std::vector<TokenId> stop_token_ids;  // the request's own
};

class TextChoice {
 public:
  TextChoice(const tokenizer::Tokenizer& tokenizer, TextChoiceOptions options);

  // The answer begins with the prompt. Its log-probabilities follow by add_prompt_logprobs().
  void echo(const std::string& text, TokenId first_token);
  void add_prompt_logprobs(const std::vector<PromptLogprob>& logprobs);
  // True: a stop string is complete.
  bool push(const TokenOutput& output);
  void end(const SequenceEnd& ended);

  // Text and log-probabilities since the last call.
  struct Piece {
    std::string text;
    std::vector<api::CompletionToken> tokens;
    bool empty() const { return text.empty() && tokens.empty(); }
  };
  Piece take();

  const std::vector<TokenId>& token_ids() const { return token_ids_; }
  // After end().
  const std::string& finish_reason() const { return finish_reason_; }
  const api::StopCause& stop() const { return stop_; }

 private:
  void move_visible();
  void add_token(api::TokenLogprobText token, bool has_logprob);
  bool is_own_stop(TokenId token) const;

  const tokenizer::Tokenizer& tokenizer_;
  const TextChoiceOptions options_;
  tokenizer::Utf8Stream utf8_;
  VisibleText visible_;
  Piece ready_;
  std::int64_t text_offset_ = 0;  // characters of the tokens in `ready_` and before
  std::vector<TokenId> token_ids_;
  std::string finish_reason_;
  api::StopCause stop_;
};

}  // namespace strata::serve
