// The embedded model's golden replies: greedy text must be the same whatever the backend, the
// instruction set, the batch, the chunking, the number of threads or the prefix cache.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "engine/engine.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/ref/ref_backend.h"
#include "model/transformer_model.h"
#include "tests/golden/golden_file.h"
#include "tests/support/step_runner.h"
#include "tokenizer/tokenizer.h"

namespace strata::test {
namespace {

const std::string kModel = std::string(STRATA_SOURCE_DIR) + "/models/strata-tiny";

struct Golden {
  std::vector<TokenId> prompt;
  std::vector<TokenId> reply;
};

const std::vector<Golden>& goldens() {
  static const std::vector<Golden> list = [] {
    std::vector<Golden> read;
    std::istringstream lines(read_text(golden_path("golden.jsonl")));
    for (std::string line; std::getline(lines, line);) {
      const auto json = nlohmann::json::parse(line);
      read.push_back({token_ids(json["prompt"]), token_ids(json["reply"])});
    }
    return read;
  }();
  return list;
}

// The `count` goldens with the shortest prompts and replies, for slow paths.
std::vector<Golden> shortest(std::size_t count) {
  std::vector<Golden> list = goldens();
  std::sort(list.begin(), list.end(), [](const Golden& a, const Golden& b) {
    return a.prompt.size() + a.reply.size() < b.prompt.size() + b.reply.size();
  });
  list.resize(std::min(count, list.size()));
  return list;
}

constexpr auto kInt8 = kernels::WeightFormat::kI8g32;

struct Setting {
  std::string backend = "best";  // best, ref, cuda or an instruction set
  int threads = 2;
  std::int32_t seqs = 8;
  std::int32_t rows = 256;
  bool prefix_caching = true;
  bool two_steps = true;
  bool record_graphs = true;                     // cuda
  const CudaPath* path = &cuda_paths().front();  // cuda
  KvDtype kv_dtype = KvDtype::kF32;
  kernels::WeightFormat dense = kernels::WeightFormat::kBf16;
};

std::unique_ptr<kernels::Backend> make_backend(const Setting& setting,
                                               const kernels::BackendContext& context,
                                               ThreadPool& pool) {
  if (setting.backend == "ref") return kernels::make_ref_backend(context);
  if (setting.backend == "cuda") return kernels::make_cuda_backend(context);
  return kernels::make_cpu_backend(
      context,
      setting.backend == "best" ? kernels::detect_isa() : kernels::parse_isa(setting.backend),
      pool);
}

std::unique_ptr<Model> make_model(const Setting& setting) {
  const auto checkpoint = weights::open_checkpoint(kModel);
  const auto tokenizer = tokenizer::Tokenizer::load(kModel + "/tokenizer.json");
  PlanRequest request;
  request.config = checkpoint->config();
  request.max_model_len = 8192;
  request.max_num_seqs = setting.seqs;
  request.max_num_batched_tokens = setting.rows;
  request.available_bytes = std::int64_t{4} << 30;
  request.kv_dtype = setting.kv_dtype;
  request.dense = setting.dense;
  MemoryPlan plan = make_memory_plan(request).value();
  plan.backend.record_graphs = setting.record_graphs;
  plan.backend.tensor_cores = setting.path->tensor_cores;
  plan.backend.early_launches = setting.path->early_launches;
  kernels::BackendContext context;
  context.config = checkpoint->config();
  context.dense = setting.dense;
  context.never_emit = tokenizer->never_emit(checkpoint->config().vocab);
  auto pool = std::make_unique<ThreadPool>(setting.threads);
  auto backend = make_backend(setting, context, *pool);
  return std::make_unique<TransformerModel>(*checkpoint, plan, std::move(backend), std::move(pool));
}

// Collects one sequence's tokens; `ended` wakes the test.
struct Reader {
  std::shared_ptr<TokenStream> stream = std::make_shared<TokenStream>();
  std::vector<TokenId> tokens;
  bool ended = false;

