#include "serve/chat_session.h"

#include <algorithm>
#include <utility>

#include "serve/prompt.h"
#include "serve/turn_memory.h"

namespace strata::serve {
namespace {

api::AnswerIdentity make_identity(const Context& context, const std::string& model) {
  return {context.make_id("chatcmpl-"), context.shown_model(model), unix_time(),
          context.fingerprint};
}

ChatChoiceOptions choice_options(const api::ChatRequest& request) {
  ChatChoiceOptions out;
  for (const auto& tool : request.tools) out.tool_names.push_back(tool.name);
  out.opened = opened_message(request);
  out.include_reasoning = request.include_reasoning;
  out.ignore_eos = request.sampling.ignore_eos;
  out.keep_token_ids = request.return_token_ids;
  out.stop = request.sampling.stop;
  out.include_stop_text = request.sampling.include_stop_text;
  out.stop_token_ids = request.sampling.stop_token_ids;
  return out;
}

}  // namespace

void ChatSession::serve(const std::shared_ptr<Call>& call) {
  auto& context = call->context();
  auto request = api::parse_chat_request(call->request().body, context.limits());
  if (!request) return call->fail(request.error());
  if (const auto ready = prepare_stream(*call, request->stream); !ready)
    return call->fail(ready.error());
  auto prompt = render_chat(*request, context);
  if (!prompt) return call->fail(prompt.error());
  const auto length = answer_length(prompt->size(), request->max_tokens, context, "messages");
  if (!length) return call->fail(length.error());
  // The schema is in the prompt; nothing forces the answer to follow it.
  if (request->response_format.kind != api::FormatKind::kText)
    call->add_header("x-strata-response-format", "prompted");

  EngineRequest base;
  base.prompt = std::move(*prompt);
  base.sampling =
      make_sampling(request->sampling, context, request->logprobs ? request->top_logprobs : -1);
  base.max_new_tokens = *length;
  base.priority = request->sampling.priority;
  base.cache_salt = request->sampling.cache_salt;
  Submission submission;
  submission.choices_per_prompt = static_cast<std::size_t>(request->sampling.n);
  submission.limited_by_context = *length < request->max_tokens.value_or(INT32_MAX);
  submission.requests.assign(submission.choices_per_prompt, base);
  for (std::size_t i = 0; i < submission.requests.size(); ++i)
    submission.requests[i].sampling.seed += i;
  auto identity = make_identity(context, request->model);
  std::shared_ptr<ChatSession> session(
      new ChatSession(call, std::move(*request), std::move(identity)));
  session->start(std::move(submission));
}

ChatSession::ChatSession(std::shared_ptr<Call> call, api::ChatRequest request,
                         api::AnswerIdentity identity)
    : Session(std::move(call), identity.id, request.stream),
      request_(std::move(request)),
      identity_(std::move(identity)),
      writer_(identity_, request_.stream.include_usage) {
  choices_.reserve(static_cast<std::size_t>(request_.sampling.n));
  for (std::int32_t i = 0; i < request_.sampling.n; ++i) {
    choices_.emplace_back(context().tokenizer, choice_options(request_));
    whole_.emplace_back().index = i;
    if (request_.logprobs) whole_.back().logprobs.emplace();
  }
}

Verdict ChatSession::on_token(std::size_t choice, const TokenOutput& output) {
  auto& to = choices_[choice];
  if (to.push(output)) return Verdict::kEnded;
  if (!to.in_reasoning()) return Verdict::kMore;
  const bool spent =
      request_.thinking_token_budget && to.reasoning_tokens() >= *request_.thinking_token_budget;
  return answer_now_ || spent ? Verdict::kForced : Verdict::kMore;
}

// Ends the analysis message and opens the final one.
std::vector<TokenId> ChatSession::forced_tokens() const {
  const auto& tokenizer = context().tokenizer;
  const auto& ids = tokenizer.specials();
  std::vector<TokenId> out = {ids.end, ids.start};
  tokenizer.encode("assistant", out);
  out.push_back(ids.channel);
  tokenizer.encode("final", out);
  out.push_back(ids.message);
  return out;
}

bool ChatSession::answer_now() {
  answer_now_ = true;
  return std::any_of(choices_.begin(), choices_.end(),
                     [](const ChatChoice& choice) { return !choice.answering(); });
}

void ChatSession::on_prompt_logprobs(std::size_t /*choice*/, std::vector<PromptLogprob> /*all*/) {}

void ChatSession::on_end(std::size_t choice, const SequenceEnd& ended) {
  choices_[choice].end(ended);
  const auto& stats = choices_[choice].stats();
  context().metrics.model_output_oddities(stats.malformed_headers, stats.discarded_calls);
  remember(choice);
  if (!request_.stream.stream) fold(choice);
}

// For the time this turn comes back in a conversation's history.
void ChatSession::remember(std::size_t choice) {
  const auto& from = choices_[choice];
  const auto& stats = from.stats();
  // Without an opening the model wrote the turn's first header behind somebody else's message.
  const bool opened = request_.add_generation_prompt || request_.continue_final_message;
  if (context().options.turn_memory_bytes == 0 || !opened || from.stop().text ||
      stats.malformed_headers > 0 || stats.discarded_calls > 0)
    return;
  const auto& prompt = request_of(choice).prompt;
  const auto start =
      std::find(prompt.rbegin(), prompt.rend(), context().tokenizer.specials().start);
  const std::vector<TokenId> opening(start.base(), prompt.end());
  auto turn = exact_turn(opening, tokens_of(choice), from.parts(), context().tokenizer);
  if (turn) context().turns.remember(std::move(*turn), request_.sampling.cache_salt);
}

// Deltas of a choice that is answered whole.
void ChatSession::fold(std::size_t choice) {
  auto& out = whole_[choice];
  for (auto& delta : choices_[choice].take()) {
    switch (delta.kind) {
      case DeltaKind::kReasoning: out.reasoning += delta.text; break;
      case DeltaKind::kContent:
        if (!out.content) out.content.emplace();
        *out.content += delta.text;
        if (out.logprobs)
          std::move(delta.logprobs.begin(), delta.logprobs.end(),
                    std::back_inserter(*out.logprobs));
        break;
      case DeltaKind::kToolStart:
        out.tool_calls.push_back({context().make_id("call_"), std::move(delta.text), {}});
        break;
      case DeltaKind::kToolArguments: out.tool_calls.back().arguments += delta.text; break;
    }
  }
  out.finish_reason = choices_[choice].finish_reason();
  out.stop = choices_[choice].stop();
  if (request_.return_token_ids) out.token_ids = choices_[choice].token_ids();
}

void ChatSession::write_opening(std::string& events) {
  for (std::int32_t i = 0; i < request_.sampling.n; ++i) writer_.role(events, i);
}

void ChatSession::write_events(std::string& events) {
  if (request_.stream.continuous_usage) writer_.set_running_usage(usage());
  for (std::size_t i = 0; i < choices_.size(); ++i)
    for (const auto& delta : choices_[i].take())
      write_delta(events, static_cast<std::int32_t>(i), delta);
}

void ChatSession::write_delta(std::string& events, std::int32_t index, const Delta& delta) {
  switch (delta.kind) {
    case DeltaKind::kReasoning: writer_.reasoning(events, index, delta.text); break;
    case DeltaKind::kContent:
      writer_.content(events, index, delta.text, request_.logprobs ? &delta.logprobs : nullptr);
      break;
    case DeltaKind::kToolStart:
      writer_.tool_start(events, index, delta.call, {context().make_id("call_"), delta.text, {}});
      break;
    case DeltaKind::kToolArguments:
      writer_.tool_arguments(events, index, delta.call, delta.text);
      break;
  }
}

void ChatSession::write_closing(std::string& events) {
  const auto measured = timings();
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    const auto& choice = choices_[i];
    const bool last = i + 1 == choices_.size() && !request_.stream.include_usage;
    writer_.finish(
        events, static_cast<std::int32_t>(i),
        {choice.finish_reason(), &choice.stop(),
         request_.return_token_ids ? &choice.token_ids() : nullptr, last ? &measured : nullptr});
  }
  if (request_.stream.include_usage) writer_.usage(events, usage(), measured);
}

std::string ChatSession::whole_answer() {
  return api::chat_response(identity_, whole_, usage(), timings());
}

std::int64_t ChatSession::reasoning_tokens(std::size_t choice) const {
  return choices_[choice].stats().analysis_tokens;
}

}  // namespace strata::serve
