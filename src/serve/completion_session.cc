#include "serve/completion_session.h"

#include <utility>

#include "api/completion_response.h"
#include "serve/prompt.h"

namespace strata::serve {
namespace {

api::AnswerIdentity make_identity(const Context& context, const std::string& model) {
  return {context.make_id("cmpl-"), context.shown_model(model), unix_time(), context.fingerprint};
}

std::vector<TokenId> prompt_ids(const api::PromptField& prompt, const Context& context) {
  if (const auto* text = std::get_if<std::string>(&prompt)) return context.tokenizer.encode(*text);
  return std::get<std::vector<TokenId>>(prompt);
}

// An id prompt's text as a client may print it.
std::string prompt_text(const api::PromptField& prompt, const Context& context) {
  if (const auto* text = std::get_if<std::string>(&prompt)) return *text;
  tokenizer::Utf8Stream utf8;
  std::string out;
  utf8.push(context.tokenizer.decode(std::get<std::vector<TokenId>>(prompt)), out);
  utf8.finish(out);
  return out;
}

TextChoiceOptions choice_options(const api::CompletionRequest& request) {
  TextChoiceOptions out;
  out.logprobs = request.logprobs.has_value();
  out.skip_special_tokens = request.skip_special_tokens;
  out.stop = request.sampling.stop;
  out.include_stop_text = request.sampling.include_stop_text;
  out.stop_token_ids = request.sampling.stop_token_ids;
  return out;
}

}  // namespace

void CompletionSession::serve(const std::shared_ptr<Call>& call) {
  auto& context = call->context();
  auto request = api::parse_completion_request(call->request().body, context.limits());
  if (!request) return call->fail(request.error());

  if (const auto ready = prepare_stream(*call, request->stream); !ready)
    return call->fail(ready.error());

  Prompts prompts;
  Submission submission;
  const auto n = static_cast<std::size_t>(request->sampling.n);
  const auto sampling = make_sampling(request->sampling, context, request->logprobs.value_or(-1));
  for (const auto& prompt : request->prompts) {
    prompts.push_back(prompt_ids(prompt, context));
    const auto length =
        answer_length(prompts.back().size(), request->max_tokens, context, "prompt");
    if (!length) return call->fail(length.error());
    submission.limited_by_context |= *length < request->max_tokens;
    EngineRequest base;
    base.prompt = prompts.back();
    base.sampling = sampling;
    base.max_new_tokens = *length;
    base.prompt_logprobs = request->echo && request->logprobs.has_value();
    base.prompt_top_logprobs = request->logprobs.value_or(0);
    base.priority = request->sampling.priority;
    base.cache_salt = request->sampling.cache_salt;
    for (std::size_t i = 0; i < n; ++i) {
      submission.requests.push_back(base);
      submission.requests.back().sampling.seed += i;
    }
  }
  submission.choices_per_prompt = n;
  auto identity = make_identity(context, request->model);
  std::shared_ptr<CompletionSession> session(
      new CompletionSession(call, std::move(*request), std::move(identity), prompts));
  session->start(std::move(submission));
}

CompletionSession::CompletionSession(std::shared_ptr<Call> call, api::CompletionRequest request,
                                     api::AnswerIdentity identity, const Prompts& prompts)
    : Session(std::move(call), identity.id, request.stream),
      request_(std::move(request)),
      identity_(std::move(identity)) {
  const auto n = static_cast<std::size_t>(request_.sampling.n);
  choices_.reserve(prompts.size() * n);
  for (std::size_t i = 0; i < prompts.size() * n; ++i) {
    auto& choice = choices_.emplace_back(context().tokenizer, choice_options(request_));
    if (request_.echo)
      choice.echo(prompt_text(request_.prompts[i / n], context()), prompts[i / n].front());
    auto& out = whole_.emplace_back();
    out.index = static_cast<std::int32_t>(i);
    if (request_.logprobs) out.logprobs.emplace();
    if (request_.return_token_ids) out.prompt_token_ids = prompts[i / n];
  }
}

Verdict CompletionSession::on_token(std::size_t choice, const TokenOutput& output) {
  return choices_[choice].push(output) ? Verdict::kEnded : Verdict::kMore;
}

void CompletionSession::on_prompt_logprobs(std::size_t choice,
                                           std::vector<PromptLogprob> logprobs) {
  choices_[choice].add_prompt_logprobs(logprobs);
}

void CompletionSession::on_end(std::size_t choice, const SequenceEnd& ended) {
  choices_[choice].end(ended);
  if (!request_.stream.stream) fold(choice);
}

void CompletionSession::fold(std::size_t choice) {
  auto& out = whole_[choice];
  auto piece = choices_[choice].take();
  out.text = std::move(piece.text);
  if (out.logprobs) out.logprobs = std::move(piece.tokens);
  out.finish_reason = choices_[choice].finish_reason();
  out.stop = choices_[choice].stop();
  if (request_.return_token_ids) out.token_ids = choices_[choice].token_ids();
}

void CompletionSession::write_opening(std::string& /*events*/) {}

void CompletionSession::write_chunk(std::string& events, const api::CompletionChoice& chunk) {
  const auto so_far = usage();
  api::completion_chunk(events, identity_, chunk, request_.stream.include_usage,
                        request_.stream.continuous_usage ? &so_far : nullptr);
}

void CompletionSession::write_events(std::string& events) {
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    auto piece = choices_[i].take();
    if (piece.empty()) continue;
    api::CompletionChoice chunk;
    chunk.index = static_cast<std::int32_t>(i);
    chunk.text = std::move(piece.text);
    if (request_.logprobs) chunk.logprobs = std::move(piece.tokens);
    write_chunk(events, chunk);
  }
}

void CompletionSession::write_closing(std::string& events) {
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    api::CompletionChoice chunk;
    chunk.index = static_cast<std::int32_t>(i);
    chunk.finish_reason = choices_[i].finish_reason();
    chunk.stop = choices_[i].stop();
    if (request_.return_token_ids) {
      chunk.token_ids = choices_[i].token_ids();
      chunk.prompt_token_ids = whole_[i].prompt_token_ids;
    }
    write_chunk(events, chunk);
  }
  if (request_.stream.include_usage)
    api::completion_usage_chunk(events, identity_, usage(), timings());
}

std::string CompletionSession::whole_answer() {
  return api::completion_response(identity_, whole_, usage(), timings());
}

}  // namespace strata::serve
