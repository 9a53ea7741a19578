#include "engine/fault_model.h"

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "base/fault.h"
#include "base/queue.h"

namespace strata {
namespace {

void throw_fault(fault::Action action, const char* point) {
  if (action == fault::Action::kOom)
    throw MemoryError(std::string("injected allocation failure at ") + point);
  if (action == fault::Action::kError)
    throw DeviceError(std::string("injected device error at ") + point);
}

class FaultModel final : public Model {
 public:
  explicit FaultModel(std::unique_ptr<Model> inner)
      : inner_(std::move(inner)), thread_([this] { relay(); }) {}

  ~FaultModel() override {
    inner_.reset();  // its last on_done calls still find the queue
    done_.close();
    thread_.join();
  }

  ModelInfo info() const override { return inner_->info(); }

  Ticket submit(StepPlan plan, std::function<void()> on_done) override {
    throw_fault(fault::at("model.submit"), "model.submit");
    const StepId id = plan.id;
    {
      const std::lock_guard lock(mutex_);
      steps_[id] = Step{};
    }
    // The inner model may be done before it returns its ticket.
    const Ticket inner = inner_->submit(std::move(plan), [this, id, wake = std::move(on_done)] {
      done_.push({id, wake});
    });
    const std::lock_guard lock(mutex_);
    steps_[id].inner = inner;
    return Ticket{id};
  }

  void release_tail(Ticket ticket, std::span<const std::uint32_t> masks) override {
    inner_->release_tail(step_of(ticket).inner, masks);
  }

  bool poll(Ticket ticket) override { return step_of(ticket).done; }

  StepResult wait(Ticket ticket) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return steps_[ticket.id].done; });
    const Step step = steps_[ticket.id];
    steps_.erase(ticket.id);
    lock.unlock();
    throw_fault(step.fault, "model.wait");
    return inner_->wait(step.inner);
  }

 private:
  struct Step {
    Ticket inner;
    bool done = false;
    fault::Action fault = fault::Action::kNone;
  };
  struct Done {
    StepId id = 0;
    std::function<void()> wake;
  };

  Step step_of(Ticket ticket) {
    const std::lock_guard lock(mutex_);
    return steps_[ticket.id];
  }

  void relay() {
    while (std::optional<Done> item = done_.pop()) {
      const fault::Action action = fault::at("model.wait");
      {
        const std::lock_guard lock(mutex_);
        Step& step = steps_[item->id];
        step.done = true;
        step.fault = action;
      }
      changed_.notify_all();
      item->wake();
    }
  }

  std::unique_ptr<Model> inner_;
  BlockingQueue<Done> done_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<StepId, Step> steps_;  // GUARDED_BY(mutex_); by plan, which is our ticket
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Model> make_fault_model(std::unique_ptr<Model> inner) {
  return std::make_unique<FaultModel>(std::move(inner));
}

}  // namespace strata
