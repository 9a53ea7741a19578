#include "model/transformer_model.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/queue.h"
#include "model/checkpoint_loader.h"
#include "model/forward.h"

namespace strata {

// A step from submit() to wait(). Guarded by Impl::mutex except `plan` and `on_done`, which the
// compute thread owns once the job is queued.
struct Step {
  StepPlan plan;
  std::function<void()> on_done;
  bool done = false;
  std::optional<StepResult> result;
  std::exception_ptr failure;
  std::optional<std::vector<std::uint32_t>> masks;  // set by release_tail
};

class TransformerModel::Impl {
 public:
  Impl(const weights::Checkpoint& checkpoint, const MemoryPlan& plan,
       std::unique_ptr<kernels::Backend> backend, std::unique_ptr<ThreadPool> pool)
      : config_(checkpoint.config()),
        plan_(plan),
        pool_(std::move(pool)),
        backend_(std::move(backend)),
        experts_(config_, pool_.get()) {
    weights_ = load_checkpoint(checkpoint, *backend_, experts_);
    backend_->prepare(plan.backend);
    experts_.publish(*backend_);
    warm_up();
    compute_ = std::thread([this] { compute_loop(); });
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    jobs_.close();
    compute_.join();
  }

  ModelInfo info() const {
    ModelInfo info;
    info.name = config_.name;
    info.vocab = config_.vocab;
    info.max_context = plan_.max_model_len;
    info.window = config_.window;
    info.page_tokens = plan_.backend.page_tokens;
    info.num_pages = plan_.backend.num_pages;
    info.num_swap_pages = plan_.backend.num_swap_pages;
    info.has_group[kFullGroup] = false;
    info.has_group[kWindowGroup] = false;
    for (const bool windowed : config_.windowed)
      info.has_group[windowed ? kWindowGroup : kFullGroup] = true;
    info.max_slots = plan_.backend.max_slots;
    info.max_rows = plan_.backend.max_rows;
    info.max_logits_rows = plan_.backend.max_logits_rows;
    info.kv_dtype = plan_.backend.kv_dtype;
    info.backend = backend_->name();
    return info;
  }

  Ticket submit(StepPlan plan, std::function<void()> on_done) {
    const Ticket ticket{plan.id};
    auto step = std::make_shared<Step>();
    step->plan = std::move(plan);
    step->on_done = std::move(on_done);
    {
      const std::lock_guard lock(mutex_);
      STRATA_CHECK(open_.size() < 2, "two tickets are open already");
      open_.emplace(ticket.id, step);
    }
    jobs_.push(std::move(step));
    return ticket;
  }

  void release_tail(Ticket ticket, std::span<const std::uint32_t> masks) {
    {
      const std::lock_guard lock(mutex_);
      find(ticket).masks.emplace(masks.begin(), masks.end());
    }
    changed_.notify_all();
  }

  bool poll(Ticket ticket) {
    const std::lock_guard lock(mutex_);
    return find(ticket).done;
  }

  StepResult wait(Ticket ticket) {
    std::unique_lock lock(mutex_);
    Step& step = find(ticket);
    changed_.wait(lock, [&step] { return step.done; });
    const auto finished = open_.extract(ticket.id).mapped();
    lock.unlock();
    if (finished->failure) std::rethrow_exception(finished->failure);
    return std::move(*finished->result);
  }

  kernels::Backend& backend() { return *backend_; }

 private:
  Step& find(Ticket ticket) {
    const auto found = open_.find(ticket.id);
    STRATA_CHECK(found != open_.end(), "ticket {} is not open", ticket.id);
    return *found->second;
  }

  // Behind a step that failed the backend's slots are not what later plans expect: they fail too.
  void compute_loop() {
    std::exception_ptr failure;
    while (auto step = jobs_.pop()) {
      std::optional<StepResult> result;
      try {
        if (!failure) result = run(**step);
      } catch (...) {
        failure = std::current_exception();
      }
      {
        const std::lock_guard lock(mutex_);
        (*step)->result = std::move(result);
        (*step)->failure = failure;
        (*step)->done = true;
      }
      changed_.notify_all();
      if ((*step)->on_done) (*step)->on_done();
    }
  }

