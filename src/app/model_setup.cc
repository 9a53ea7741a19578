#include "app/model_setup.h"

#include <fmt/core.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <thread>
#include <utility>

#include "app/exit_code.h"
#include "app/script_file.h"
#include "base/check.h"
#include "base/log.h"
#include "base/memory.h"
#include "engine/fault_model.h"
#include "engine/scripted_model.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/ref/ref_backend.h"

namespace strata::app {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWithoutCard = "--backend cpu does without the card";

// Folders below know nothing of exit codes: what they throw while the model is opened or loaded
// becomes kExitModel or kExitMemory here.
template <typename Fn>
auto loading(Fn&& fn) {
  try {
    return fn();
  } catch (const StartupError& error) {
    if (error.exit_code() != kExitUsage) throw;
    throw StartupError(error.what(), error.hint(), kExitModel);
  } catch (const DeviceError& error) {
    throw StartupError(error.what(), kWithoutCard, kExitFailure);
  } catch (const MemoryError& error) {
    throw StartupError(error.what(), "lower --max-model-len or --max-num-seqs, or add memory",
                       kExitMemory);
  }
}

ModelConfig read_config(const fs::path& directory) {
  const fs::path file = directory / "config.json";
  std::ifstream in(file, std::ios::binary);
  if (!in) throw StartupError(fmt::format("{}: cannot be read", file.string()));
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  return weights::parse_model_config(text, file.string());
}

void check_dense(const Options& options) {
  if (options.dense == DenseChoice::kInt8 && options.backend == BackendChoice::kRef)
    throw StartupError("--backend ref computes with the checkpoint's own weights",
                       "leave out --dense-dtype", kExitUsage);
}

kernels::CudaDevice usable_card() {
  kernels::CudaDevice device = kernels::find_cuda_device();
  if (!device.usable)
    throw StartupError(fmt::format("--backend cuda: {}", device.problem), device.hint);
  return device;
}

CardMemory card_memory(const Options& options) {
  const kernels::CudaMemory memory = kernels::cuda_memory();
  return {.total_bytes = memory.total_bytes,
          .free_bytes = memory.free_bytes,
          .limit_bytes = options.gpu_memory_limit_bytes,
          .utilization = options.gpu_memory_utilization};
}

// A card that does not answer is what the next step finds out.
double card_memory_used() {
  try {
    const kernels::CudaMemory memory = kernels::cuda_memory();
    return 1.0 - static_cast<double>(memory.free_bytes) / static_cast<double>(memory.total_bytes);
  } catch (const std::exception& error) {
    log_warn("how full the card is cannot be told: {}", error.what());
    return 0;
  }
}

// What --cuda-path asks of the card and of the program's code for it, compute capabilities x 10.
struct PathNeed {
  CudaPath path;
  const char* name;
  int card;
  int code;
  const char* archs;  // of a build that has the code
};
constexpr PathNeed kPathNeeds[] = {{CudaPath::kGeneric75, "generic75", 75, 75, "75-ptx"},
                                   {CudaPath::kGeneric80, "generic80", 80, 80, "80-ptx"},
                                   {CudaPath::kGeneric89, "generic89", 89, 80, "80-ptx"},
                                   {CudaPath::kSm90, "sm90", 90, 90, "90-ptx"}};

std::string capability(int tenfold) { return fmt::format("{}.{}", tenfold / 10, tenfold % 10); }

void check_path(const Options& options, const kernels::CudaDevice& card) {
  for (const PathNeed& need : kPathNeeds) {
    if (options.cuda_path != need.path) continue;
    const int has = 10 * card.major + card.minor;
    if (has < need.card)
      throw StartupError(fmt::format("--cuda-path {}: {} has compute capability {}", need.name,
                                     card.name, capability(has)),
                         "leave it out, or take one of an older card");
    // Newer code runs the kernels of 8.0 as well; those of 7.5 are made of other instructions.
    const int code = kernels::cuda_code_capability();
    if (code < need.code || (need.code == 75 && code >= 80))
      throw StartupError(
          fmt::format("--cuda-path {}: this program's code for {} is of compute capability {}",
                      need.name, card.name, capability(code)),
          fmt::format("leave it out, or build with -DSTRATA_CUDA_ARCHS={}", need.archs));
  }
}

PlanRequest plan_request(const Options& options, const ModelConfig& config) {
  PlanRequest request;
  request.config = config;
  request.max_model_len = options.max_model_len;
  request.max_num_seqs = options.max_num_seqs;
  request.max_num_batched_tokens = options.max_num_batched_tokens;
  request.page_tokens = options.block_size;
  request.kv_dtype = options.kv_dtype;
  if (options.dense == DenseChoice::kInt8) request.dense = kernels::WeightFormat::kI8g32;
  request.memory_limit_bytes = options.memory_limit_bytes;
  request.available_bytes = available_memory_bytes();
  request.swap_space_bytes = options.swap_space_bytes;
  return request;
}

// `asked` is what the command line said, `options` with the card's defaults.
Result<MemoryPlan> plan_card(const Options& asked, const Options& options,
                             const kernels::CudaDevice& card, const ModelConfig& config) {
  check_path(options, card);
  PlanRequest request = plan_request(options, config);
  // float32 products add in one order whatever the number of rows; those on tensor cores do not.
  request.tensor_cores = !options.deterministic && kernels::cuda_tensor_cores(config.expert_format);
  request.card = card_memory(options);
  const PlanFreedom free{.dense = asked.dense == DenseChoice::kAuto,
                         .step_size = asked.max_num_seqs == 0 && asked.max_num_batched_tokens == 0};
  auto plan = make_card_plan(request, free);
  if (!plan) return plan;
  plan->backend.record_graphs = !options.enforce_eager;
  plan->backend.early_launches =
      options.cuda_path == CudaPath::kAuto || options.cuda_path == CudaPath::kSm90;
  return plan;
}

[[noreturn]] void refuse(const Error& error) {
  const bool memory = error.code == ErrorCode::kInsufficientMemory;
  throw StartupError(error.message, memory ? "strata plan shows where memory goes" : std::string(),
                     memory ? kExitMemory : kExitUsage);
}

// What the engine plans with when nothing is computed: room for every sequence at full length.
MemoryPlan plan_scripted(const Options& options, const ModelConfig& config) {
  constexpr std::int32_t kDefaultContext = 8192;
  MemoryPlan plan;
  plan.max_model_len = options.max_model_len > 0
                           ? std::min(options.max_model_len, config.max_context)
                           : std::min(kDefaultContext, config.max_context);
  plan.max_num_seqs = options.max_num_seqs;
  kernels::BackendOptions& sizes = plan.backend;
  sizes.max_rows = options.max_num_batched_tokens;
  sizes.max_slots = options.max_num_seqs;
  sizes.max_logits_rows = options.max_num_batched_tokens;
  sizes.page_tokens = options.block_size;
  sizes.max_pages_per_seq = plan.max_model_len / options.block_size + 2;
  sizes.num_pages = kNumKvGroups * sizes.max_pages_per_seq * options.max_num_seqs + 1;
  sizes.kv_dtype = options.kv_dtype;
  return plan;
}

int default_threads() { return std::max(1U, std::thread::hardware_concurrency()); }

fs::path tokenizer_file(const Options& options, const LocatedModel& model) {
  const fs::path directory =
      options.tokenizer.empty()
          ? model.directory
          : locate_model(options.tokenizer, options, executable_directory()).directory;
  return directory / "tokenizer.json";
}

std::unique_ptr<const weights::Checkpoint> open_weights(const Options& options,
                                                        const LocatedModel& located) {
  switch (options.load_format) {
    case LoadFormat::kSafetensors: return weights::open_checkpoint(located.directory);
    case LoadFormat::kDummy:
      return weights::make_dummy_checkpoint(options.dummy_spec, read_config(located.directory));
    case LoadFormat::kScripted: return nullptr;
  }
  return nullptr;
}

}  // namespace

