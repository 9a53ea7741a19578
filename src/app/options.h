// Options: what the command line and the environment ask for, checked. Made once in main, read
// only afterwards. options.cc is the only place of the program that reads the environment.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harmony/message.h"
#include "loadgen/options.h"
#include "plan/step_plan.h"

namespace strata::app {

enum class Command { kServe, kChat, kBench, kPlan, kBenchServe };
enum class BackendChoice { kAuto, kCpu, kRef, kCuda };
// The kernels of cards of that compute capability: docs/cli.md, Backends.
enum class CudaPath { kAuto, kGeneric75, kGeneric80, kGeneric89, kSm90 };
enum class DenseChoice { kAuto, kBf16, kInt8 };
enum class LoadFormat { kSafetensors, kDummy, kScripted };

// The variables the program knows; empty when unset.
struct Environment {
  std::string home;                   // HOME
  std::string hf_hub_cache;           // HF_HUB_CACHE
  std::string huggingface_hub_cache;  // HUGGINGFACE_HUB_CACHE
  std::string hf_home;                // HF_HOME
  std::string xdg_cache_home;         // XDG_CACHE_HOME
  std::vector<std::string> api_keys;  // STRATA_API_KEY, else VLLM_API_KEY
  std::string openai_api_key = {};    // OPENAI_API_KEY, for bench serve
  bool no_color = false;              // NO_COLOR
};

// Sampling of requests that leave a field out; unset: the model's or the API's default.
struct SamplingOverrides {
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int> top_k;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
};

struct Options {
  Command command = Command::kServe;
  Environment environment;

  // Model.
  std::string model;      // directory, hub name, or empty: the embedded model
  std::string tokenizer;  // directory or hub name; empty: the model's own
  std::string models_dir;
  std::string download_dir;  // a hub cache searched before the environment's
  std::string revision;      // branch, tag or commit in the hub cache; empty: main
  std::vector<std::string> served_model_names;
  LoadFormat load_format = LoadFormat::kSafetensors;
  std::string dummy_spec;  // what follows "dummy"
  std::string script_file;
  int script_delay_us = 0;

  // Compute and memory.
  BackendChoice backend = BackendChoice::kAuto;
  std::string cpu_isa = "auto";
  int threads = 0;  // 0: one per usable processor
  DenseChoice dense = DenseChoice::kAuto;
  bool int8_activations = false;
  bool huge_pages = true;
  KvDtype kv_dtype = KvDtype::kF32;
  bool kv_dtype_auto = true;                // what suits the backend; false: as asked
  double gpu_memory_utilization = 0;        // 0: all but what a card needs for others
  std::int64_t gpu_memory_limit_bytes = 0;  // 0: by utilization
  CudaPath cuda_path = CudaPath::kAuto;
  bool enforce_eager = false;           // cuda: replay no recorded graphs
  bool deterministic = false;           // cuda: float32 products only
  std::int64_t memory_limit_bytes = 0;  // 0: what is available
  std::int64_t swap_space_bytes = 0;
  std::int32_t max_model_len = 0;       // 0: as much as the model and memory allow
  std::vector<std::string> card_flags;  // that were given: without a card they do nothing

  // Scheduling.
  std::int32_t max_num_seqs = 0;            // 0: what suits the backend
  std::int32_t max_num_batched_tokens = 0;  // likewise
  std::int32_t block_size = 16;
  std::int32_t max_queued_requests = 256;
  std::int64_t max_queued_tokens = 1 << 20;
  bool prefix_caching = true;
  bool priority_scheduling = false;  // else first come, first served
  bool async_scheduling = true;

  // Keeping the model.
  std::int32_t step_deadline_s = -1;       // 0: none; -1: follows the pace of steps
  std::int32_t idle_unload_s = 0;          // 0: never
  std::int32_t rebuild_above_percent = 0;  // of a card's memory; 0: never
  std::int32_t rebuild_after_s = 30;

  // HTTP.
  std::string host = "127.0.0.1";
  std::uint16_t port = 8000;
  std::vector<std::string> api_keys;
  std::int64_t key_concurrent_requests = 0;  // of each API key; 0: no limit
  std::int64_t key_requests_per_minute = 0;
  std::int64_t key_tokens_per_minute = 0;
  std::vector<std::string> allowed_origins;
  int max_logprobs = 20;
  std::string fingerprint;  // system_fingerprint; empty: made from the version
  int drain_timeout_s = 30;
  bool sleep_mode = false;
  std::size_t max_header_bytes = 16U << 10;

  // Answers.
  std::optional<harmony::Effort> effort;  // chat
  SamplingOverrides sampling;             // serve
  bool model_sampling_defaults = true;    // serve: read generation_config.json
  std::string date;                       // YYYY-MM-DD; empty: today
  std::string system;                     // chat: instructions
  std::int32_t max_tokens = 0;            // chat: 0: up to the context
  std::optional<double> temperature;      // chat
  std::optional<std::uint64_t> seed;

  // Bench.
  std::int32_t prompt_tokens = 512;
  std::int32_t output_tokens = 64;
  std::int32_t batch = 1;
  std::int32_t context_tokens = 0;
  bool json = false;          // bench, plan
  loadgen::LoadOptions load;  // bench serve

  // Diagnosis.
  std::string log_level;  // empty: info for serve, warning for the others
  std::string fault_inject;
};

// What main does next: run a command, or print `text` and leave with `exit_code`.
struct ParsedCommandLine {
  Options options;
  std::vector<std::string> notes;   // one line per flag that was accepted without an effect
  std::optional<std::string> text;  // --help, --version
};

// `arguments` without the program's name. Throws StartupError (exit code kExitUsage) that names the
// flag; for an unknown one also the nearest.
ParsedCommandLine parse_command_line(std::vector<std::string> arguments,
                                     const Environment& environment);

std::string without_card(const std::string& flag);  // what such a flag's note says
// Fills in what was left to a backend, not kAuto.
Options with_backend(Options options, BackendChoice backend);

Environment read_environment();

}  // namespace strata::app
