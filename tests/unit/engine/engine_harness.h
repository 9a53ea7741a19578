// EngineTest: clients of an engine with its thread, over a scripted model.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/fault.h"
#include "base/log.h"
#include "engine/engine.h"
#include "engine/scripted_model.h"

namespace strata::test {

inline constexpr TokenId kEnd = 99;

// A client: takes what its stream holds whenever it is notified, and waits for the end.
class Client {
 public:
  explicit Client(std::size_t capacity = 4096)
      : stream_(std::make_shared<TokenStream>(capacity)), got_(std::make_shared<Got>()) {
    // The engine holds the stream while it notifies; the client may be gone by then.
    stream_->set_notify([got = got_, stream = stream_.get()] {
      const std::lock_guard lock(got->mutex);
      if (got->reads) got->take(*stream);
      got->changed.notify_all();
    });
  }

  std::shared_ptr<TokenStream> stream() const { return stream_; }
  void stop_reading() {
    const std::lock_guard lock(got_->mutex);
    got_->reads = false;
  }
  SequenceEnd wait_end() {
    std::unique_lock lock(got_->mutex);
    got_->changed.wait(lock, [this] {
      got_->take(*stream_);
      return got_->end.has_value();
    });
    return *got_->end;
  }
  void wait_tokens(std::size_t count) {
    std::unique_lock lock(got_->mutex);
    got_->changed.wait(lock, [&] { return got_->tokens.size() >= count || got_->end.has_value(); });
  }
  std::vector<TokenId> tokens() {
    const std::lock_guard lock(got_->mutex);
    return got_->tokens;
  }
  int ends() {
    const std::lock_guard lock(got_->mutex);
    got_->take(*stream_);
    return got_->ends;
  }

 private:
  struct Got {
    std::mutex mutex;
    std::condition_variable changed;
    bool reads = true;
    std::vector<TokenId> tokens;
    std::optional<SequenceEnd> end;
    int ends = 0;

    void take(TokenStream& stream) {  // REQUIRES mutex
      TokenStream::Batch batch = stream.take();
      for (const TokenOutput& output : batch.tokens) tokens.push_back(output.token);
      if (!batch.end) return;
      ++ends;
      end = std::move(batch.end);
    }
  };

  std::shared_ptr<TokenStream> stream_;
  std::shared_ptr<Got> got_;
};

inline ModelInfo info() {
  ModelInfo out;
  out.name = "scripted";
  out.vocab = 100;
  out.max_context = 512;
  out.window = 16;
  out.page_tokens = 8;
  out.num_pages = 400;
  out.max_slots = 8;
  out.max_rows = 64;
  out.max_logits_rows = 16;
  return out;
}

inline std::vector<TokenId> line(TokenId token, int count) {
  return std::vector<TokenId>(static_cast<std::size_t>(count), token);
}

inline std::unique_ptr<Model> scripted(int answer_tokens, int delay_us = 0) {
  ScriptedOptions options;
  options.scripts = {line(5, answer_tokens)};
  options.end_token = kEnd;
  options.info = info();
  options.step_delay_us = delay_us;
  return make_scripted_model(std::move(options));
}

inline EngineOptions options() {
  EngineOptions out;
  out.max_num_seqs = 8;
  out.max_num_batched_tokens = 64;
  return out;
}

inline EngineRequest request(int prompt_len = 5, int max_new_tokens = 400) {
  EngineRequest out;
  out.request_id = "test";
  out.prompt = line(1, prompt_len);
  out.max_new_tokens = max_new_tokens;
  out.sampling.stop_ids = {kEnd};
  return out;
}

class EngineTest : public testing::Test {
 protected:
  void SetUp() override { set_log_level(LogLevel::kError); }
  void TearDown() override { fault::disarm(); }
};

inline Error refusal(Engine& engine, EngineRequest wrong) {
  Client client;
  const auto result = engine.submit(std::move(wrong), client.stream());
  if (result) {
    ADD_FAILURE() << "it was accepted";
    return {};
  }
  return result.error();
}

inline void wait_health(const Engine& engine, Health health) {
  while (engine.info()->health != health) std::this_thread::yield();
}

// A snapshot follows the ends it tells of.
inline void wait_idle(const Engine& engine) {
  while (engine.info()->free_pages != engine.info()->total_pages) std::this_thread::yield();
}

}  // namespace strata::test
