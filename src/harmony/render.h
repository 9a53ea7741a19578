// Conversation -> prompt token ids. Rendering goes to ids, never to a string that is tokenised
// afterwards: text pieces are encoded as ordinary text between special ids.
// Source of the format: openai/harmony (src/encoding.rs), the "crate".
#pragma once

#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "harmony/message.h"
#include "tokenizer/tokenizer.h"

namespace strata::harmony {

// Which analysis messages of earlier turns are left out.
enum class HistoryRule {
  kServer,  // all before the last final; kept since then while a tool loop is open
  kCrate,   // the harmony crate's: only before the first final. For conformance tests.
  kKeepAll,
};

struct RenderOptions {
  HistoryRule history = HistoryRule::kServer;
  bool add_generation_prompt = true;   // <|start|>assistant
  bool force_final_channel = false;    // also <|channel|>final<|message|>: effort "none"
  bool continue_last_message = false;  // leave the last assistant message open to be continued
};

// Errors are the client's: a tool message without a name, a broken schema, nothing to continue.
Result<std::vector<TokenId>> render(const Conversation& conversation,
                                    const tokenizer::Tokenizer& tokenizer,
                                    const RenderOptions& options = {});

// The texts of the system and developer messages, for tests and /apply-template.
std::string system_text(const Conversation& conversation);
Result<std::string> developer_text(const Conversation& conversation);

// A tool's JSON schema as the TypeScript-like type of the developer message.
Result<std::string> schema_to_typescript(const std::string& schema_json);

}  // namespace strata::harmony
