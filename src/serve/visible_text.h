// The user-visible text of one choice on its way out: stop strings, and log-probabilities kept in
// step with the text they belong to. Runs on the session's executor.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "api/response_types.h"
#include "serve/stop_matcher.h"

namespace strata::serve {

class VisibleText {
 public:
  VisibleText(std::vector<std::string> stops, bool include_stop)
      : matcher_(std::move(stops), include_stop) {}

  // A visible token is about to add its text, perhaps none yet: part of a character.
  void add_token(api::TokenLogprobText token);
  // True when a stop string was completed: the rest of the choice is not visible.
  bool push(std::string_view text);
  // Text that is not the model's and no stop string looks at.
  void push_unmatched(std::string_view text);
  // The message or the choice ends: nothing is held back any longer.
  void flush();

  const std::optional<std::string>& matched() const { return matcher_.matched(); }

  // What became certain since the last call.
  struct Piece {
    std::string text;
    std::vector<api::TokenLogprobText> tokens;
  };
  Piece take();

 private:
  struct Waiting {
    std::size_t start;  // offset of the token's text
    api::TokenLogprobText token;
  };
  void release_tokens(bool all);

  StopMatcher matcher_;
  std::size_t pushed_ = 0;    // bytes of visible text so far
  std::size_t released_ = 0;  // of these, certain
  std::deque<Waiting> waiting_;
  Piece ready_;
};

}  // namespace strata::serve