ModelSetup::ModelSetup(const Options& options)
    : options_(options),
      located_(locate_model(options.model, options, executable_directory())),
      threads_(options.threads > 0 ? options.threads : default_threads()) {
  cpu_isa();  // a name that is wrong is the command line's fault, not the model's
  check_dense(options);
  ask_for_huge_pages(options.huge_pages);
  loading([&] {
    tokenizer_ = tokenizer::Tokenizer::load(tokenizer_file(options, located_));
    checkpoint_ = open_weights(options, located_);
    config_ = checkpoint_ ? checkpoint_->config() : read_config(located_.directory);
  });
  choose_backend();
}

// A card if one is asked for, or is here and has room; a program that could use one says once why
// it does not.
void ModelSetup::choose_backend() {
  const Options asked = options_;
  const auto use = [&](BackendChoice backend) {
    options_ = with_backend(asked, backend);
    if (backend != BackendChoice::kCpu) return;
    for (const std::string& flag : asked.card_flags) log_warn("{}", without_card(flag));
  };
  if (checkpoint_ == nullptr) {
    use(asked.backend == BackendChoice::kAuto ? BackendChoice::kCpu : asked.backend);
    plan_ = plan_scripted(options_, config_);
    return;
  }
  const bool any = asked.backend == BackendChoice::kAuto;
  if (any || asked.backend == BackendChoice::kCuda) {
    const kernels::CudaDevice card = any ? kernels::find_cuda_device() : usable_card();
    use(BackendChoice::kCuda);
    Result<MemoryPlan> plan = fail(ErrorCode::kUnavailable, card.problem);
    try {
      if (card.usable) plan = plan_card(asked, options_, card, config_);
    } catch (const DeviceError& error) {  // it does not answer
      if (!any) throw StartupError(error.what(), kWithoutCard, kExitFailure);
      plan = fail(ErrorCode::kUnavailable, error.what());
    }
    if (plan) {
      plan_ = std::move(*plan);
      options_.dense =
          plan_.dense == kernels::WeightFormat::kI8g32 ? DenseChoice::kInt8 : DenseChoice::kBf16;
      options_.max_num_seqs = plan_.max_num_seqs;
      options_.max_num_batched_tokens = plan_.backend.max_rows;
      if (any) log_info("computing on the {}", card.name);
      return;
    }
    if (!any) refuse(plan.error());
    if (card.built_in) log_info("CPU only: {}", plan.error().message);
    use(BackendChoice::kCpu);
  }
  auto plan = make_memory_plan(plan_request(options_, config_));
  if (!plan) refuse(plan.error());
  plan_ = std::move(*plan);
}

