// What a step costs the engine thread: `bench_host_time [STEPS]` decodes 1, 8, 64 and 256 sequences
// with a model that computes nothing, on a thread of its own, and prints microseconds a step spent
// on scheduling and on everything else. Prompts are 1024 tokens, no grammar, readers far behind.
#include <fmt/core.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/queue.h"
#include "engine/engine.h"

namespace strata {
namespace {

constexpr std::int32_t kPrompt = 1024;

ModelInfo model_info(std::int32_t seqs, std::int32_t steps) {
  ModelInfo info;
  info.name = "null";
  info.vocab = 1000;
  info.max_context = kPrompt + steps + 16;
  info.window = 128;
  info.num_pages = seqs * (info.max_context / info.page_tokens + 16) + 1;
  info.max_slots = seqs;
  info.max_rows = 2048;
  info.max_logits_rows = 2048;
  info.backend = "none";
  return info;
}

// Draws token 1 for every row. Its thread stands for the device.
class NullModel final : public Model {
 public:
  explicit NullModel(const ModelInfo& info) : info_(info), thread_([this] { run(); }) {}
  ~NullModel() override {
    jobs_.close();
    thread_.join();
  }
  ModelInfo info() const override { return info_; }
  Ticket submit(StepPlan plan, std::function<void()> on_done) override {
    const StepId id = plan.id;
    jobs_.push({std::move(plan), std::move(on_done)});
    return Ticket{id};
  }
  void release_tail(Ticket, std::span<const std::uint32_t>) override {}
  bool poll(Ticket ticket) override { return done_ >= ticket.id; }
  StepResult wait(Ticket ticket) override {
    const std::lock_guard lock(mutex_);
    return std::move(results_.extract(ticket.id).mapped());
  }

 private:
  struct Job {
    StepPlan plan;
    std::function<void()> on_done;
  };

  void run() {
    while (std::optional<Job> job = jobs_.pop()) {
      StepResult result;
      result.id = job->plan.id;
      for (const LogitsRow& logits : job->plan.logits) {
        RowResult row;
        row.row = logits.row;
        row.slot = job->plan.rows[static_cast<std::size_t>(logits.row)].slot;
        row.token = 1;
        result.rows.push_back(std::move(row));
      }
      {
        const std::lock_guard lock(mutex_);
        results_.emplace(result.id, std::move(result));
      }
      done_ = job->plan.id;
      job->on_done();
    }
  }

  const ModelInfo info_;
  BlockingQueue<Job> jobs_;
  std::atomic<StepId> done_{0};
  std::mutex mutex_;
  std::map<StepId, StepResult> results_;  // GUARDED_BY(mutex_)
  std::thread thread_;
};

void wait_steps(const Engine& engine, std::uint64_t steps) {
  while (engine.info()->step_times.steps < steps)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

void measure(std::int32_t seqs, std::int32_t steps) {
  EngineOptions options;
  options.max_num_seqs = seqs;
  options.max_num_batched_tokens = 2048;
  options.max_queued_tokens = std::int64_t{1} << 30;
  Engine engine(std::make_unique<NullModel>(model_info(seqs, 2 * steps)), options);
  const auto capacity = static_cast<std::size_t>(2 * steps + 16);
  for (std::int32_t i = 0; i < seqs; ++i) {
    EngineRequest request;
    request.prompt.assign(kPrompt, static_cast<TokenId>(i % 1000));
    request.max_new_tokens = 2 * steps;
    if (!engine.submit(std::move(request), std::make_shared<TokenStream>(capacity))) std::abort();
  }
  // Prompts and the first answers warm everything up.
  const auto warm = static_cast<std::uint64_t>(seqs) + 50;
  wait_steps(engine, warm);
  const StepTimes before = engine.info()->step_times;
  wait_steps(engine, before.steps + static_cast<std::uint64_t>(steps));
  const StepTimes after = engine.info()->step_times;
  const auto us = [&](Nanos begin, Nanos end) {
    return static_cast<double>(end - begin) * 1e-3 /
           static_cast<double>(after.steps - before.steps);
  };
  fmt::print("batch {:>3}: {:>6.1f} us a step on the engine thread, schedule {:.1f}, rest {:.1f}\n",
             seqs, us(before.schedule, after.schedule) + us(before.host, after.host),
             us(before.schedule, after.schedule), us(before.host, after.host));
}

}  // namespace
}  // namespace strata

int main(int argc, char** argv) {
  strata::set_log_level(strata::LogLevel::kError);
  const int steps = argc > 1 ? std::atoi(argv[1]) : 2000;
  for (const std::int32_t seqs : {1, 8, 64, 256}) strata::measure(seqs, steps);
}
