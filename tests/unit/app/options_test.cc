#include "app/options.h"

#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "app/exit_code.h"
#include "app/flags.h"
#include "base/result.h"

namespace strata::app {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

ParsedCommandLine parse(const std::vector<std::string>& arguments, const Environment& env = {}) {
  return parse_command_line(arguments, env);
}

// Splits at spaces: command lines of these tests quote nothing.
ParsedCommandLine parse_line(const std::string& line) {
  std::istringstream words(line);
  std::vector<std::string> arguments;
  for (std::string word; words >> word;) arguments.push_back(word);
  return parse(arguments);
}

struct Failure {
  std::string message;
  std::string hint;
  int exit_code = 0;
};

Failure failure_of(const std::vector<std::string>& arguments) {
  try {
    parse(arguments);
  } catch (const StartupError& error) {
    return {error.what(), error.hint(), error.exit_code()};
  }
  return {};
}

TEST(CommandLine, FoundingCommandLineRunsAsTyped) {
  const auto parsed = parse_line(
      "serve openai/gpt-oss-20b --host 0.0.0.0 --port 8000 --gpu-memory-utilization 0.95 "
      "--async-scheduling --enforce-eager --max-model-len 4096 --max-num-batched-tokens 256 "
      "--max-num-seqs 10");
  const Options& options = parsed.options;
  EXPECT_EQ(options.command, Command::kServe);
  EXPECT_EQ(options.model, "openai/gpt-oss-20b");
  EXPECT_EQ(options.host, "0.0.0.0");
  EXPECT_EQ(options.port, 8000);
  EXPECT_EQ(options.max_model_len, 4096);
  EXPECT_EQ(options.max_num_batched_tokens, 256);
  EXPECT_EQ(options.max_num_seqs, 10);
  EXPECT_TRUE(options.async_scheduling);
  EXPECT_THAT(parsed.notes, IsEmpty());
}

TEST(Options, ACardsFlagsActOnACardOnly) {
  const auto card = parse_line(
      "serve --backend cuda --gpu-memory-utilization 0.5 --gpu-memory-limit 7GiB --enforce-eager");
  EXPECT_THAT(card.notes, IsEmpty());
  EXPECT_EQ(card.options.backend, BackendChoice::kCuda);
  EXPECT_EQ(card.options.gpu_memory_utilization, 0.5);
  EXPECT_EQ(card.options.gpu_memory_limit_bytes, std::int64_t{7} << 30);
  EXPECT_TRUE(card.options.enforce_eager);
  EXPECT_EQ(parse_line("serve --backend cuda --cuda-path generic75").options.cuda_path,
            CudaPath::kGeneric75);
  EXPECT_THAT(parse_line("serve --gpu-memory-limit 7GiB --backend cpu").notes,
              ElementsAre(HasSubstr("--gpu-memory-limit has no effect because")));
}

TEST(Options, KvDtypeFollowsTheBackendUnlessNamed) {
  EXPECT_EQ(parse_line("serve --backend cpu").options.kv_dtype, KvDtype::kF32);
  const auto on_card = [](const std::string& line) {
    return with_backend(parse_line(line).options, BackendChoice::kCuda).kv_dtype;
  };
  EXPECT_EQ(on_card("serve --backend cuda"), KvDtype::kBf16);
  EXPECT_EQ(on_card("serve --kv-cache-dtype float32 --backend cuda"), KvDtype::kF32);
  EXPECT_EQ(on_card("serve --backend cuda --kv-cache-dtype auto"), KvDtype::kBf16);
}

TEST(CommandLine, ModelIsPositionalOrAFlag) {
  EXPECT_EQ(parse_line("serve --model some/name").options.model, "some/name");
  EXPECT_EQ(parse_line("chat dir").options.model, "dir");
  EXPECT_EQ(parse_line("bench").options.model, "");
  EXPECT_EQ(parse_line("plan a --model a").options.model, "a");
  EXPECT_THAT(failure_of({"serve", "a", "--model", "b"}).message, HasSubstr("two models"));
  EXPECT_THAT(failure_of({"serve", "a", "b"}).message, HasSubstr("unexpected argument 'b'"));
}

TEST(CommandLine, UnderscoresEqualDashesInNamesOnly) {
  const auto parsed = parse_line("serve --max_model_len=2048 --served_model_name my_model");
  EXPECT_EQ(parsed.options.max_model_len, 2048);
  EXPECT_THAT(parsed.options.served_model_names, ElementsAre("my_model"));
}

TEST(CommandLine, BooleansHaveNoForms) {
  EXPECT_FALSE(parse_line("serve --no-async-scheduling").options.async_scheduling);
  EXPECT_FALSE(parse_line("serve --no-enable-prefix-caching").options.prefix_caching);
  EXPECT_FALSE(parse_line("serve --enable_prefix_caching=false").options.prefix_caching);
  EXPECT_TRUE(
      parse_line("serve --no-async-scheduling --async-scheduling").options.async_scheduling);
  EXPECT_THAT(parse_line("serve --no-enable-lora").notes, IsEmpty());
}

TEST(CommandLine, MaxModelLenTakesUnitsAndAuto) {
  EXPECT_EQ(parse_line("serve --max-model-len 32k").options.max_model_len, 32000);
  EXPECT_EQ(parse_line("serve --max-model-len 32K").options.max_model_len, 32768);
  EXPECT_EQ(parse_line("serve --max-model-len 25.6k").options.max_model_len, 25600);
  EXPECT_EQ(parse_line("serve --max-model-len auto").options.max_model_len, 0);
  EXPECT_EQ(parse_line("serve --max-model-len -1").options.max_model_len, 0);
  EXPECT_EQ(parse_line("serve --max-model-len 5 --max-model-len 7").options.max_model_len, 7);
}

TEST(CommandLine, AStepHoldsEverySequence) {
  const auto on_cpu = [](const std::string& flags) {
    return parse_line("serve --backend cpu " + flags).options;
  };
  EXPECT_EQ(on_cpu("").max_num_batched_tokens, 256);
  EXPECT_EQ(on_cpu("").max_num_seqs, 8);
  EXPECT_EQ(on_cpu("--max-num-seqs 512").max_num_batched_tokens, 512);
  EXPECT_EQ(on_cpu("--max-num-batched-tokens 64").max_num_batched_tokens, 64);
  EXPECT_EQ(on_cpu("--max-num-batched-tokens 4").max_num_seqs, 4);
  EXPECT_THAT(failure_of({"serve", "--max-num-batched-tokens", "4", "--max-num-seqs", "5"}).message,
              HasSubstr("is below --max-num-seqs"));
}

TEST(Options, RebuildsBeginAboveWhatTheModelMayTake) {
  EXPECT_THAT(failure_of({"serve", "--rebuild-on-vram", "90:30", "--gpu-memory-utilization", "0.9"})
                  .message,
              HasSubstr("--rebuild-on-vram 90"));
  EXPECT_EQ(parse_line("serve --rebuild-on-vram 95:30 --gpu-memory-utilization 0.9")
                .options.rebuild_above_percent,
            95);
}

TEST(Options, DeterministicExcludesTensorCores) {
  EXPECT_TRUE(parse_line("serve --deterministic").options.deterministic);
  EXPECT_THAT(failure_of({"serve", "--deterministic", "--cuda-path", "sm90"}).message,
              HasSubstr("--deterministic"));
}

TEST(Options, WhatIsLeftToTheBackendIsFilledInWithIt) {
  const Options asked = parse_line("serve").options;
  EXPECT_EQ(asked.backend, BackendChoice::kAuto);
  const Options card = with_backend(asked, BackendChoice::kCuda);
  EXPECT_EQ(card.backend, BackendChoice::kCuda);
  EXPECT_EQ(card.kv_dtype, KvDtype::kBf16);
  for (const char* backend : {"auto", "cuda"}) {  // the card's room decides
    const Options open = parse_line(std::string("serve --backend ") + backend).options;
    EXPECT_EQ(open.max_num_seqs, 0) << backend;
    EXPECT_EQ(open.max_num_batched_tokens, 0) << backend;
  }
  EXPECT_EQ(card.max_num_seqs, 64);
  EXPECT_EQ(card.max_num_batched_tokens, 1024);
  const Options cpu = with_backend(asked, BackendChoice::kCpu);
  EXPECT_EQ(cpu.kv_dtype, KvDtype::kF32);
  EXPECT_EQ(cpu.max_num_seqs, 8);
  EXPECT_EQ(
      with_backend(parse_line("serve --max-num-seqs 3").options, BackendChoice::kCuda).max_num_seqs,
      3);
}

TEST(CommandLine, LoadFormats) {
  EXPECT_EQ(parse_line("serve --load-format auto").options.load_format, LoadFormat::kSafetensors);
  const auto dummy = parse_line("bench --load-format dummy:20b:7").options;
  EXPECT_EQ(dummy.load_format, LoadFormat::kDummy);
  EXPECT_EQ(dummy.dummy_spec, ":20b:7");
  const auto scripted = parse_line("serve --load-format scripted --script a.jsonl").options;
  EXPECT_EQ(scripted.load_format, LoadFormat::kScripted);
  EXPECT_EQ(scripted.script_file, "a.jsonl");
}

TEST(CommandLine, ApiKeysComeFromFlagsBeforeTheEnvironment) {
  Environment env;
  env.api_keys = {"from-env"};
  EXPECT_THAT(parse({"serve"}, env).options.api_keys, ElementsAre("from-env"));
  EXPECT_THAT(parse({"serve", "--api-key", "a", "--api-key=b", "model"}, env).options.api_keys,
              ElementsAre("a", "b"));
  EXPECT_EQ(parse({"serve", "--api-key", "a", "model"}).options.model, "model");
}

TEST(CommandLine, ListsTakeSeveralValues) {
  EXPECT_THAT(parse_line("serve m --served-model-name a b --port 1").options.served_model_names,
              ElementsAre("a", "b"));
  EXPECT_THAT(
      parse({"serve", "--allowed-origins", R"(["https://a","https://b"])"}).options.allowed_origins,
      ElementsAre("https://a", "https://b"));
}

TEST(CommandLine, SamplingDefaultsAsJsonOrDotted) {
  const auto json =
      parse({"serve", "--override-generation-config", R"({"temperature":0.5,"top_k":7})"}).options;
  EXPECT_EQ(json.sampling.temperature, 0.5);
  EXPECT_EQ(json.sampling.top_k, 7);
  EXPECT_FALSE(json.sampling.min_p.has_value());
  const auto dotted = parse({"serve", "--override-generation-config.temperature=0.25"}).options;
  EXPECT_EQ(dotted.sampling.temperature, 0.25);
  EXPECT_FALSE(parse_line("serve --generation-config vllm").options.model_sampling_defaults);
}

TEST(CommandLine, HelpAndVersionAreTexts) {
  const auto help = parse({"serve", "--help"});
  ASSERT_TRUE(help.text.has_value());
  EXPECT_THAT(*help.text, HasSubstr("--max-model-len"));
  EXPECT_THAT(*help.text, testing::Not(HasSubstr("--fault-inject")));
  EXPECT_THAT(*help.text, testing::Not(HasSubstr("--enable-lora")));
  EXPECT_THAT(*parse({"--help"}).text, HasSubstr("bench"));
  EXPECT_EQ(*parse({"--version"}).text, fmt::format("strata {}\n", STRATA_VERSION));
}

TEST(UnknownFlags, NameTheNearest) {
  const Failure typo = failure_of({"serve", "--max-modle-len", "4096"});
  EXPECT_EQ(typo.exit_code, kExitUsage);
  EXPECT_THAT(typo.message, HasSubstr("--max-modle-len"));
  EXPECT_EQ(typo.hint, "did you mean --max-model-len?");
  EXPECT_EQ(failure_of({"serve", "--apikey", "k"}).hint, "did you mean --api-key?");
  EXPECT_EQ(failure_of({"serve", "--servedmodelname=x"}).hint, "did you mean --served-model-name?");
  EXPECT_THAT(failure_of({"serve", "--xyzzy"}).hint, HasSubstr("--help"));
}

TEST(UnknownFlags, OfAnotherCommandSayWhich) {
  const Failure other = failure_of({"chat", "--port", "1"});
  EXPECT_EQ(other.exit_code, kExitUsage);
  EXPECT_THAT(other.message, HasSubstr("--port is no flag of strata chat"));
  EXPECT_THAT(other.hint, HasSubstr("strata serve"));
}

TEST(UnknownFlags, NoCommandOrAWrongOne) {
  EXPECT_EQ(failure_of({}).exit_code, kExitUsage);
  EXPECT_EQ(failure_of({"sevre"}).exit_code, kExitUsage);
}

struct BadValue {
  std::vector<std::string> arguments;
  const char* message;  // part of it
};

TEST(BadValues, AreNamedWithTheFlag) {
  const std::vector<BadValue> cases = {
      {{"serve", "--port", "70000"}, "--port must lie between 0 and 65535, not 70000"},
      {{"serve", "--port", "http"}, "--port needs a whole number, not 'http'"},
      {{"serve", "--port"}, "--port"},
      {{"serve", "--port", "8000x"}, "--port needs a whole number"},
      {{"serve", "--port="}, "--port"},
      {{"serve", "--max-model-len", "0"}, "--max-model-len must lie between 1"},
      {{"serve", "--max-model-len", "32q"}, "--max-model-len needs a number of tokens"},
      {{"serve", "--max-model-len", "1.5"}, "--max-model-len needs a number of tokens"},
      {{"serve", "--max-model-len", "9999999M"}, "--max-model-len must lie between"},
      {{"serve", "--max-num-seqs", "0"}, "--max-num-seqs must lie between"},
      {{"serve", "--max-num-seqs", "300", "--max-num-batched-tokens", "256"},
       "--max-num-batched-tokens 256 is below"},
      {{"serve", "--max-num-batched-tokens", "-5"}, "--max-num-batched-tokens must lie between"},
      {{"serve", "--block-size", "24"}, "--block-size cannot be 24"},
      {{"serve", "--block-size", "4"}, "--block-size cannot be 4"},
      {{"serve", "--gpu-memory-utilization", "1.5"}, "--gpu-memory-utilization must lie between"},
      {{"serve", "--gpu-memory-utilization", "0"}, "--gpu-memory-utilization must be above 0"},
      {{"serve", "--gpu-memory-utilization", "nan"}, "--gpu-memory-utilization needs a number"},
      {{"serve", "--kv-cache-dtype", "fp8"}, "not available on the CPU"},
      {{"serve", "--kv-cache-dtype", "fp8_e5m2"}, "not available on the CPU"},
      {{"serve", "--kv-cache-dtype", "int4"}, "--kv-cache-dtype cannot be 'int4'"},
      {{"serve", "--dense-dtype", "q4"}, "--dense-dtype cannot be 'q4'"},
      {{"serve", "--cpu-act", "int4"}, "--cpu-act cannot be 'int4'"},
      {{"serve", "--backend", "rocm"}, "--backend cannot be 'rocm'"},
      {{"serve", "--cuda-path", "sm70"}, "--cuda-path cannot be 'sm70'"},
      {{"serve", "--gpu-memory-limit", "17"}, "--gpu-memory-limit is below"},
      {{"serve", "--rebuild-on-vram", "95"}, "--rebuild-on-vram cannot be '95'"},
      {{"serve", "--rebuild-on-vram", ""}, "--rebuild-on-vram"},
      {{"serve", "--rebuild-on-vram", ":30"}, "--rebuild-on-vram"},
      {{"serve", "--rebuild-on-vram", "0:30"}, "--rebuild-on-vram"},
      {{"serve", "--rebuild-on-vram", "100:30"}, "--rebuild-on-vram"},
      {{"serve", "--rebuild-on-vram", "95:0"}, "--rebuild-on-vram"},
      {{"serve", "--rebuild-on-vram", "95:30s"}, "--rebuild-on-vram"},
      {{"serve", "--rebuild-on-vram", "95:30:1"}, "--rebuild-on-vram"},
      {{"serve", "--rebuild-on-vram", "-5:30"}, "--rebuild-on-vram"},
      {{"serve", "--load-format", "gguf"}, "--load-format cannot be 'gguf'"},
      {{"serve", "--load-format", "dummyx"}, "--load-format cannot be 'dummyx'"},
      {{"serve", "--load-format", "scripted"}, "needs --script"},
      {{"serve", "--script", "a.jsonl"}, "--script needs --load-format scripted"},
      {{"serve", "--swap-space", "lots"}, "--swap-space needs a size"},
      {{"serve", "--swap-space", "-1"}, "--swap-space needs a size"},
      {{"serve", "--cpu-memory-limit", "8GB"}, "--cpu-memory-limit needs a size"},
      {{"serve", "--cpu-memory-limit", "17"}, "--cpu-memory-limit is below"},
      {{"serve", "--date", "2026-02-30"}, "--date needs a date as YYYY-MM-DD"},
      {{"serve", "--date", "today"}, "--date needs a date as YYYY-MM-DD"},
      {{"serve", "--api-key", ""}, "--api-key"},
      {{"serve", "--allowed-origins", "[1]"}, "--allowed-origins needs a JSON list"},
      {{"serve", "--allowed-origins", "[\"a\""}, "--allowed-origins"},
      {{"serve", "--override-generation-config", "{\"temperatur\":1}"}, "'temperatur'"},
      {{"serve", "--override-generation-config", "{\"temperature\":\"x\"}"}, "temperature"},
      {{"serve", "--override-generation-config", "[]"}, "needs a JSON object"},
      {{"serve", "--log-level", "loud"}, "--log-level cannot be 'loud'"},
      {{"serve", "--async-scheduling=perhaps"}, "async-scheduling"},
      {{"serve", "--drain-timeout", "-1"}, "--drain-timeout must lie between"},
      {{"chat", "--effort", "none"}, "--effort cannot be 'none'"},
      {{"chat", "--temperature", "-0.5"}, "--temperature must lie between"},
      {{"bench", "--batch", "0"}, "--batch must lie between"},
      {{"bench", "--threads", "0"}, "--threads must lie between"},
  };
  for (const BadValue& bad : cases) {
    const Failure failure = failure_of(bad.arguments);
    EXPECT_THAT(failure.message, HasSubstr(bad.message));
    EXPECT_EQ(failure.exit_code, kExitUsage) << bad.message;
  }
}

TEST(Sizes, HaveUnits) {
  EXPECT_EQ(parse_line("serve --swap-space 4").options.swap_space_bytes, std::int64_t{4} << 30);
  EXPECT_EQ(parse_line("serve --swap-space 512MiB").options.swap_space_bytes, 512 << 20);
  EXPECT_EQ(parse_line("serve --kv-offloading-size 0.5").options.swap_space_bytes, 1 << 29);
  EXPECT_EQ(parse_line("serve --cpu-memory-limit 1.5T").options.memory_limit_bytes,
            std::int64_t{3} << 39);
}

}  // namespace
}  // namespace strata::app
