// Attention of the 20b's head shapes at positions up to 131,071: rotated queries, keys in the cache
// and outputs of every path against the reference, at the edges of windows, splits and the context.
// Skipped where a path is missing.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "base/random.h"
#include "kernels/ref/ref_backend.h"
#include "tests/kernels/stage_tester.h"

namespace strata::test {
namespace {

constexpr std::int32_t kPositions[] = {1,    127,  128,  255,   256,   257,
                                       4095, 4096, 8191, 65535, 65536, 131071};
constexpr std::int32_t kPage = 16;
constexpr std::int32_t kChunk = 96;  // rows of a step that attends as prompts do
constexpr std::int32_t kLead = 384;  // positions computed before one that is compared

// A windowed and a full layer; few inputs, so that the reference is fast.
ModelConfig heads_of_20b() {
  ModelConfig config = micro_config();
  config.num_layers = 2;
  config.windowed = {true, false};
  config.hidden = 32;
  config.intermediate = 32;
  config.num_q_heads = 64;
  config.num_kv_heads = 8;
  config.head_dim = 64;
  config.num_experts = 1;
  config.experts_per_token = 1;
  config.vocab = 8;
  config.window = 128;
  config.max_context = 131072;
  config.rope = RopeConfig{};
  return config;
}

kernels::BackendOptions options() {
  kernels::BackendOptions options = small_options();
  options.page_tokens = kPage;
  options.max_pages_per_seq = 131072 / kPage + 1;
  options.num_pages = options.max_pages_per_seq + 64;
  options.num_swap_pages = 0;
  options.kv_dtype = KvDtype::kBf16;
  return options;
}

// Of the last row of a step.
struct Output {
  Floats q;
  std::array<Floats, 2> attn;  // by layer
};

// One sequence, of which only some positions are computed: pages between hold copies of others.
class Sequence {
 public:
  explicit Sequence(const TestBackend& backend)
      : checkpoint_(make_micro_checkpoint(heads_of_20b(), 5)),
        runner_(backend, *checkpoint_, options()) {}

  // Computes `rows` positions from `first` on, where the sequence may have ended before.
  Output run(std::int32_t first, std::int32_t rows, bool attend) {
    PlanBuilder& builder = runner_.builder();
    Admission admission;
    admission.position = first;
    builder.admit(0, {}, admission);
    builder.prefill(0, std::vector<TokenId>(static_cast<std::size_t>(rows)), Want::kNothing);
    fill_gap(first);
    end_ = std::max(end_, first + rows);
    last_first_ = first;
    const StepPlan plan = builder.take();
    kernels::Backend& backend = runner_.backend();
    const kernels::Activations& act = backend.activations();
    const ModelConfig& config = checkpoint_->config();
    backend.begin_step(plan);
    Floats x;
    for (std::int32_t row = 0; row < rows; ++row) {
      const Floats of_row = random_floats(static_cast<std::size_t>(config.hidden),
                                          static_cast<std::uint64_t>(first + row), 2.0);
      x.insert(x.end(), of_row.begin(), of_row.end());
    }
    backend.write_f32(act.x, x);
    Output output;
    for (const LayerId layer : {0, 1}) {
      const auto& weights = runner_.weights().layers[static_cast<std::size_t>(layer)];
      backend.attn_qkv(plan.shape, layer, weights, act.x, {}, act.q);
      if (!attend) continue;
      if (layer == 0) output.q = last_row(act.q, rows);
      backend.attend(plan.shape, layer, weights, act.q, act.attn);
      output.attn[static_cast<std::size_t>(layer)] = last_row(act.attn, rows);
    }
    builder.confirm(backend.end_step());
    return output;
  }

  std::int32_t end() const { return end_; }
  // Whether the window's keys of a step from `first` on are still there.
  bool can_begin(std::int32_t first) const {
    const std::int32_t window = checkpoint_->config().window;
    return std::max(0, first - window + 1) / kPage >= std::max(0, last_first_ - window + 1) / kPage;
  }

