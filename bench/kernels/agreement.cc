// What approximations cost: the model's predictions with them against its predictions without, over
// the golden prompts and replies of the embedded model. Prints the mean Kullback-Leibler divergence
// in nats, its 99th percentile, and how often the most likely token is the same: after all tokens,
// and apart after those of beginnings that an earlier text had too (a few positions of the system
// message, over and over), of the rest of the prompts, and within the replies, which are what the
// model was trained to say.
//
//   bench_agreement [--backend cpu|cuda] [TOKENS]   (default: cpu, 24000)
//
// cpu: int8 dense weights and int8 activations against bf16 weights and 16-bit activations. cuda:
// every path against the float32 one, int8 dense weights against bf16 ones on the same path.
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
  TestBackend backend;
  std::size_t base = 0;    // index of what it is compared with; its own: with nothing
  std::size_t chunk = 64;  // rows of a step
};

TestBackend cpu_backend(const char* name, kernels::WeightFormat dense, bool int8_activations) {
  TestBackend backend;
  backend.name = name;
  backend.make = [dense, int8_activations](kernels::BackendContext context) {
    context.dense = dense;
    context.int8_activations = int8_activations;
    auto pool = std::make_shared<ThreadPool>(2);
    auto made = kernels::make_cpu_backend(std::move(context), kernels::detect_isa(), *pool);
    return std::shared_ptr<kernels::Backend>(made.release(),
                                             [pool](kernels::Backend* dead) { delete dead; });
  };
  return backend;
}

std::vector<Variant> cpu_variants() {
  using kernels::WeightFormat;
  return {{cpu_backend("default", WeightFormat::kBf16, false), 0},
          {cpu_backend("--dense-dtype int8", WeightFormat::kI8g32, false), 0},
          {cpu_backend("--cpu-act int8", WeightFormat::kBf16, true), 0},
          {cpu_backend("--dense-dtype int8 --cpu-act int8", WeightFormat::kI8g32, true), 0}};
}

// Early launches change no result: one path of each kind of product. Tensor cores multiply steps of
// few rows in another way than those of many.
std::vector<Variant> cuda_variants() {
  std::vector<Variant> list;
  const auto add = [&list](const CudaPath& path, std::size_t chunk) {
    const std::size_t bf16 = list.size();
    list.push_back({cuda_backend(path), 0, chunk});
    list.push_back({cuda_backend(path, kernels::WeightFormat::kI8g32), bf16, chunk});
    if (chunk == 1)
      for (std::size_t i = bf16; i < list.size(); ++i) list[i].backend.name += ", row by row";
  };
  if (cuda_path("deterministic").missing().empty()) add(cuda_path("deterministic"), 64);
  if (const CudaPath* path = cuda_tensor_path(); path != nullptr)
    for (const std::size_t chunk : {128U, 1U}) add(*path, chunk);
  return list;
}

struct Text {
  std::vector<TokenId> ids;
  std::size_t prompt = 0;  // tokens of the prompt
};

// Prompts with their golden replies, as many as make `tokens` tokens.
std::vector<Text> texts(std::size_t tokens) {
  std::vector<Text> list;
  std::istringstream lines(read_text(golden_path("golden.jsonl")));
  for (std::string line; std::getline(lines, line) && tokens > 0;) {
    const auto json = nlohmann::json::parse(line);
    Text text{token_ids(json["prompt"])};
    text.prompt = text.ids.size();
    const std::vector<TokenId> reply = token_ids(json["reply"]);
    text.ids.insert(text.ids.end(), reply.begin(), reply.end());
    tokens -= std::min(tokens, text.ids.size());
    list.push_back(std::move(text));
  }
  return list;
}

