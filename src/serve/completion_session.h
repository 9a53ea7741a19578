// The session of /v1/completions: raw text or token ids, no harmony.
#pragma once

#include <memory>
#include <vector>

#include "api/completion_request.h"
#include "serve/session.h"
#include "serve/text_choice.h"

namespace strata::serve {

class CompletionSession final : public Session {
 public:
  // Parses, encodes and starts; every refusal is answered.
  static void serve(const std::shared_ptr<Call>& call);

 private:
  using Prompts = std::vector<std::vector<TokenId>>;
  CompletionSession(std::shared_ptr<Call> call, api::CompletionRequest request,
                    api::AnswerIdentity identity, const Prompts& prompts);

  Verdict on_token(std::size_t choice, const TokenOutput& output) override;
  void on_prompt_logprobs(std::size_t choice, std::vector<PromptLogprob> logprobs) override;
  void on_end(std::size_t choice, const SequenceEnd& ended) override;
  void write_opening(std::string& events) override;
  void write_events(std::string& events) override;
  void write_closing(std::string& events) override;
  std::string whole_answer() override;
  std::int64_t reasoning_tokens(std::size_t /*choice*/) const override { return 0; }
  bool answering(std::size_t /*choice*/) const override { return true; }

  void fold(std::size_t choice);
  void write_chunk(std::string& events, const api::CompletionChoice& chunk);

  const api::CompletionRequest request_;
  const api::AnswerIdentity identity_;
  std::vector<TextChoice> choices_;
  std::vector<api::CompletionChoice> whole_;
};

}  // namespace strata::serve
