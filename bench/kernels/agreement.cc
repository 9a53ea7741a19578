// What int8 activations and int8 dense weights cost: the model's predictions with them against its
// predictions with the defaults (bf16 dense weights, 16-bit activations), over the golden prompts
// of the embedded model. Prints for each combination the mean Kullback-Leibler divergence in nats,
// its 99th percentile, and how often the most likely token is the same.
//
//   bench_agreement [TOKENS]   (default 24000)
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/golden/golden_file.h"
#include "tests/support/step_runner.h"
#include "weights/checkpoint.h"

namespace strata::test {
namespace {

using Rows = std::vector<std::vector<float>>;

struct Variant {
  const char* name;
  kernels::WeightFormat dense;
  bool int8_activations;
};
constexpr Variant kVariants[] = {
    {"default", kernels::WeightFormat::kBf16, false},
    {"--dense-dtype int8", kernels::WeightFormat::kI8g32, false},
    {"--cpu-act int8", kernels::WeightFormat::kBf16, true},
    {"--dense-dtype int8 --cpu-act int8", kernels::WeightFormat::kI8g32, true},
};

TestBackend backend_of(const Variant& variant) {
  TestBackend backend;
  backend.name = variant.name;
  backend.make = [variant](kernels::BackendContext context) {
    context.dense = variant.dense;
    context.int8_activations = variant.int8_activations;
    auto pool = std::make_shared<ThreadPool>(2);
    auto made = kernels::make_cpu_backend(std::move(context), kernels::detect_isa(), *pool);
    return std::shared_ptr<kernels::Backend>(made.release(),
                                             [pool](kernels::Backend* dead) { delete dead; });
  };
  return backend;
}

// Prompts with their golden replies, as many as make `tokens` tokens.
std::vector<std::vector<TokenId>> texts(std::size_t tokens) {
  std::vector<std::vector<TokenId>> list;
  std::istringstream lines(read_text(golden_path("golden.jsonl")));
  for (std::string line; std::getline(lines, line) && tokens > 0;) {
    const auto json = nlohmann::json::parse(line);
    std::vector<TokenId> ids = token_ids(json["prompt"]);
    const std::vector<TokenId> reply = token_ids(json["reply"]);
    ids.insert(ids.end(), reply.begin(), reply.end());
    tokens -= std::min(tokens, ids.size());
    list.push_back(std::move(ids));
  }
  return list;
}

class Comparison {
 public:
  void add(const Rows& expected, const Rows& got) {
    for (std::size_t i = 0; i < expected.size(); ++i) {
      double divergence = 0.0;
      for (std::size_t id = 0; id < expected[i].size(); ++id) {
        const auto p = static_cast<double>(expected[i][id]);
        if (std::isfinite(p)) divergence += std::exp(p) * (p - static_cast<double>(got[i][id]));
      }
      divergences_.push_back(divergence);
      same_ += best(expected[i]) == best(got[i]) ? 1 : 0;
    }
  }
  void print(const char* name) {
    std::sort(divergences_.begin(), divergences_.end());
    double sum = 0.0;
    for (const double each : divergences_) sum += each;
    const auto count = static_cast<double>(divergences_.size());
    fmt::print("{:<34} {:>6} tokens  mean KL {:.2e}  99 % below {:.2e}  top-1 the same {:.3f} %\n",
               name, divergences_.size(), sum / count, divergences_[divergences_.size() * 99 / 100],
               100.0 * same_ / count);
  }

 private:
  static std::ptrdiff_t best(const std::vector<float>& row) {
    return std::max_element(row.begin(), row.end()) - row.begin();
  }
  std::vector<double> divergences_;
  int same_ = 0;
};

void compare(std::size_t tokens) {
  const auto checkpoint =
      weights::open_checkpoint(std::string(STRATA_SOURCE_DIR) + "/models/strata-tiny");
  kernels::BackendOptions options = small_options();
  options.page_tokens = 16;
  options.max_pages_per_seq = 300;
  options.num_pages = 640;
  const auto list = texts(tokens);
  std::vector<std::unique_ptr<StepRunner>> runners;
  for (const Variant& variant : kVariants)
    runners.push_back(std::make_unique<StepRunner>(backend_of(variant), *checkpoint, options));
  std::vector<Comparison> comparisons(std::size(kVariants));
  for (const std::vector<TokenId>& text : list) {
    Rows expected;
    for (std::size_t i = 0; i < runners.size(); ++i) {
      runners[i]->builder().admit(0);
      const Rows rows = runners[i]->logprobs(0, text, 64);
      runners[i]->builder().release(0);
      if (i == 0) expected = rows;
      comparisons[i].add(expected, rows);
    }
  }
  for (std::size_t i = 1; i < runners.size(); ++i) comparisons[i].print(kVariants[i].name);
}

}  // namespace
}  // namespace strata::test

int main(int argc, char** argv) {
  strata::test::compare(argc > 1 ? static_cast<std::size_t>(std::atol(argv[1])) : 24000);
}