// Of the predictions after some tokens.
class Comparison {
 public:
  void add(const std::vector<float>& expected, const std::vector<float>& got) {
    double divergence = 0.0;
    for (std::size_t id = 0; id < expected.size(); ++id) {
      const auto p = static_cast<double>(expected[id]);
      if (std::isfinite(p)) divergence += std::exp(p) * (p - static_cast<double>(got[id]));
    }
    divergences_.push_back(divergence);
    same_ += best(expected) == best(got) ? 1 : 0;
  }
  void print(const std::string& what, const char* of) {
    if (divergences_.empty()) return;
    std::sort(divergences_.begin(), divergences_.end());
    double sum = 0.0;
    for (const double each : divergences_) sum += each;
    const auto count = static_cast<double>(divergences_.size());
    fmt::print("{:<52} {:<8} {:>6} tokens  mean KL {:.2e}  99 % below {:.2e}  top-1 {:.3f} %\n",
               what, of, divergences_.size(), sum / count,
               divergences_[divergences_.size() * 99 / 100], 100.0 * same_ / count);
  }

 private:
  static std::ptrdiff_t best(const std::vector<float>& row) {
    return std::max_element(row.begin(), row.end()) - row.begin();
  }
  std::vector<double> divergences_;
  int same_ = 0;
};

void compare(const std::vector<Variant>& variants, std::size_t tokens) {
  const auto checkpoint =
      weights::open_checkpoint(std::string(STRATA_SOURCE_DIR) + "/models/strata-tiny");
  kernels::BackendOptions options = small_options();
  options.page_tokens = 16;
  options.max_pages_per_seq = 300;
  options.num_pages = 640;
  std::vector<std::unique_ptr<StepRunner>> runners;
  for (const Variant& variant : variants) {
    // Tensor cores attend to keys and values in bfloat16 only.
    options.kv_dtype = variant.backend.tensor_cores ? KvDtype::kBf16 : KvDtype::kF32;
    runners.push_back(std::make_unique<StepRunner>(variant.backend, *checkpoint, options));
  }
  std::vector<Comparison> all(variants.size());
  std::vector<Comparison> repeated(variants.size());
  std::vector<Comparison> prompts(variants.size());
  std::vector<std::vector<TokenId>> seen;
  std::vector<Comparison> replies(variants.size());
  for (const Text& text : texts(tokens)) {
    std::vector<Rows> rows;
    for (std::size_t v = 0; v < variants.size(); ++v) {
      StepRunner& runner = *runners[v];
      runner.builder().admit(0);
      rows.push_back(runner.logprobs(0, text.ids, variants[v].chunk));
      runner.builder().release(0);
    }
    std::size_t shared = 0;  // first tokens that another text began with
    for (const std::vector<TokenId>& other : seen) {
      const auto at = std::mismatch(text.ids.begin(), text.ids.end(), other.begin(), other.end());
      shared = std::max(shared, static_cast<std::size_t>(at.first - text.ids.begin()));
    }
    seen.push_back(text.ids);
    for (std::size_t v = 0; v < variants.size(); ++v)
      for (std::size_t i = 0; i < text.ids.size(); ++i) {
        const auto& expected = rows[variants[v].base][i];
        all[v].add(expected, rows[v][i]);
        const bool in_reply = i + 1 >= text.prompt && i + 1 < text.ids.size();
        (in_reply ? replies : (i < shared ? repeated : prompts))[v].add(expected, rows[v][i]);
      }
  }
  for (std::size_t v = 0; v < variants.size(); ++v) {
    if (variants[v].base == v) continue;
    const std::string what =
        variants[v].backend.name + " : " + variants[variants[v].base].backend.name;
    all[v].print(what, "all");
    repeated[v].print(what, "repeated");
    prompts[v].print(what, "prompts");
    replies[v].print(what, "replies");
  }
}

int run(const std::vector<std::string>& arguments) {
  bool cuda = false;
  std::size_t tokens = 24000;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--backend" && i + 1 < arguments.size()) {
      cuda = arguments[++i] == "cuda";
    } else if (arguments[i].find_first_not_of("0123456789") == std::string::npos) {
      tokens = std::stoul(arguments[i]);
    } else {
      fmt::print(stderr, "bench_agreement [--backend cpu|cuda] [TOKENS]\n");
      return 2;
    }
  }
  const std::vector<Variant> variants = cuda ? cuda_variants() : cpu_variants();
  if (variants.empty()) {
    fmt::print(stderr, "{}\n", cuda_path("deterministic").missing());
    return 1;
  }
  compare(variants, tokens);
  return 0;
}

}  // namespace
}  // namespace strata::test

int main(int argc, char** argv) { return strata::test::run({argv + 1, argv + argc}); }
