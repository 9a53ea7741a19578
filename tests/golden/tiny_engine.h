// The embedded model behind an engine, for tests of whole texts.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "kernels/cpu/cpu_backend.h"
#include "model/transformer_model.h"
#include "tokenizer/tokenizer.h"

namespace strata::test {

inline const std::string kTinyModel = std::string(STRATA_SOURCE_DIR) + "/models/strata-tiny";

struct TinySetting {
  int threads = 2;
  std::int32_t seqs = 8;
  std::int32_t rows = 128;
  std::int32_t num_pages = 0;  // 0: as many as the plan says
  std::int32_t num_swap_pages = 0;
  bool prefix_caching = true;
  Preemption preemption = Preemption::kCheaper;
  int step_deadline_ms = -1;
};

// What loading needs and no model owns.
class TinyModel {
 public:
  explicit TinyModel(const TinySetting& setting)
      : setting_(setting),
        checkpoint_(weights::open_checkpoint(kTinyModel)),
        tokenizer_(tokenizer::Tokenizer::load(kTinyModel + "/tokenizer.json")) {
    PlanRequest request;
    request.config = checkpoint_->config();
    request.max_model_len = 1024;
    request.max_num_seqs = setting.seqs;
    request.max_num_batched_tokens = setting.rows;
    request.available_bytes = std::int64_t{4} << 30;
    plan_ = make_memory_plan(request).value();
    if (setting.num_pages > 0) plan_.backend.num_pages = setting.num_pages;
    plan_.backend.num_swap_pages = setting.num_swap_pages;
  }

  const tokenizer::Tokenizer& tokenizer() const { return *tokenizer_; }

  std::unique_ptr<Model> load() const {
    kernels::BackendContext context;
    context.config = checkpoint_->config();
    context.never_emit = tokenizer_->never_emit(context.config.vocab);
    auto pool = std::make_unique<ThreadPool>(setting_.threads);
    auto backend = kernels::make_cpu_backend(std::move(context), kernels::detect_isa(), *pool);
    return std::make_unique<TransformerModel>(*checkpoint_, plan_, std::move(backend),
                                              std::move(pool));
  }

  EngineOptions engine_options() const {
    EngineOptions options;
    options.max_num_seqs = setting_.seqs;
    options.max_num_batched_tokens = setting_.rows;
    options.prefix_caching = setting_.prefix_caching;
    options.preemption = setting_.preemption;
    options.step_deadline_ms = setting_.step_deadline_ms;
    return options;
  }

  // A conversation's beginning that all share, a question of its own, and a seed.
  EngineRequest request(int number, std::int32_t max_new_tokens) const {
    const std::string shared =
        "The lighthouse keeper wrote every evening into a large book: the weather, the ships that "
        "had passed, what he had eaten, and whether the lamp had burnt well. ";
    EngineRequest request;
    request.request_id = "request-" + std::to_string(number);
    request.prompt = tokenizer_->encode(shared + "Number " + std::to_string(number) +
                                        std::string(static_cast<std::size_t>(number) * 7, '.'));
    request.max_new_tokens = max_new_tokens;
    request.sampling.seed = static_cast<std::uint64_t>(number) * 1000 + 7;
    request.sampling.temperature = number % 3 == 0 ? 0.0F : 1.0F;
    request.sampling.presence_penalty = number % 4 == 1 ? 0.5F : 0.0F;
    request.sampling.ignore_eos = true;
    return request;
  }

 private:
  const TinySetting setting_;
  const std::unique_ptr<const weights::Checkpoint> checkpoint_;
  const std::unique_ptr<const tokenizer::Tokenizer> tokenizer_;
  MemoryPlan plan_;
};

// The end of one request and what came before it.
struct Answer {
  std::vector<TokenId> tokens;
  std::optional<SequenceEnd> end;
};

// Submits all at once and waits for every end; a refused request has an end with its error.
inline std::vector<Answer> answers(Engine& engine, std::vector<EngineRequest> requests) {
  std::vector<Answer> out(requests.size());
  std::vector<std::shared_ptr<TokenStream>> streams;
  struct Wait {
    std::mutex mutex;
    std::condition_variable changed;
  };
  const auto wait = std::make_shared<Wait>();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    streams.push_back(std::make_shared<TokenStream>());
    streams.back()->set_notify([wait] {
      const std::lock_guard lock(wait->mutex);
      wait->changed.notify_one();
    });
    const auto id = engine.submit(std::move(requests[i]), streams.back());
    if (id) continue;
    out[i].end = SequenceEnd{};
    out[i].end->reason = FinishReason::kError;
    out[i].end->error = id.error();
  }
  std::unique_lock lock(wait->mutex);
  for (std::size_t done = 0; done < out.size();) {
    wait->changed.wait_for(lock, std::chrono::milliseconds(20));
    done = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      TokenStream::Batch batch = streams[i]->take();
      for (const TokenOutput& output : batch.tokens) out[i].tokens.push_back(output.token);
      if (batch.end) out[i].end = std::move(batch.end);
      done += out[i].end ? 1 : 0;
    }
  }
  return out;
}

}  // namespace strata::test
