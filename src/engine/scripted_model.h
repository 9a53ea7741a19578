// ScriptedModel: a Model that samples what a script says, for tests and client developers
// (`strata serve --load-format scripted --script FILE.jsonl`). The n-th admitted sequence gets
// line n (after the last line it starts again at the first), one token a step, whatever the
// prompt; a script that ends without a stop token is followed by `end_token`.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/model.h"

namespace strata {

struct ScriptedOptions {
  std::vector<std::vector<TokenId>> scripts;  // at least one, each may be empty
  TokenId end_token = kNoToken;
  ModelInfo info;         // vocab, pages and limits as configured
  int step_delay_us = 0;  // pace of a step, for client developers
};

std::unique_ptr<Model> make_scripted_model(ScriptedOptions options);

}  // namespace strata
