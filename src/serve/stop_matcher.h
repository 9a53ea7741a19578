// Finds stop strings in text that arrives in pieces and holds back what may be the beginning of
// one. Where pieces are cut never changes the result.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace strata::serve {

class StopMatcher {
 public:
  // `stops`: none empty. `include_stop`: the matched string itself is released too.
  explicit StopMatcher(std::vector<std::string> stops = {}, bool include_stop = false);

  // Appends to `released` what is certain to come before any stop string. True when one was
  // completed: matched() says which, and nothing more is released.
  bool push(std::string_view text, std::string& released);
  // The text ends here: what is held back was no stop string.
  void flush(std::string& released);

  const std::optional<std::string>& matched() const { return matched_; }

 private:
  std::vector<std::string> stops_;
  bool include_stop_ = false;
  std::string held_;
  std::optional<std::string> matched_;
};

}  // namespace strata::serve
