#include "kernels/cuda/step_graphs.h"

#include <algorithm>

namespace strata::kernels::cuda {
namespace {

constexpr std::size_t kMostShapes = 256;  // later ones stay eager

}  // namespace

StepGraphs::~StepGraphs() {
  for (const Entry& entry : entries_)
    if (entry.graph != nullptr) cudaGraphExecDestroy(entry.graph);
}

void StepGraphs::begin(const StepShape& shape) {
  mode_ = Mode::kEager;
  current_ = nullptr;
  if (!enabled_) return;
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.shape == shape; });
  if (found == entries_.end()) {
    if (!closed_ && entries_.size() < kMostShapes) entries_.push_back({shape, nullptr});
    return;
  }
  if (closed_ && found->graph == nullptr) return;
  current_ = &*found;
  mode_ = current_->graph == nullptr ? Mode::kRecord : Mode::kReplay;
  if (mode_ == Mode::kRecord)
    check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal),
          "recording a step");
}

void StepGraphs::end() {
  const Mode mode = std::exchange(mode_, Mode::kEager);
  if (mode == Mode::kEager) return;
  if (mode == Mode::kRecord) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(stream_.get(), &graph), "recording a step");
    const cudaError_t status = cudaGraphInstantiate(&current_->graph, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "recording a step");
  }
  check(cudaGraphLaunch(current_->graph, stream_.get()), "a recorded step");
}

}  // namespace strata::kernels::cuda