std::string ModelSetup::description() const {
  const std::string directory = located_.directory.string();
  switch (options_.load_format) {
    case LoadFormat::kSafetensors: break;
    case LoadFormat::kDummy:
      return fmt::format("random weights in the shape of {}, tokenizer of {}", config_.name,
                         directory);
    case LoadFormat::kScripted:
      return fmt::format("the script {}, tokenizer of {}", options_.script_file, directory);
  }
  return fmt::format("{} in {}", located_.name, directory);
}

kernels::CpuIsa ModelSetup::cpu_isa() const {
  return options_.cpu_isa == "auto" ? kernels::detect_isa() : kernels::parse_isa(options_.cpu_isa);
}

std::unique_ptr<TransformerModel> ModelSetup::build_transformer() const {
  return loading([this] { return load_transformer(); });
}

std::unique_ptr<TransformerModel> ModelSetup::load_transformer() const {
  STRATA_CHECK(checkpoint_ != nullptr, "the scripted model has no weights");
  kernels::BackendContext context;
  context.config = config_;
  context.never_emit = tokenizer_->never_emit(config_.vocab);
  context.dense = plan_.dense;
  context.int8_activations = options_.int8_activations;
  if (options_.backend == BackendChoice::kRef)
    return std::make_unique<TransformerModel>(
        *checkpoint_, plan_, kernels::make_ref_backend(std::move(context)), nullptr);
  if (options_.backend == BackendChoice::kCuda)  // the pool reads the checkpoint
    return std::make_unique<TransformerModel>(*checkpoint_, plan_,
                                              kernels::make_cuda_backend(std::move(context)),
                                              std::make_unique<ThreadPool>(threads_));
  auto pool = std::make_unique<ThreadPool>(threads_, ThreadPool::Pinning::kCores);
  auto backend = kernels::make_cpu_backend(std::move(context), cpu_isa(), *pool);
  return std::make_unique<TransformerModel>(*checkpoint_, plan_, std::move(backend),
                                            std::move(pool));
}

std::unique_ptr<Model> ModelSetup::build_scripted() const {
  ScriptedOptions scripted;
  scripted.scripts = read_script(options_.script_file, *tokenizer_, config_.vocab);
  scripted.end_token = tokenizer_->specials().return_;
  scripted.step_delay_us = options_.script_delay_us;
  ModelInfo& info = scripted.info;
  info.name = config_.name;
  info.vocab = config_.vocab;
  info.max_context = plan_.max_model_len;
  info.window = config_.window;
  info.page_tokens = plan_.backend.page_tokens;
  info.num_pages = plan_.backend.num_pages;
  info.max_slots = plan_.backend.max_slots;
  info.max_rows = plan_.backend.max_rows;
  info.max_logits_rows = plan_.backend.max_logits_rows;
  info.kv_dtype = plan_.backend.kv_dtype;
  info.backend = "scripted";
  return make_scripted_model(std::move(scripted));
}

std::unique_ptr<Model> ModelSetup::build() const {
  std::unique_ptr<Model> model;
  if (checkpoint_ == nullptr) model = build_scripted();
  else model = load_transformer();
  if (!options_.fault_inject.empty()) model = make_fault_model(std::move(model));
  return model;
}

std::unique_ptr<Engine> make_engine(const ModelSetup& setup) {
  const Options& options = setup.options();
  EngineOptions engine;
  engine.max_num_seqs = options.max_num_seqs;
  engine.max_num_batched_tokens = options.max_num_batched_tokens;
  engine.max_model_len = setup.plan().max_model_len;
  engine.max_queued_requests = options.max_queued_requests;
  engine.max_queued_tokens = options.max_queued_tokens;
  engine.prefix_caching = options.prefix_caching;
  engine.two_steps_in_flight = options.async_scheduling;
  engine.priority_scheduling = options.priority_scheduling;
  engine.step_deadline_ms = options.step_deadline_s < 0 ? -1 : options.step_deadline_s * 1000;
  engine.idle_unload_s = options.idle_unload_s;
  engine.rebuild_above_memory = options.rebuild_above_percent / 100.0;
  engine.rebuild_after_s = options.rebuild_after_s;
  if (options.backend == BackendChoice::kCuda) engine.memory_used = card_memory_used;
  auto model = loading([&setup] { return setup.build(); });
  return std::make_unique<Engine>(std::move(model), engine, [&setup] { return setup.build(); });
}

}  // namespace strata::app
