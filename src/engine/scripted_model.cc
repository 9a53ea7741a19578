#include "engine/scripted_model.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/queue.h"
#include "base/result.h"

namespace strata {
namespace {

// Lines of sequences that may still come back after a preemption.
constexpr std::size_t kMaxRememberedLines = 65536;

class ScriptedModel final : public Model {
 public:
  explicit ScriptedModel(ScriptedOptions options)
      : options_(std::move(options)), slots_(static_cast<std::size_t>(options_.info.max_slots)) {
    if (options_.step_delay_us > 0) thread_ = std::thread([this] { pace(); });
  }

  ~ScriptedModel() override {
    submitted_.close();
    if (thread_.joinable()) thread_.join();
  }

  ModelInfo info() const override { return options_.info; }

  // Results are made at once; a paced step is only announced later.
  Ticket submit(StepPlan plan, std::function<void()> on_done) override {
    const Ticket ticket{plan.id};
    StepResult result = run(plan);
    const bool paced = thread_.joinable();
    {
      const std::lock_guard lock(mutex_);
      open_.push_back({std::move(result), !paced});
    }
    if (paced) submitted_.push({ticket.id, std::move(on_done)});
    else if (on_done) on_done();
    return ticket;
  }

  void release_tail(Ticket, std::span<const std::uint32_t>) override {}  // the script decides

  bool poll(Ticket ticket) override {
    const std::lock_guard lock(mutex_);
    return find(ticket.id).done;
  }

  StepResult wait(Ticket ticket) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return find(ticket.id).done; });
    StepResult result = std::move(find(ticket.id).result);
    std::erase_if(open_, [&](const Open& open) { return open.result.id == ticket.id; });
    return result;
  }

 private:
  struct Slot {
    SeqId seq = 0;
    std::size_t line = 0;
    std::int32_t generated = 0;
    std::int32_t max_new_tokens = 0;
    std::vector<TokenId> stop_ids;
    bool finished = true;
  };
  struct Open {
    StepResult result;
    bool done = false;
  };
  struct Paced {
    StepId id = 0;
    std::function<void()> on_done;
  };

  Open& find(StepId id) {
    const auto found = std::find_if(open_.begin(), open_.end(),
                                    [id](const Open& open) { return open.result.id == id; });
    STRATA_CHECK(found != open_.end(), "step {} is not open", id);
    return *found;
  }

  void pace() {
    while (std::optional<Paced> step = submitted_.pop()) {
      std::this_thread::sleep_for(std::chrono::microseconds(options_.step_delay_us));
      {
        const std::lock_guard lock(mutex_);
        find(step->id).done = true;
      }
      changed_.notify_all();
      if (step->on_done) step->on_done();
    }
  }

  std::size_t line_of(SeqId seq) {
    const auto [found, is_new] = lines_.try_emplace(seq, next_line_);
    if (is_new) next_line_ = (next_line_ + 1) % options_.scripts.size();
    const std::size_t line = found->second;
    if (lines_.size() > kMaxRememberedLines) lines_.erase(lines_.begin());
    return line;
  }

  void apply(const SlotUpdate& update) {
    Slot& slot = slots_[static_cast<std::size_t>(update.slot)];
    if (update.op == SlotOp::kRelease) {
      slot = Slot{};
    } else {
      if (update.op == SlotOp::kAdmit)
        slot =
            Slot{update.seq, line_of(update.seq), update.num_generated, update.max_new_tokens, {},
                 false};
      slot.stop_ids = update.sampling.stop_ids;
    }
  }

  StepResult run(const StepPlan& plan) {
    for (const SlotUpdate& update : plan.slots) apply(update);
    StepResult result;
    result.id = plan.id;
    SlotId ended = kNoSlot;  // its verify rows behind a mismatch yield nothing
    for (const LogitsRow& logits : plan.logits) {
      const SlotId slot = plan.rows[static_cast<std::size_t>(logits.row)].slot;
      if (logits.kind == LogitsKind::kVerify && slot == ended) continue;
      result.rows.push_back(sample(slots_[static_cast<std::size_t>(slot)], slot, logits));
      const RowResult& row = result.rows.back();
      if (row.skipped || row.finish != SlotFinish::kNone || row.token != logits.asked) ended = slot;
    }
    return result;
  }

  TokenId scripted_token(const Slot& slot) const {
    const std::vector<TokenId>& script = options_.scripts[slot.line];
    const auto next = static_cast<std::size_t>(slot.generated);
    return next < script.size() ? script[next] : options_.end_token;
  }

  RowResult sample(Slot& slot, SlotId id, const LogitsRow& logits) {
    RowResult row;
    row.row = logits.row;
    row.slot = id;
    row.skipped = slot.finished;
    if (row.skipped) return row;
    const bool prompt = logits.kind == LogitsKind::kPromptLogprob;
    row.token = prompt ? logits.asked : scripted_token(slot);
    report(row, logits);
    if (prompt) return row;
    ++slot.generated;
    const bool stops =
        std::find(slot.stop_ids.begin(), slot.stop_ids.end(), row.token) != slot.stop_ids.end();
    if (stops) row.finish = SlotFinish::kStopId;
    else if (slot.generated >= slot.max_new_tokens) row.finish = SlotFinish::kLength;
    slot.finished = row.finish != SlotFinish::kNone;
    if (slot.finished) lines_.erase(slot.seq);
    return row;
  }

  // The scripted token is certain; the next ids follow as if ever less likely.
  void report(RowResult& row, const LogitsRow& logits) const {
    row.has_logprob = logits.top_n >= 0 || logits.kind == LogitsKind::kPromptLogprob;
    if (!row.has_logprob) return;
    row.rank = 1;
    const std::int32_t count = std::min(logits.top_n, options_.info.vocab);
    for (std::int32_t i = 0; i < count; ++i)
      row.top.push_back({(row.token + i) % options_.info.vocab, static_cast<float>(-i)});
  }

  const ScriptedOptions options_;
  std::vector<Slot> slots_;
  std::map<SeqId, std::size_t> lines_;  // unfinished sequences
  std::size_t next_line_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Open> open_;  // GUARDED_BY(mutex_)
  BlockingQueue<Paced> submitted_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Model> make_scripted_model(ScriptedOptions options) {
  const auto in_vocab = [&](TokenId token) { return token >= 0 && token < options.info.vocab; };
  if (options.scripts.empty()) throw StartupError("the script file has no lines");
  if (!in_vocab(options.end_token))
    throw StartupError("the end token of the script is not in the vocabulary");
  for (std::size_t line = 0; line < options.scripts.size(); ++line) {
    if (!std::all_of(options.scripts[line].begin(), options.scripts[line].end(), in_vocab))
      throw StartupError("script line " + std::to_string(line + 1) +
                         " has a token that is not in the vocabulary");
  }
  return std::make_unique<ScriptedModel>(std::move(options));
}

}  // namespace strata
