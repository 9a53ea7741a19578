// The unit cost of an expert tier in RAM: one expert's MXFP4 slab of gpt-oss-20b, computed in place
// for 1, 2, 4 and 8 rows, as the `experts` stage of the CPU backend does it.
//
//   bench_expert_slab [THREADS] [scalar|avx2|avxvnni|avx512|avx512vnni] [int16|int8]
//
// One layer of 64 experts (850 MB, more than the caches hold); each step sends all its rows to the
// next expert by the router's bias. Prints milliseconds a slab, GB/s, and the share of what the
// same threads read.
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/thread_pool.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/probe.h"
#include "tests/support/memory_checkpoint.h"
#include "tests/support/plan_builder.h"

namespace strata::test {
namespace {

constexpr std::int32_t kExperts = 64;
constexpr std::int32_t kMaxRows = 8;
constexpr int kPasses = 3;

ModelConfig one_layer() {
  ModelConfig config = gpt_oss_20b();
  config.num_layers = 1;
  config.windowed = {true};
  config.num_experts = kExperts;
  config.experts_per_token = 1;
  config.vocab = 32;
  return config;
}

// A tensor of this program's own memory.
class Values final : public TensorSource {
 public:
  explicit Values(std::vector<float> values) : values_(std::move(values)) {}
  void read(std::size_t offset, std::span<std::byte> out) const override {
    std::copy_n(reinterpret_cast<const std::byte*>(values_.data()) + offset, out.size(),
                out.data());
  }

 private:
  std::vector<float> values_;
};

kernels::WeightHandle adopt(kernels::Backend& backend, std::vector<float> values,
                            std::vector<std::int64_t> shape, kernels::Role role) {
  const Values source(std::move(values));
  TensorView view;
  view.name = "bench";
  view.dtype = DType::kF32;
  view.shape = std::move(shape);
  view.source = &source;
  return backend.adopt(view, role, 0, kernels::Shard{});
}

class Bench {
 public:
  Bench(ThreadPool& pool, kernels::CpuIsa isa, bool int8_activations)
      : config_(one_layer()), builder_(config_, options()) {
    kernels::BackendContext context;
    context.config = config_;
    context.int8_activations = int8_activations;
    backend_ = kernels::make_cpu_backend(std::move(context), isa, pool);
    load();
    backend_->prepare(options());
    std::vector<float> x(static_cast<std::size_t>(kMaxRows * config_.hidden));
    for (std::size_t i = 0; i < x.size(); ++i)
      x[i] = static_cast<float>(uniform_double(random_at(1, i))) - 0.5F;
    std::copy(x.begin(), x.end(), static_cast<float*>(backend_->activations().x.data));
  }

  // Seconds of one slab.
  double slab_seconds(std::int32_t rows) {
    double best = 1e9;
    for (int pass = 0; pass < kPasses; ++pass) {
      backend_->take_stats();
      for (ExpertId expert = 0; expert < kExperts; ++expert) run(rows, expert);
      for (const kernels::StageStats& stage : backend_->take_stats())
        if (stage.name == "experts")
          best = std::min(best, static_cast<double>(stage.nanos) * 1e-9 / kExperts);
    }
    return best;
  }
  double slab_bytes() const { return static_cast<double>(layout_.bytes); }
  double read_bytes_per_second(ThreadPool& pool) {
    return kernels::measure_read(pool, {slabs_.data(), slabs_.size()});
  }

 private:
  static kernels::BackendOptions options() {
    kernels::BackendOptions options;
    options.max_rows = kMaxRows;
    options.num_pages = 8;
    options.max_pages_per_seq = 4;
    return options;
  }

  void load() {
    layout_ = kernels::make_slab_layout(config_.hidden, config_.intermediate, ExpertFormat::kMxfp4);
    slabs_ = HostBuffer("weights.experts", layout_.bytes * kExperts);
    auto words = slabs_.as<std::uint64_t>();
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = random_at(2, i);
    for (ExpertId expert = 0; expert < kExperts; ++expert) {
      std::byte* slab = slabs_.data() + static_cast<std::size_t>(expert) * layout_.bytes;
      // Weights of a magnitude that keeps SwiGLU within its limits.
      std::fill_n(slab + layout_.gate_up_scales, layout_.gate_up_scale_bytes(), std::byte{120});
      std::fill_n(slab + layout_.gate_up_bias, layout_.gate_up_bias_bytes(), std::byte{0});
      std::fill_n(slab + layout_.down_scales, layout_.down_scale_bytes(), std::byte{120});
      std::fill_n(slab + layout_.down_bias, layout_.down_bias_bytes(), std::byte{0});
      backend_->set_expert(0, expert, {slab});
    }
    const auto hidden = static_cast<std::size_t>(config_.hidden);
    weights_.mlp_norm = adopt(*backend_, std::vector<float>(hidden, 1.0F), {config_.hidden},
                              kernels::Role::kMlpNorm);
    weights_.router_weight = adopt(*backend_, std::vector<float>(hidden * kExperts, 0.0F),
                                   {kExperts, config_.hidden}, kernels::Role::kRouterWeight);
    for (ExpertId expert = 0; expert < kExperts; ++expert) {
      std::vector<float> bias(kExperts, 0.0F);
      bias[static_cast<std::size_t>(expert)] = 1.0F;
      chooses_.push_back(adopt(*backend_, std::move(bias), {kExperts}, kernels::Role::kRouterBias));
    }
  }

  void run(std::int32_t rows, ExpertId expert) {
    weights_.router_bias = chooses_[static_cast<std::size_t>(expert)];
    builder_.admit(0);
    builder_.prefill(0, std::vector<TokenId>(static_cast<std::size_t>(rows), 1), Want::kNothing);
    const StepPlan plan = builder_.take();
    const kernels::Activations& act = backend_->activations();
    backend_->begin_step(plan);
    backend_->route(plan.shape, 0, weights_, act.x, {});
    backend_->experts(plan.shape, 0, act.delta_moe);
    builder_.confirm(backend_->end_step());
    builder_.release(0);
  }

  const ModelConfig config_;
  kernels::SlabLayout layout_;
  HostBuffer slabs_;
  std::unique_ptr<kernels::Backend> backend_;
  kernels::LayerWeights weights_;
  std::vector<kernels::WeightHandle> chooses_;  // router biases, one an expert
  PlanBuilder builder_;
};

}  // namespace
}  // namespace strata::test

int main(int argc, char** argv) {
  using namespace strata;
  ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 2);
  const kernels::CpuIsa isa = argc > 2 ? kernels::parse_isa(argv[2]) : kernels::detect_isa();
  const bool int8 = argc > 3 && std::string(argv[3]) == "int8";
  test::Bench bench(pool, isa, int8);
  const double roof = bench.read_bytes_per_second(pool);
  fmt::print("{} threads, {}, {} activations: read roof {:.2f} GB/s\n", pool.num_threads(),
             kernels::isa_name(isa), int8 ? "int8" : "int16", roof * 1e-9);
  for (const std::int32_t rows : {1, 2, 4, 8}) {
    const double seconds = bench.slab_seconds(rows);
    const double rate = bench.slab_bytes() / seconds;
    fmt::print("{} rows  {:.3f} ms a slab of {:.2f} MB  {:6.2f} GB/s = {:.0f} % of the roof\n",
               rows, seconds * 1e3, bench.slab_bytes() * 1e-6, rate * 1e-9, 100 * rate / roof);
  }
}