 private:
  // Pages before `first` that nothing was written to become copies of whole ones.
  void fill_gap(std::int32_t first) {
    if (first <= end_) return;
    PlanBuilder& builder = runner_.builder();
    const auto whole = static_cast<std::size_t>(end_ / kPage);
    const auto pages = builder.pages(0, kFullGroup);
    const auto copy_to = [&](PageId page, std::size_t index) {
      const std::size_t from = random_at(9, index) % whole;
      builder.plan().copies.push_back({pages[from], page, CopyKind::kDevice});
    };
    for (std::size_t i = whole; i < static_cast<std::size_t>(first / kPage); ++i)
      copy_to(pages[i], i);
    for (const PageId page : builder.pages(0, kWindowGroup)) copy_to(page, 0);
  }

  Floats last_row(kernels::Buffer buffer, std::int32_t rows) {
    const auto width = static_cast<std::size_t>(checkpoint_->config().q_dim());
    Floats all(width * static_cast<std::size_t>(rows));
    runner_.backend().read_f32(buffer, all);
    return {all.end() - static_cast<std::ptrdiff_t>(width), all.end()};
  }

  const std::unique_ptr<MemoryCheckpoint> checkpoint_;
  StepRunner runner_;
  std::int32_t end_ = 0;
  std::int32_t last_first_ = 0;
};

// Computes up to before `first`, which is at or before `position`: what is missing, but no more
// than the last kLead positions. The gap depends on `position` alone.
void lead_up_to(Sequence& sequence, std::int32_t first, std::int32_t position) {
  std::int32_t at = sequence.end();
  if (position - at > kLead) at = (position - kLead) / kPage * kPage;
  for (; at < first; at = sequence.end()) sequence.run(at, std::min(kChunk, first - at), false);
}

const std::vector<Output>& reference() {
  static const std::vector<Output> outputs = [] {
    TestBackend ref;
    ref.make = [](kernels::BackendContext context) -> std::shared_ptr<kernels::Backend> {
      return kernels::make_ref_backend(std::move(context));
    };
    Sequence sequence(ref);
    std::vector<Output> list;
    for (const std::int32_t position : kPositions) {
      lead_up_to(sequence, position, position);
      list.push_back(sequence.run(position, 1, true));
    }
    return list;
  }();
  return outputs;
}

struct Error {
  double mean = 0.0;  // root of the mean square
  double worst = 0.0;
};

Error error_of(const Floats& got, const Floats& wanted) {
  Error error;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double each = std::abs(static_cast<double>(got[i]) - static_cast<double>(wanted[i]));
    error.mean += each * each;
    error.worst = std::isnan(each) ? INFINITY : std::max(error.worst, each);
  }
  error.mean = std::sqrt(error.mean / static_cast<double>(got.size()));
  return error;
}

class CudaPositions : public testing::TestWithParam<CudaPath> {
 protected:
  void SetUp() override {
    if (const std::string missing = GetParam().missing(); !missing.empty()) GTEST_SKIP() << missing;
  }
  // Queries and values are of size 1.5. A float32 path differs from the reference where a key or
  // value rounds to the other bfloat16 number.
  void expect_near(const Floats& got, const Floats& wanted, const std::string& what) const {
    const Error error = error_of(got, wanted);
    std::printf("%s: error %.2e, worst %.2e\n", what.c_str(), error.mean, error.worst);
    EXPECT_LT(error.mean, GetParam().tensor_cores ? 1e-2 : 3e-4) << what;
    EXPECT_LT(error.worst, GetParam().tensor_cores ? 1e-1 : 1e-2) << what;
  }
};

TEST_P(CudaPositions, OutputsAreTheReferences) {
  Sequence sequence(cuda_backend(GetParam()));
  for (std::size_t i = 0; i < std::size(kPositions); ++i) {
    const std::int32_t position = kPositions[i];
    const Output& wanted = reference()[i];
    // As a prompt's, a few drafts' and a decode's last row.
    for (const std::int32_t rows : {kChunk, 3, 1}) {
      const std::int32_t first = position + 1 - rows;
      if (first < 0 || !sequence.can_begin(first)) continue;
      lead_up_to(sequence, first, position);
      const Output got = sequence.run(first, rows, true);
      const std::string where =
          "position " + std::to_string(position) + ", " + std::to_string(rows) + " rows, ";
      expect_near(got.q, wanted.q, where + "queries");
      expect_near(got.attn[0], wanted.attn[0], where + "window");
      expect_near(got.attn[1], wanted.attn[1], where + "full");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Paths, CudaPositions, testing::ValuesIn(cuda_paths()),
                         [](const auto& each) { return each.param.name; });

}  // namespace
}  // namespace strata::test