  void take() {
    TokenStream::Batch batch = stream->take();
    for (const TokenOutput& output : batch.tokens) tokens.push_back(output.token);
    if (batch.end) ended = true;
  }
};

std::vector<std::vector<TokenId>> generate(const Setting& setting,
                                           const std::vector<Golden>& list) {
  const auto tokenizer = tokenizer::Tokenizer::load(kModel + "/tokenizer.json");
  EngineOptions options;
  options.max_num_seqs = setting.seqs;
  options.max_num_batched_tokens = setting.rows;
  options.prefix_caching = setting.prefix_caching;
  options.two_steps_in_flight = setting.two_steps;
  options.max_queued_requests = static_cast<std::int32_t>(list.size()) + 1;
  Engine engine(make_model(setting), options);
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Reader> readers(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    readers[i].stream->set_notify([&] {
      const std::lock_guard lock(mutex);
      changed.notify_one();
    });
    EngineRequest request;
    request.prompt = list[i].prompt;
    request.max_new_tokens = static_cast<std::int32_t>(list[i].reply.size());
    request.sampling.temperature = 0.0F;
    request.sampling.stop_ids = tokenizer->stop_ids();
    const auto id = engine.submit(std::move(request), readers[i].stream);
    EXPECT_TRUE(id.has_value()) << id.error().message;
  }
  std::unique_lock lock(mutex);
  while (!std::all_of(readers.begin(), readers.end(), [](const Reader& r) { return r.ended; })) {
    changed.wait_for(lock, std::chrono::milliseconds(50));
    for (Reader& reader : readers) reader.take();
  }
  std::vector<std::vector<TokenId>> replies;
  for (Reader& reader : readers) replies.push_back(std::move(reader.tokens));
  return replies;
}

void expect_golden(const Setting& setting, const std::vector<Golden>& list) {
  const auto replies = generate(setting, list);
  int different = 0;
  std::string where;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::vector<TokenId>& wanted = list[i].reply;
    if (replies[i] == wanted) continue;
    ++different;
    const auto [got, at] =
        std::mismatch(replies[i].begin(), replies[i].end(), wanted.begin(), wanted.end());
    where += fmt::format(" {}: token {} of {};", i, at - wanted.begin(), wanted.size());
  }
  EXPECT_EQ(different, 0) << "of " << list.size() << " replies," << where;
}

TEST(Golden, ThereAreEnough) {
  EXPECT_GE(goldens().size(), 200U);
  const auto is_long = [](const Golden& golden) { return golden.prompt.size() >= 1000; };
  EXPECT_GE(std::count_if(goldens().begin(), goldens().end(), is_long), 20);
}

TEST(Golden, BatchOf32) { expect_golden({.seqs = 32, .rows = 512}, goldens()); }
TEST(Golden, BatchOf7WithoutPrefixCache) {
  expect_golden({.seqs = 7, .rows = 64, .prefix_caching = false}, shortest(60));
}
TEST(Golden, OneAtATimeOnOneThread) {
  expect_golden({.threads = 1, .seqs = 1, .rows = 256, .two_steps = false}, shortest(40));
}
TEST(Golden, ChunksOf7) { expect_golden({.seqs = 3, .rows = 7}, shortest(30)); }
TEST(Golden, ChunksOf1) { expect_golden({.seqs = 1, .rows = 1}, shortest(8)); }
// Margins of 1.0 are more than int8 dense weights move log-probabilities: no reply changes.
TEST(Golden, Int8DenseBatchOf32) {
  expect_golden({.seqs = 32, .rows = 512, .dense = kInt8}, shortest(80));
}
TEST(Golden, Int8DenseOneAtATime) {
  expect_golden({.seqs = 1, .two_steps = false, .dense = kInt8}, shortest(20));
}
TEST(Golden, Ref) { expect_golden({.backend = "ref", .seqs = 4, .rows = 64}, shortest(6)); }
// The best one is what all tests above run on.
TEST(Golden, EveryInstructionSet) {
  for (const kernels::CpuIsa isa : kernels::supported_isas())
    expect_golden({.backend = std::string(kernels::isa_name(isa))},
                  shortest(isa == kernels::CpuIsa::kScalar ? 3 : 40));
}

// On a card the same replies come on every path, whether steps are replayed from graphs or run
// directly. Tensor cores attend to keys and values in bfloat16 only.
class GoldenCuda : public testing::TestWithParam<CudaPath> {
 protected:
  void SetUp() override {
    if (const std::string missing = GetParam().missing(); !missing.empty()) GTEST_SKIP() << missing;
  }
  Setting on_path(Setting setting = {}) const {
    setting.backend = "cuda";
    setting.path = &GetParam();
    if (GetParam().tensor_cores) setting.kv_dtype = KvDtype::kBf16;
    return setting;
  }
};

TEST_P(GoldenCuda, OneAtATime) {
  expect_golden(on_path({.seqs = 1, .two_steps = false}), shortest(30));
}
TEST_P(GoldenCuda, WithoutGraphs) {
  expect_golden(on_path({.seqs = 3, .rows = 64, .record_graphs = false}), shortest(30));
}
TEST_P(GoldenCuda, Bf16Kv) { expect_golden(on_path({.kv_dtype = KvDtype::kBf16}), shortest(30)); }
TEST_P(GoldenCuda, ChunksOf7WithoutPrefixCache) {
  expect_golden(on_path({.seqs = 3, .rows = 7, .prefix_caching = false}), shortest(30));
}
TEST_P(GoldenCuda, ChunksOf1) { expect_golden(on_path({.seqs = 1, .rows = 1}), shortest(4)); }
// One reply forks at its seventh token where inputs are rounded to fp16, and with int8 weights on
// tensor cores, where inputs and scaled weights are rounded: their own sets are without it.
std::vector<Golden> goldens_of(const CudaPath& path, bool int8) {
  constexpr std::ptrdiff_t kForks = 270;
  std::vector<Golden> list = goldens();
  if (path.tensor_cores && (int8 || path.name == "generic75")) list.erase(list.begin() + kForks);
  return list;
}
TEST_P(GoldenCuda, BatchOf32) {
  expect_golden(on_path({.seqs = 32, .rows = 512}), goldens_of(GetParam(), false));
}
TEST_P(GoldenCuda, BatchOf32Int8) {
  const std::vector<Golden> list = goldens_of(GetParam(), true);
  expect_golden(on_path({.seqs = 32, .rows = 512, .dense = kInt8}), list);
}
TEST_P(GoldenCuda, OneAtATimeInt8) {
  expect_golden(on_path({.seqs = 1, .two_steps = false, .dense = kInt8}), shortest(20));
}

INSTANTIATE_TEST_SUITE_P(Paths, GoldenCuda, testing::ValuesIn(cuda_paths()),
                         [](const auto& each) { return each.param.name; });

// Log-probabilities of whole prompts: within rounding of the golden ones, and the same bits for
// every chunking and number of threads.
TEST(Golden, LogProbabilities) {
  const auto data = nlohmann::json::parse(read_text(golden_path("tiny_logits.json")));
  const auto checkpoint = weights::open_checkpoint(kModel);
  const auto backends = test_backends();
  kernels::BackendOptions options = small_options();
  options.page_tokens = 16;
  options.max_pages_per_seq = 300;
  options.num_pages = 640;
  const auto logprobs = [&](const TestBackend& backend, std::span<const TokenId> ids,
                            std::size_t chunk) {
    StepRunner runner(backend, *checkpoint, options);
    runner.builder().admit(0);
    return runner.logprobs(0, ids, chunk);
  };
  int compared = 0;
  for (const auto& prompt : data["prompts"]) {
    const std::vector<TokenId> ids = token_ids(prompt["prompt"]);
    if (ids.size() > 300) continue;
    const auto expected = numbers<float>(prompt["log_probabilities"]);
    const auto gaps = numbers<float>(prompt["min_router_gap"]);
    for (const TestBackend& backend : backends) {
      const bool slow = backend.name == "ref" || backend.name.find("scalar") != std::string::npos;
      if (slow && compared > 0) continue;
      const auto whole = logprobs(backend, ids, 128);
      for (std::size_t t = 0; t + 1 < ids.size(); ++t) {
        if (gaps[t] < 1e-4F) continue;
        ASSERT_NEAR(whole[t][static_cast<std::size_t>(ids[t + 1])], expected[t], 5e-3)
            << backend.name << " token " << t;
      }
      if (!slow) {
        EXPECT_TRUE(logprobs(backend, ids, 7) == whole) << backend.name;
      }
    }
    ++compared;
  }
  EXPECT_GE(compared, 2);
}

}  // namespace
}  // namespace strata::test
