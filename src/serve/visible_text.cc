#include "serve/visible_text.h"

#include <utility>

namespace strata::serve {

void VisibleText::add_token(api::TokenLogprobText token) {
  waiting_.push_back({pushed_, std::move(token)});
}

bool VisibleText::push(std::string_view text) {
  const auto before = ready_.text.size();
  const bool stopped = matcher_.push(text, ready_.text);
  pushed_ += text.size();
  released_ += ready_.text.size() - before;
  release_tokens(false);
  if (stopped) waiting_.clear();
  return stopped;
}

void VisibleText::push_unmatched(std::string_view text) {
  ready_.text += text;
  pushed_ += text.size();
  released_ += text.size();
}

void VisibleText::flush() {
  const auto before = ready_.text.size();
  matcher_.flush(ready_.text);
  released_ += ready_.text.size() - before;
  release_tokens(true);
}

void VisibleText::release_tokens(bool all) {
  while (!waiting_.empty() && (all || waiting_.front().start < released_)) {
    ready_.tokens.push_back(std::move(waiting_.front().token));
    waiting_.pop_front();
  }
}

VisibleText::Piece VisibleText::take() { return std::exchange(ready_, {}); }

}  // namespace strata::serve
