// The session of /v1/chat/completions.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "api/chat_request.h"
#include "api/chat_response.h"
#include "serve/chat_choice.h"
#include "serve/session.h"

namespace strata::serve {

class ChatSession final : public Session {
 public:
  // Parses, renders and starts; every refusal is answered.
  static void serve(const std::shared_ptr<Call>& call);

 private:
  ChatSession(std::shared_ptr<Call> call, api::ChatRequest request, api::AnswerIdentity identity);

  bool answer_now() override;
  Verdict on_token(std::size_t choice, const TokenOutput& output) override;
  std::vector<TokenId> forced_tokens() const override;
  void on_prompt_logprobs(std::size_t choice, std::vector<PromptLogprob> logprobs) override;
  void on_end(std::size_t choice, const SequenceEnd& ended) override;
  void write_opening(std::string& events) override;
  void write_events(std::string& events) override;
  void write_closing(std::string& events) override;
  std::string whole_answer() override;
  std::int64_t reasoning_tokens(std::size_t choice) const override;
  bool answering(std::size_t choice) const override { return choices_[choice].answering(); }

  void write_delta(std::string& events, std::int32_t index, const Delta& delta);
  void fold(std::size_t choice);
  void remember(std::size_t choice);

  const api::ChatRequest request_;
  const api::AnswerIdentity identity_;
  std::vector<ChatChoice> choices_;
  std::vector<api::ChatChoice> whole_;  // not streaming: what was collected
  api::ChatChunkWriter writer_;
  bool answer_now_ = false;  // reasoning is to end
};

}  // namespace strata::serve
