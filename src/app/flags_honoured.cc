// The flags that do something.
#include <fmt/core.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "app/flag_values.h"
#include "app/flags.h"
#include "base/json.h"

namespace strata::app {
namespace {

constexpr std::int64_t kMaxInt32 = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kGiB = std::int64_t{1} << 30;

std::int32_t to_int32(const FlagUse& use, std::int64_t min, std::int64_t max = kMaxInt32) {
  return static_cast<std::int32_t>(parse_integer(use.spec.name, use.value(), min, max));
}

harmony::Effort to_effort(const FlagUse& use, std::string_view text) {
  return parse_choice<harmony::Effort>(use.spec.name, text,
                                       {{"low", harmony::Effort::kLow},
                                        {"medium", harmony::Effort::kMedium},
                                        {"high", harmony::Effort::kHigh}});
}

void set_load_format(Options& options, const FlagUse& use) {
  const std::string& text = use.value();
  if (text == "auto" || text == "safetensors") {
    options.load_format = LoadFormat::kSafetensors;
  } else if (text == "scripted") {
    options.load_format = LoadFormat::kScripted;
  } else if (text == "dummy" || text.starts_with("dummy:")) {
    options.load_format = LoadFormat::kDummy;
    options.dummy_spec = text.substr(5);
  } else {
    usage_error(fmt::format("--load-format cannot be '{}'", text),
                "allowed: auto, safetensors, dummy[:20b|120b|tiny][:seed], scripted");
  }
}

void set_kv_dtype(Options& options, const FlagUse& use) {
  const std::string& text = use.value();
  if (text.starts_with("fp8"))
    usage_error(
        fmt::format("--kv-cache-dtype {} is not available on the CPU, nor yet on a card", text),
        "use bfloat16 or float32");
  options.kv_dtype_auto = text == "auto";
  options.kv_dtype = parse_choice<KvDtype>(
      use.spec.name, text,
      {{"auto", KvDtype::kF32}, {"float32", KvDtype::kF32}, {"bfloat16", KvDtype::kBf16}});
}

// Attention is split at fixed 256 keys, so that pages must divide 256.
void set_block_size(Options& options, const FlagUse& use) {
  options.block_size = to_int32(use, 1, 256);
  if (options.block_size < 8 || 256 % options.block_size != 0)
    usage_error(fmt::format("--block-size cannot be {}", options.block_size),
                "allowed: 8, 16, 32, 64, 128, 256");
}

// "95:30": percent of the card's memory and seconds.
void set_rebuild(Options& options, const FlagUse& use) {
  const std::string_view text = use.value();
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos)
    usage_error(fmt::format("{} cannot be '{}'", use.spec.name, text),
                "write PERCENT:SECONDS, for example 95:30");
  options.rebuild_above_percent =
      static_cast<std::int32_t>(parse_integer(use.spec.name, text.substr(0, colon), 1, 99));
  options.rebuild_after_s =
      static_cast<std::int32_t>(parse_integer(use.spec.name, text.substr(colon + 1), 1, 86400));
}

// Sampling defaults as vLLM takes them: {"temperature": 0.7, ...} or --flag.temperature=0.7.
void set_sampling_default(Options& options, const FlagUse& use, std::string_view key,
                          std::string_view text) {
  SamplingOverrides& set = options.sampling;
  const std::string name = fmt::format("{} {}", use.spec.name, key);
  if (key == "temperature") {
    set.temperature = parse_real(name, text, 0.0, 100.0);
  } else if (key == "top_p") {
    set.top_p = parse_real(name, text, 1e-6, 1.0);
  } else if (key == "top_k") {
    set.top_k = static_cast<int>(parse_integer(name, text, -1, kMaxInt32));
  } else if (key == "min_p") {
    set.min_p = parse_real(name, text, 0.0, 1.0);
  } else if (key == "repetition_penalty") {
    set.repetition_penalty = parse_real(name, text, 1e-6, 10.0);
  } else {
    usage_error(fmt::format("{} does not know the key '{}'", use.spec.name, key),
                "allowed: temperature, top_p, top_k, min_p, repetition_penalty");
  }
}

void set_sampling_defaults(Options& options, const FlagUse& use) {
  const std::string& text = use.value();
  if (!text.starts_with('{') && text.find('=') != std::string::npos) {
    const std::size_t equals = text.find('=');
    set_sampling_default(options, use, text.substr(0, equals), text.substr(equals + 1));
    return;
  }
  const auto json = parse_json(text, use.spec.name);
  if (!json) usage_error(json.error().message);
  if (!json->is_object()) usage_error(fmt::format("{} needs a JSON object", use.spec.name));
  for (const auto& [key, value] : json->items())
    set_sampling_default(options, use, key, value.dump());
}

// A JSON list of strings, as vLLM takes it, or one plain origin.
void set_origins(Options& options, const FlagUse& use) {
  options.allowed_origins.clear();
  if (!use.value().starts_with('[')) {
    options.allowed_origins.push_back(use.value());
    return;
  }
  const auto json = parse_json(use.value(), use.spec.name);
  if (!json) usage_error(json.error().message);
  for (const auto& origin : *json) {
    if (!origin.is_string())
      usage_error("--allowed-origins needs a JSON list of strings",
                  R"(for example --allowed-origins '["https://chat.example.org"]')");
    options.allowed_origins.push_back(origin.get<std::string>());
  }
}

using enum FlagKind;
constexpr FlagEffect kDoes = FlagEffect::kHonoured;
constexpr FlagEffect kCard = FlagEffect::kCard;

const FlagSpec kModelFlags[] = {
    {"--model", kValue, kDoes, kEvery, "Model", "the same as the positional MODEL", "",
     [](Options& o, const FlagUse& u) { o.model = u.value(); }},
    {"--load-format", kValue, kDoes, kEvery, "Model",
     "auto|safetensors|dummy[:20b|120b|tiny][:seed]|scripted: where weights come from", "",
     set_load_format},
    {"--script", kValue, kDoes, kServing | kChatOnly, "Model",
     "JSONL file of the answers of --load-format scripted", "",
     [](Options& o, const FlagUse& u) { o.script_file = u.value(); }},
    {"--script-delay-us", kValue, kDoes, kServing | kChatOnly, "Model",
     "pace of the scripted model: microseconds a step", "",
     [](Options& o, const FlagUse& u) { o.script_delay_us = to_int32(u, 0, 60'000'000); }},
    {"--tokenizer", kValue, kDoes, kEvery, "Model",
     "directory or hub name to take tokenizer.json from", "",
     [](Options& o, const FlagUse& u) { o.tokenizer = u.value(); }},
    {"--revision", kValue, kDoes, kEvery, "Model", "branch, tag or commit in the hub cache", "",
     [](Options& o, const FlagUse& u) { o.revision = u.value(); }},
    {"--download-dir", kValue, kDoes, kEvery, "Model", "hub cache to search first", "",
     [](Options& o, const FlagUse& u) { o.download_dir = u.value(); }},
    {"--models-dir", kValue, kDoes, kEvery, "Model", "folder of model directories", "",
     [](Options& o, const FlagUse& u) { o.models_dir = u.value(); }},
    {"--served-model-name", kList, kDoes, kServing, "Model",
     "names clients may ask for; the first is the one in answers and metrics", "",
     [](Options& o, const FlagUse& u) { o.served_model_names = u.values; }},
};

const FlagSpec kComputeFlags[] = {
    {"--backend", kValue, kDoes, kEvery, "Compute and memory",
     "auto|cpu|cuda|ref; auto: the card, where there is one that the model fits", "",
     [](Options& o, const FlagUse& u) {
       o.backend = parse_choice<BackendChoice>(u.spec.name, u.value(),
                                               {{"auto", BackendChoice::kAuto},
                                                {"cpu", BackendChoice::kCpu},
                                                {"cuda", BackendChoice::kCuda},
                                                {"ref", BackendChoice::kRef}});
     }},
    {"--cpu-isa", kValue, kDoes, kEvery, "Compute and memory",
     "auto|scalar|avx2|avxvnni|avx512|avx512vnni: instruction set of the CPU backend", "",
     [](Options& o, const FlagUse& u) { o.cpu_isa = u.value(); }},
    {"--threads", kValue, kDoes, kEvery, "Compute and memory",
     "compute threads; default: one per processor this process may use, pinned to it", "",
     [](Options& o, const FlagUse& u) { o.threads = to_int32(u, 1, 1024); }},
    {"--dense-dtype", kValue, kDoes, kEvery, "Compute and memory",
     "auto|bf16|int8: attention and unembedding weights; auto: bf16, or int8 on a card where that "
     "leaves little room for context",
     "",
     [](Options& o, const FlagUse& u) {
       o.dense = parse_choice<DenseChoice>(u.spec.name, u.value(),
                                           {{"auto", DenseChoice::kAuto},
                                            {"bf16", DenseChoice::kBf16},
                                            {"int8", DenseChoice::kInt8}});
     }},
    {"--cpu-act", kValue, kDoes, kEvery, "Compute and memory",
     "auto|int16|int8: activations of products with 4- and 8-bit weights; auto: int16", "",
     [](Options& o, const FlagUse& u) {
       o.int8_activations = parse_choice<bool>(u.spec.name, u.value(),
                                               {{"auto", false}, {"int16", false}, {"int8", true}});
     }},
    {"--huge-pages", kValue, kDoes, kEvery, "Compute and memory",
     "auto|off: ask for 2 MiB pages for weights and KV", "",
     [](Options& o, const FlagUse& u) {
       o.huge_pages = parse_choice<bool>(u.spec.name, u.value(), {{"auto", true}, {"off", false}});
     }},
    {"--kv-cache-dtype", kValue, kDoes, kEvery, "Compute and memory", "auto|float32|bfloat16", "",
     set_kv_dtype},
    {"--cpu-memory-limit", kValue, kDoes, kEvery, "Compute and memory",
     "most memory to use, e.g. 24GiB; default: what is available", "",
     [](Options& o, const FlagUse& u) {
       o.memory_limit_bytes = parse_bytes(u.spec.name, u.value(), 1);
       if (o.memory_limit_bytes < (1 << 20)) usage_error("--cpu-memory-limit is below 1MiB");
     }},
    {"--gpu-memory-utilization", kValue, kCard, kEvery, "Compute and memory",
     "share of the card's memory to use (default 0.92, or all but 768 MiB if that is more)", "",
     [](Options& o, const FlagUse& u) {
       o.gpu_memory_utilization = parse_real(u.spec.name, u.value(), 0.0, 1.0);
       if (o.gpu_memory_utilization == 0.0) usage_error("--gpu-memory-utilization must be above 0");
     }},
    {"--gpu-memory-limit", kValue, kCard, kEvery, "Compute and memory",
     "most card memory to use, e.g. 7GiB", "",
     [](Options& o, const FlagUse& u) {
       o.gpu_memory_limit_bytes = parse_bytes(u.spec.name, u.value(), 1);
       if (o.gpu_memory_limit_bytes < (1 << 20)) usage_error("--gpu-memory-limit is below 1MiB");
     }},
    {"--cuda-path", kValue, kCard, kEvery, "Compute and memory",
     "auto|generic75|generic80|generic89|sm90: the kernels of cards of that compute capability "
     "(default: the newest the card can run)",
     "",
     [](Options& o, const FlagUse& u) {
       o.cuda_path = parse_choice<CudaPath>(u.spec.name, u.value(),
                                            {{"auto", CudaPath::kAuto},
                                             {"generic75", CudaPath::kGeneric75},
                                             {"generic80", CudaPath::kGeneric80},
                                             {"generic89", CudaPath::kGeneric89},
                                             {"sm90", CudaPath::kSm90}});
     }},
    {"--deterministic", kSwitch, kCard, kEvery, "Compute and memory",
     "on a card: an answer depends on nothing but its request, whatever else is computed with it; "
     "slower: multiplies in float32, not on tensor cores",
     "", [](Options& o, const FlagUse& u) { o.deterministic = u.on(); }},
    {"--enforce-eager", kSwitch, kCard, kEvery, "Compute and memory",
     "on a card: run every step directly, replay no recorded graphs", "",
     [](Options& o, const FlagUse& u) { o.enforce_eager = u.on(); }},
    {"--swap-space", kValue, kDoes, kEvery, "Compute and memory",
     "GiB of memory for KV pages that had to leave the pool (default 0)", "",
     [](Options& o, const FlagUse& u) {
       o.swap_space_bytes = parse_bytes(u.spec.name, u.value(), kGiB);
     }},
    {"--kv-offloading-size", kValue, kDoes, kEvery, "", "the same as --swap-space", "",
     [](Options& o, const FlagUse& u) {
       o.swap_space_bytes = parse_bytes(u.spec.name, u.value(), kGiB);
     }},
};

const FlagSpec kSchedulingFlags[] = {
    {"--max-model-len", kValue, kDoes, kEvery, "Scheduling",
     "prompt and answer together, in tokens: 4096, 32k, auto; default: what fits", "",
     [](Options& o, const FlagUse& u) {
       o.max_model_len = parse_token_count(u.spec.name, u.value());
     }},
    {"--max-num-seqs", kValue, kDoes, kEvery, "Scheduling",
     "sequences running at once (default 8, on a card 64)", "",
     [](Options& o, const FlagUse& u) { o.max_num_seqs = to_int32(u, 1, 4096); }},
    {"--max-num-batched-tokens", kValue, kDoes, kEvery, "Scheduling",
     "tokens of one step; default: 256, on a card 1024, or --max-num-seqs if that is more", "",
     [](Options& o, const FlagUse& u) { o.max_num_batched_tokens = to_int32(u, 1, 65536); }},
    {"--block-size", kValue, kDoes, kEvery, "Scheduling", "tokens of a KV page", "",
     set_block_size},
    {"--enable-prefix-caching", kSwitch, kDoes, kServing | kChatOnly, "Scheduling",
     "reuse the KV pages of equal prompt beginnings (default on)", "",
     [](Options& o, const FlagUse& u) { o.prefix_caching = u.on(); }},
    {"--async-scheduling", kSwitch, kDoes, kServing | kChatOnly, "Scheduling",
     "plan the next step while one runs (default on)", "",
     [](Options& o, const FlagUse& u) { o.async_scheduling = u.on(); }},
    {"--scheduling-policy", kValue, kDoes, kServing, "Scheduling",
     "fcfs|priority: who waits (default fcfs, first come, first served)", "",
     [](Options& o, const FlagUse& u) {
       o.priority_scheduling =
           parse_choice<bool>(u.spec.name, u.value(), {{"fcfs", false}, {"priority", true}});
     }},
    {"--step-deadline", kValue, kDoes, kServing, "Scheduling",
     "seconds a step may take before the model is rebuilt; 0: any time; default: by its pace", "",
     [](Options& o, const FlagUse& u) { o.step_deadline_s = to_int32(u, 0, 86400); }},
    {"--rebuild-on-vram", kValue, kCard, kServing, "Scheduling",
     "PERCENT:SECONDS, such as 95:30: rebuild the model once more of the card was in use for so "
     "long",
     "", set_rebuild},
    {"--idle-unload", kValue, kDoes, kServing, "Scheduling",
     "free the model after so many seconds without requests; the next one loads it again", "",
     [](Options& o, const FlagUse& u) { o.idle_unload_s = to_int32(u, 0, 31'536'000); }},
    {"--max-num-queued-reqs", kValue, kDoes, kServing, "Scheduling",
     "waiting requests; more are refused", "",
     [](Options& o, const FlagUse& u) { o.max_queued_requests = to_int32(u, 1, 1 << 20); }},
    {"--max-num-queued-tokens", kValue, kDoes, kServing, "Scheduling",
     "prompt tokens waiting; more are refused", "",
     [](Options& o, const FlagUse& u) {
       o.max_queued_tokens = parse_integer(u.spec.name, u.value(), 1, std::int64_t{1} << 40);
     }},
};

const FlagSpec kHttpFlags[] = {
    {"--host", kValue, kDoes, kServing, "HTTP", "address to listen on (default 127.0.0.1)", "",
     [](Options& o, const FlagUse& u) { o.host = u.value(); }},
    {"--port", kValue, kDoes, kServing, "HTTP", "port; 0 takes a free one (default 8000)", "",
     [](Options& o, const FlagUse& u) {
       o.port = static_cast<std::uint16_t>(to_int32(u, 0, 65535));
     }},
    {"--api-key", kRepeated, kDoes, kServing, "HTTP",
     "a key clients must send; may be repeated (or STRATA_API_KEY, VLLM_API_KEY)", "",
     [](Options& o, const FlagUse& u) {
       for (const std::string& key : u.values)
         if (key.empty()) usage_error("--api-key cannot be empty");
       o.api_keys = u.values;
     }},
    {"--max-concurrent-requests-per-key", kValue, kDoes, kServing, "HTTP",
     "requests of one API key running or waiting at once (default 0: no limit)", "",
     [](Options& o, const FlagUse& u) {
       o.key_concurrent_requests = parse_integer(u.spec.name, u.value(), 0, kMaxInt32);
     }},
    {"--max-requests-per-minute-per-key", kValue, kDoes, kServing, "HTTP",
     "requests of one API key a minute (default 0: no limit)", "",
     [](Options& o, const FlagUse& u) {
       o.key_requests_per_minute = parse_integer(u.spec.name, u.value(), 0, kMaxInt32);
     }},
    {"--max-tokens-per-minute-per-key", kValue, kDoes, kServing, "HTTP",
     "prompt and answer tokens of one API key a minute (default 0: no limit)", "",
     [](Options& o, const FlagUse& u) {
       o.key_tokens_per_minute = parse_integer(u.spec.name, u.value(), 0, std::int64_t{1} << 40);
     }},
    {"--allowed-origins", kValue, kDoes, kServing, "HTTP",
     "JSON list of web origins that may call the API", "", set_origins},
    {"--max-logprobs", kValue, kDoes, kServing, "HTTP", "largest top_logprobs of a request", "",
     [](Options& o, const FlagUse& u) { o.max_logprobs = to_int32(u, 0, 64); }},
    {"--fingerprint-value", kValue, kDoes, kServing, "",
     "system_fingerprint of answers; default: made from the version", "",
     [](Options& o, const FlagUse& u) { o.fingerprint = u.value(); }},
    {"--drain-timeout", kValue, kDoes, kServing, "HTTP",
     "seconds running answers get after SIGTERM (default 30)", "",
     [](Options& o, const FlagUse& u) { o.drain_timeout_s = to_int32(u, 0, 86400); }},
    {"--enable-sleep-mode", kSwitch, kDoes, kServing, "HTTP",
     "clients may free the model with POST /sleep and load it with /wake_up (default off)", "",
     [](Options& o, const FlagUse& u) { o.sleep_mode = u.on(); }},
    {"--h11-max-incomplete-event-size", kValue, kDoes, kServing, "",
     "largest request head in bytes", "",
     [](Options& o, const FlagUse& u) {
       o.max_header_bytes = static_cast<std::size_t>(to_int32(u, 1024, 16 << 20));
     }},
};

const FlagSpec kAnswerFlags[] = {
    {"--generation-config", kValue, kDoes, kServing, "Answers",
     "auto: sampling defaults of the model's generation_config.json; vllm: none", "",
     [](Options& o, const FlagUse& u) {
       o.model_sampling_defaults =
           parse_choice<bool>(u.spec.name, u.value(), {{"auto", true}, {"vllm", false}});
     }},
    {"--override-generation-config", kValue, kDoes, kServing, "Answers",
     R"(sampling defaults over the model's, e.g. {"temperature": 0.7})", "", set_sampling_defaults},
    {"--date", kValue, kDoes, kServing | kChatOnly, "Answers",
     "YYYY-MM-DD the model is told; default: today", "",
     [](Options& o, const FlagUse& u) { o.date = parse_date(u.spec.name, u.value()); }},
    {"--effort", kValue, kDoes, kChatOnly, "Answers", "low|medium|high: reasoning effort", "",
     [](Options& o, const FlagUse& u) { o.effort = to_effort(u, u.value()); }},
    {"--system", kValue, kDoes, kChatOnly, "Answers", "instructions for the model", "",
     [](Options& o, const FlagUse& u) { o.system = u.value(); }},
    {"--max-tokens", kValue, kDoes, kChatOnly, "Answers", "longest answer, reasoning included", "",
     [](Options& o, const FlagUse& u) { o.max_tokens = to_int32(u, 1); }},
    {"--temperature", kValue, kDoes, kChatOnly, "Answers", "0: greedy (default 1)", "",
     [](Options& o, const FlagUse& u) {
       o.temperature = parse_real(u.spec.name, u.value(), 0.0, 100.0);
     }},
    {"--seed", kValue, kDoes, kServing | kChatOnly, "Answers",
     "of the random draws of requests that name none; default: a fresh one", "",
     [](Options& o, const FlagUse& u) {
       o.seed = static_cast<std::uint64_t>(
           parse_integer(u.spec.name, u.value(), 0, std::numeric_limits<std::int64_t>::max()));
     }},
    {"--prompt-tokens", kValue, kDoes, kBenchOnly, "Bench", "prompt of each sequence", "",
     [](Options& o, const FlagUse& u) { o.prompt_tokens = to_int32(u, 1, 1 << 20); }},
    {"--output-tokens", kValue, kDoes, kBenchOnly, "Bench", "decode steps measured", "",
     [](Options& o, const FlagUse& u) { o.output_tokens = to_int32(u, 1, 1 << 20); }},
    {"--batch", kValue, kDoes, kBenchOnly, "Bench", "sequences decoded together", "",
     [](Options& o, const FlagUse& u) { o.batch = to_int32(u, 1, 4096); }},
    {"--context-tokens", kValue, kDoes, kBenchOnly, "Bench",
     "tokens before the prompt, taken as computed", "",
     [](Options& o, const FlagUse& u) { o.context_tokens = to_int32(u, 0, 1 << 20); }},
    {"--json", kSwitch, kDoes, kBenchOnly | kPlanOnly, "Output", "one line of JSON", "",
     [](Options& o, const FlagUse& u) { o.json = u.on(); }},
    {"--log-level", kValue, kDoes, kEvery, "Output",
     "debug|info|warning|error; default: info for serve, else warning", "",
     [](Options& o, const FlagUse& u) {
       o.log_level = parse_choice<std::string>(
           u.spec.name, u.value(),
           {{"debug", "debug"}, {"info", "info"}, {"warning", "warning"}, {"error", "error"}});
     }},
    {"--fault-inject", kValue, kDoes, kEvery, "", "arms fault points, for tests", "",
     [](Options& o, const FlagUse& u) { o.fault_inject = u.value(); }},
};

std::vector<FlagSpec> concatenate() {
  std::vector<FlagSpec> all;
  const auto add = [&all](std::span<const FlagSpec> part) {
    all.insert(all.end(), part.begin(), part.end());
  };
  add(kModelFlags);
  add(kComputeFlags);
  add(kSchedulingFlags);
  add(kHttpFlags);
  add(kAnswerFlags);
  return all;
}

}  // namespace

std::span<const FlagSpec> honoured_flags() {
  static const std::vector<FlagSpec> all = concatenate();
  return all;
}

}  // namespace strata::app
