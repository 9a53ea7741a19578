// The header of a sampled message, read leniently: everything a model writes between <|start|> and
// <|message|> means something, or is ignored.
#pragma once

#include <string>
#include <vector>

#include "base/ids.h"

namespace strata::harmony {

// A header is cut at its special tokens.
enum class HeaderMarker { kNone, kChannel, kConstrain };
struct HeaderPiece {
  HeaderMarker marker = HeaderMarker::kNone;  // the special in front of `text`
  std::string text;
};

enum class Channel { kNone, kAnalysis, kCommentary, kFinal };

struct Header {
  Channel channel = Channel::kNone;
  std::string recipient;       // as written; empty: everyone
  std::string tool;            // the declared tool that `recipient` names; empty: none
  bool from_assistant = true;  // false: the model speaks for somebody else
  bool malformed = false;      // something had to be guessed or ignored
  std::string content;         // read_headless: what is left after channel, recipient and type
};

// `has_role`: the header follows a sampled <|start|>, so its first word is the author; otherwise
// the prompt has named the assistant already. Tools match with or without "functions.".
Header read_header(const std::vector<HeaderPiece>& pieces, bool has_role,
                   const std::vector<std::string>& declared_tools);

// The same for a message that was closed without <|message|>: its content stands in the header.
Header read_headless(const std::vector<HeaderPiece>& pieces, bool has_role,
                     const std::vector<std::string>& declared_tools);

}  // namespace strata::harmony
