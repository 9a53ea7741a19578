// `strata bench`: prompt and decode speed of the model itself, without engine and HTTP.
#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "app/bench_report.h"
#include "app/commands.h"
#include "app/exit_code.h"
#include "app/flag_values.h"
#include "app/machine.h"
#include "app/model_setup.h"
#include "app/step_driver.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"
#include "kernels/cuda/cuda_backend.h"
#include "model/transformer_model.h"

namespace strata::app {
namespace {

// The roof is measured on more than the caches hold.
constexpr std::size_t kRoofBytes = std::size_t{1} << 30;
constexpr std::int32_t kWarmUpTokens = 4;

// Room for exactly what is measured, unless the command line says otherwise.
Options sized_for_bench(Options options) {
  const std::int32_t context =
      options.context_tokens + options.prompt_tokens + options.output_tokens + kWarmUpTokens;
  constexpr std::int32_t kSequences = 8;
  options.max_num_seqs =
      std::max(options.max_num_seqs > 0 ? options.max_num_seqs : kSequences, options.batch);
  if (options.max_num_batched_tokens > 0)
    options.max_num_batched_tokens = std::max(options.max_num_batched_tokens, options.batch);
  if (options.max_model_len == 0) options.max_model_len = context;
  if (options.max_model_len < context)
    usage_error(fmt::format("--max-model-len {} is too short: context, prompt and output take {}",
                            options.max_model_len, context));
  return options;
}

// Sequences with one prompt would choose the same experts and read too few weights.
std::vector<std::vector<TokenId>> made_up_prompts(std::int32_t batch, std::int32_t tokens,
                                                  std::int32_t vocab) {
  std::vector<std::vector<TokenId>> prompts(static_cast<std::size_t>(batch));
  std::uint64_t counter = 0;
  for (std::vector<TokenId>& prompt : prompts)
    for (std::int32_t i = 0; i < tokens; ++i)
      prompt.push_back(static_cast<TokenId>(random_at(fnv1a64("bench prompt"), counter++) %
                                            static_cast<std::uint64_t>(vocab)));
  return prompts;
}

void add_to_hash(std::uint64_t& hash, const std::vector<TokenId>& tokens) {
  for (const TokenId token : tokens) hash = mix64(hash ^ static_cast<std::uint64_t>(token));
}

void measure(const Options& options, TransformerModel& model, StepDriver& driver,
             BenchReport& report) {
  const Clock clock;
  const std::int32_t vocab = model.info().vocab;

  driver.admit(kWarmUpTokens);
  driver.prefill(made_up_prompts(options.batch, kWarmUpTokens, vocab));
  driver.decode();
  model.take_stats();

  const auto prompts = made_up_prompts(options.batch, options.prompt_tokens, vocab);
  driver.admit(options.output_tokens + 1, options.context_tokens);
  Nanos begin = clock.now();
  report.prompt.name = "prompt";
  report.prompt.steps = driver.prefill(prompts);
  report.prompt.seconds = to_seconds(clock.now() - begin);
  report.prompt.tokens = std::int64_t{options.prompt_tokens} * options.batch;
  report.prompt.stages = model.take_stats();

  begin = clock.now();
  report.decode.name = "decode";
  driver.decode(options.output_tokens, [&](const std::vector<TokenId>& tokens) {
    add_to_hash(report.token_hash, tokens);
  });
  report.decode.seconds = to_seconds(clock.now() - begin);
  report.decode.steps = options.output_tokens;
  report.decode.tokens = std::int64_t{options.output_tokens} * options.batch;
  report.decode.stages = model.take_stats();
}

}  // namespace

int run_bench(const Options& given) {
  const ModelSetup setup(sized_for_bench(given));
  const Options& options = setup.options();
  BenchReport report;
  report.load_average = load_average();
  const OtherLoad others;
  if (options.backend == BackendChoice::kCuda) {
    report.roof = kernels::cuda_read_bandwidth(kRoofBytes);
  } else {
    ThreadPool pool(setup.threads());
    report.roof = read_bandwidth(pool, kRoofBytes);
    report.peaks = kernels::measure_peaks(pool, setup.cpu_isa(), options.int8_activations);
  }
  const Clock clock;
  const Nanos begin = clock.now();
  const std::unique_ptr<TransformerModel> model = setup.build_transformer();
  report.load_seconds = to_seconds(clock.now() - begin);

  const ModelInfo info = model->info();
  if (StepDriver::pages_needed(info, options.batch, options.max_model_len) > info.num_pages)
    throw StartupError(
        fmt::format("{} sequences of {} tokens need more KV pages than fit in memory",
                    options.batch, options.max_model_len),
        "lower --batch, --prompt-tokens or --output-tokens", kExitMemory);
  StepDriver driver(*model, options.batch, options.max_model_len);
  measure(options, *model, driver, report);

  report.model = setup.description();
  report.backend = info.backend;
  report.processor =
      options.backend == BackendChoice::kCuda ? kernels::find_cuda_device().name : processor_name();
  report.threads = options.backend == BackendChoice::kRef ? 1 : setup.threads();
  report.batch = options.batch;
  report.huge_pages = static_cast<double>(huge_page_bytes());
  report.context_tokens = options.context_tokens;
  report.prompt_tokens = options.prompt_tokens;
  report.output_tokens = options.output_tokens;
  report.other_processors = others.processors();
  fmt::print("{}", options.json ? report_json(report) + "\n" : format_report(report));
  return kExitOk;
}

}  // namespace strata::app