  // Records the steps of decoding and of single prompts, without rows, before anybody waits for
  // them; what recordings take of memory is taken then. A backend records what it sees twice.
  void warm_up() {
    const kernels::BackendOptions& options = plan_.backend;
    if (!options.record_graphs) return;
    const auto twice = [this](const StepShape& shape) {
      for (int i = 0; i < 2; ++i) {
        StepPlan plan;
        plan.shape = shape;
        plan.kv = plan_.backend.kv_dtype;
        backend_->begin_step(plan);
        const ForwardContext context{config_, weights_, *backend_, comm_};
        forward_body(context, shape);
        forward_tail(context, shape);
        backend_->end_step();
      }
    };
    const auto each_bucket = [](std::int32_t most, auto&& fn) {
      for (std::int32_t n = 1; n < most; n *= 2) fn(n);
      fn(most);
    };
    each_bucket(options.max_slots, [&](std::int32_t seqs) {
      twice({.rows = shape_bucket(seqs, options.max_rows),
             .seqs = seqs,
             .logits_rows = shape_bucket(seqs, options.max_logits_rows)});
    });
    each_bucket(options.max_rows, [&](std::int32_t rows) {
      if (rows > 1) twice({.rows = rows, .seqs = 1, .logits_rows = 1});
    });
    twice({.rows = options.max_rows, .seqs = 1, .logits_rows = 0});  // chunks of a long prompt
    backend_->ready();
    backend_->take_stats();
  }

  StepResult run(Step& step) {
    const fault::Action fault = fault::at("model.step");
    if (fault == fault::Action::kOom)
      throw MemoryError("injected allocation failure at model.step");
    if (fault != fault::Action::kNone) throw DeviceError("injected step failure");
    const ForwardContext context{config_, weights_, *backend_, comm_};
    const Nanos begin = clock_.now();
    backend_->begin_step(step.plan);
    const Nanos begun = clock_.now();
    forward_body(context, step.plan.shape);
    const Nanos body = clock_.now();
    if (step.plan.late_masks) wait_for_masks(step);
    const Nanos tail = clock_.now();
    forward_tail(context, step.plan.shape);
    StepResult result = backend_->end_step();
    result.id = step.plan.id;
    result.timings.begin_ns = begun - begin;
    result.timings.compute_ns = body - begun;
    result.timings.wait_ns = tail - body;
    result.timings.sample_ns = clock_.now() - tail;
    return result;
  }

  void wait_for_masks(Step& step) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return step.masks.has_value() || stopping_; });
    if (!step.masks) throw DeviceError("the model was shut down before its masks came");
    backend_->set_masks(*step.masks);
  }

  const ModelConfig config_;
  const MemoryPlan plan_;
  const std::unique_ptr<ThreadPool> pool_;  // outlives the backend, which computes on it
  const std::unique_ptr<kernels::Backend> backend_;
  ExpertStore experts_;
  kernels::ModelWeights weights_;
  SingleRank comm_;
  Clock clock_;

  std::mutex mutex_;
  std::condition_variable changed_;               // done, masks or stopping_ changed
  std::map<StepId, std::shared_ptr<Step>> open_;  // GUARDED_BY(mutex_)
  bool stopping_ = false;                         // GUARDED_BY(mutex_)
  BlockingQueue<std::shared_ptr<Step>> jobs_;
  std::thread compute_;
};

TransformerModel::TransformerModel(const weights::Checkpoint& checkpoint, const MemoryPlan& plan,
                                   std::unique_ptr<kernels::Backend> backend,
                                   std::unique_ptr<ThreadPool> pool)
    : impl_(std::make_unique<Impl>(checkpoint, plan, std::move(backend), std::move(pool))) {}
TransformerModel::~TransformerModel() = default;

ModelInfo TransformerModel::info() const { return impl_->info(); }
Ticket TransformerModel::submit(StepPlan plan, std::function<void()> on_done) {
  return impl_->submit(std::move(plan), std::move(on_done));
}
void TransformerModel::release_tail(Ticket ticket, std::span<const std::uint32_t> masks) {
  impl_->release_tail(ticket, masks);
}
bool TransformerModel::poll(Ticket ticket) { return impl_->poll(ticket); }
StepResult TransformerModel::wait(Ticket ticket) { return impl_->wait(ticket); }
std::vector<kernels::StageStats> TransformerModel::take_stats() {
  return impl_->backend().take_stats();
}
kernels::Backend& TransformerModel::backend() { return impl_->backend(); }

}  // namespace strata
