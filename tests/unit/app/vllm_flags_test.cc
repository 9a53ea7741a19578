// Every flag that users of `vllm serve` carry over, with a value as they write it, and what must
// come of it: an effect, one line that says why there is none, or a clear refusal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include "app/exit_code.h"
#include "app/flags.h"
#include "app/options.h"
#include "base/result.h"

namespace strata::app {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

enum Expected { kWorks, kNoted, kFails };

struct Row {
  std::vector<std::string> arguments;
  Expected expected;
};

// In the order of vLLM's own groups. `kFails` rows of flags with a harmless value are followed by
// that value.
const std::vector<Row>& rows() {
  static const std::vector<Row> all = {
      {{"--model", "m"}, kWorks},
      {{"--host", "0.0.0.0"}, kWorks},
      {{"--port", "8000"}, kWorks},
      {{"--uds", "/tmp/s"}, kFails},
      {{"--api-key", "k"}, kWorks},
      {{"--served-model-name", "a", "b"}, kWorks},
      {{"--max-model-len", "32k"}, kWorks},
      {{"--gpu-memory-utilization", "0.92"}, kNoted},
      {{"--kv-cache-memory-bytes", "8G"}, kNoted},
      {{"--max-num-seqs", "256"}, kWorks},
      {{"--max-num-batched-tokens", "8192"}, kWorks},
      {{"--block-size", "16"}, kWorks},
      {{"--enable-prefix-caching"}, kWorks},
      {{"--no-enable-prefix-caching"}, kWorks},
      {{"--prefix-caching-hash-algo", "sha256"}, kNoted},
      {{"--enable-chunked-prefill"}, kNoted},
      {{"--long-prefill-token-threshold", "0"}, kNoted},
      {{"--max-num-partial-prefills", "1"}, kNoted},
      {{"--max-long-partial-prefills", "1"}, kNoted},
      {{"--scheduling-policy", "fcfs"}, kWorks},
      {{"--scheduling-policy", "priority"}, kWorks},
      {{"--async-scheduling"}, kWorks},
      {{"--no-async-scheduling"}, kWorks},
      {{"--stream-interval", "1"}, kNoted},
      {{"--enforce-eager"}, kNoted},
      {{"--max-cudagraph-capture-size", "512"}, kNoted},
      {{"--cudagraph-capture-sizes", "1", "2", "4"}, kNoted},
      {{"--compilation-config", "{\"mode\":3}"}, kNoted},
      {{"-cc", "{\"mode\":3}"}, kNoted},
      {{"-cc.mode=3"}, kNoted},
      {{"--kv-cache-dtype", "auto"}, kWorks},
      {{"--kv-cache-dtype", "bfloat16"}, kWorks},
      {{"--kv-cache-dtype", "fp8"}, kFails},
      {{"--kv-cache-dtype-skip-layers", "sliding_window"}, kNoted},
      {{"--disable-hybrid-kv-cache-manager"}, kNoted},
      {{"--cpu-offload-gb", "8"}, kNoted},
      {{"--cpu-offload-params", "experts"}, kNoted},
      {{"--offload-backend", "auto"}, kNoted},
      {{"--offload-group-size", "0"}, kNoted},
      {{"--offload-num-in-group", "1"}, kNoted},
      {{"--offload-prefetch-step", "1"}, kNoted},
      {{"--swap-space", "4"}, kWorks},
      {{"--kv-offloading-size", "4"}, kWorks},
      {{"--kv-offloading-backend", "native"}, kNoted},
      {{"--rebuild-on-vram", "95:30"}, kNoted},
      {{"--tensor-parallel-size", "1"}, kWorks},
      {{"--tensor-parallel-size", "2"}, kFails},
      {{"-tp", "2"}, kFails},
      {{"--pipeline-parallel-size", "1"}, kWorks},
      {{"-pp", "2"}, kFails},
      {{"--data-parallel-size", "1"}, kWorks},
      {{"-dp=2"}, kFails},
      {{"--enable-expert-parallel"}, kFails},
      {{"--distributed-executor-backend", "mp"}, kNoted},
      {{"--disable-custom-all-reduce"}, kNoted},
      {{"--speculative-config", "{\"method\":\"ngram\"}"}, kFails},
      {{"-sc", "{\"method\":\"ngram\"}"}, kFails},
      {{"--speculative-config.method=ngram"}, kFails},
      {{"--quantization", "mxfp4"}, kWorks},
      {{"-q", "awq"}, kFails},
      {{"--dtype", "auto"}, kNoted},
      {{"--load-format", "dummy"}, kWorks},
      {{"--trust-remote-code"}, kNoted},
      {{"--revision", "main"}, kWorks},
      {{"--tokenizer", "t"}, kWorks},
      {{"--download-dir", "d"}, kWorks},
      {{"--seed", "0"}, kWorks},
      {{"--hf-overrides", "{}"}, kWorks},
      {{"--hf-overrides", "{\"sliding_window\":1}"}, kFails},
      {{"--tool-call-parser", "openai"}, kNoted},
      {{"--enable-auto-tool-choice"}, kNoted},
      {{"--reasoning-parser", "openai_gptoss"}, kNoted},
      {{"--tool-server", "demo"}, kFails},
      {{"--tool-parser-plugin", "p.py"}, kFails},
      {{"--tool-parser-plugin="}, kFails},
      {{"--structured-outputs-config", "{\"backend\":\"auto\"}"}, kNoted},
      {{"--structured-outputs-config.backend=auto"}, kNoted},
      {{"--chat-template", "t.jinja"}, kNoted},
      {{"--chat-template-content-format", "auto"}, kNoted},
      {{"--trust-request-chat-template"}, kNoted},
      {{"--default-chat-template-kwargs", "{}"}, kWorks},
      {{"--default-chat-template-kwargs", "{\"reasoning_effort\":\"low\"}"}, kFails},
      {{"--response-role", "assistant"}, kWorks},
      {{"--response-role", "model"}, kFails},
      {{"--generation-config", "auto"}, kWorks},
      {{"--generation-config", "vllm"}, kWorks},
      {{"--override-generation-config", "{\"temperature\":0.7}"}, kWorks},
      {{"--max-logprobs", "20"}, kWorks},
      {{"--logprobs-mode", "raw_logprobs"}, kNoted},
      {{"--enable-log-requests"}, kNoted},
      {{"--disable-log-requests"}, kNoted},
      {{"--enable-log-outputs"}, kNoted},
      {{"--max-log-len", "100"}, kNoted},
      {{"--disable-log-stats"}, kNoted},
      {{"--disable-uvicorn-access-log"}, kNoted},
      {{"--disable-access-log-for-endpoints", "/health"}, kNoted},
      {{"--uvicorn-log-level", "info"}, kNoted},
      {{"--enable-prompt-tokens-details"}, kNoted},
      {{"--enable-force-include-usage"}, kNoted},
      {{"--enable-per-request-metrics"}, kNoted},
      {{"--enable-request-id-headers"}, kNoted},
      {{"--enable-server-load-tracking"}, kNoted},
      {{"--enable-tokenizer-info-endpoint"}, kNoted},
      {{"--allow-credentials"}, kNoted},
      {{"--allowed-origins", "[\"*\"]"}, kWorks},
      {{"--allowed-methods", "[\"*\"]"}, kNoted},
      {{"--allowed-headers", "[\"*\"]"}, kNoted},
      {{"--root-path", "/llm"}, kFails},
      {{"--middleware", "m.M"}, kFails},
      {{"--disable-fastapi-docs"}, kNoted},
      {{"--ssl-keyfile", "k.pem"}, kFails},
      {{"--ssl-certfile", "c.pem"}, kFails},
      {{"--ssl-ca-certs", "c.pem"}, kFails},
      {{"--ssl-cert-reqs", "0"}, kWorks},
      {{"--ssl-cert-reqs", "2"}, kFails},
      {{"--ssl-ciphers", "x"}, kFails},
      {{"--enable-ssl-refresh"}, kFails},
      {{"--h11-max-incomplete-event-size", "4194304"}, kWorks},
      {{"--h11-max-header-count", "256"}, kNoted},
      {{"--api-server-count", "1"}, kNoted},
      {{"--data-parallel-size-local", "1"}, kNoted},
      {{"--data-parallel-rank", "0"}, kNoted},
      {{"--data-parallel-start-rank", "0"}, kNoted},
      {{"--data-parallel-address", "a"}, kNoted},
      {{"--data-parallel-rpc-port", "1"}, kNoted},
      {{"--data-parallel-backend", "mp"}, kNoted},
      {{"--data-parallel-hybrid-lb"}, kNoted},
      {{"--data-parallel-external-lb"}, kNoted},
      {{"--enable-lora"}, kFails},
      {{"--max-loras", "1"}, kNoted},
      {{"--max-lora-rank", "16"}, kNoted},
      {{"--lora-modules", "a=b"}, kFails},
      {{"--enable-sleep-mode"}, kWorks},
      {{"--fingerprint-mode", "full"}, kNoted},
      {{"--fingerprint-value", "x"}, kWorks},
      {{"--step-deadline", "60"}, kWorks},
      {{"--idle-unload", "600"}, kWorks},
      {{"--max-num-queued-reqs", "100"}, kWorks},
      {{"--max-num-queued-tokens", "100000"}, kWorks},
      {{"--config", "c.yaml"}, kFails},
  };
  return all;
}

std::string shown(const Row& row) {
  std::string text;
  for (const std::string& argument : row.arguments) text += argument + " ";
  return text;
}

ParsedCommandLine parse_row(const Row& row, const std::string& command = "serve") {
  std::vector<std::string> arguments = {command};
  arguments.insert(arguments.end(), row.arguments.begin(), row.arguments.end());
  return parse_command_line(arguments, Environment{});
}

// "--no-x" and "-tp.y=1" -> the table's row.
std::string table_name(const std::string& argument) {
  std::string name = canonical_argument(argument);
  name = name.substr(0, name.find('='));
  if (name.starts_with("--no-")) name = "--" + name.substr(5);
  return name;
}

class VllmFlag : public testing::TestWithParam<Row> {};

TEST_P(VllmFlag, HasItsDocumentedEffect) {
  const Row& row = GetParam();
  const std::string name = table_name(row.arguments.front());
  const FlagSpec* spec = find_flag(name, Command::kServe);
  ASSERT_NE(spec, nullptr) << name;
  EXPECT_NE(find_flag(name, Command::kPlan), nullptr) << "plan must take what serve takes";
  if (row.expected == kFails) {
    try {
      parse_row(row);
      FAIL() << shown(row) << "was accepted";
    } catch (const StartupError& error) {
      EXPECT_EQ(error.exit_code(), kExitUsage);
      EXPECT_THAT(error.what(), HasSubstr(name));
      EXPECT_FALSE(error.hint().empty());
    }
    return;
  }
  Row written = row;
  if (spec->effect == FlagEffect::kCard)
    written.arguments.insert(written.arguments.end(), {"--backend", "cpu"});
  const auto parsed = parse_row(written);
  if (row.expected == kWorks) {
    EXPECT_THAT(parsed.notes, IsEmpty());
    EXPECT_NE(spec->effect, FlagEffect::kInert);
  } else {
    ASSERT_EQ(parsed.notes.size(), 1U);
    const std::string reason =
        spec->effect == FlagEffect::kCard ? "the model computes on the CPU" : spec->text;
    EXPECT_EQ(parsed.notes[0], name + " has no effect because " + reason);
  }
}

INSTANTIATE_TEST_SUITE_P(Table, VllmFlag, testing::ValuesIn(rows()), [](const auto& test) {
  std::string name = table_name(test.param.arguments.front()).substr(2);
  std::replace(name.begin(), name.end(), '-', '_');
  return name + "_" + std::to_string(test.index);
});

TEST(FlagTable, EveryInertAndRefusedRowIsWalkedAbove) {
  std::set<std::string> walked;
  for (const Row& row : rows()) walked.insert(table_name(row.arguments.front()));
  for (const auto part : {inert_flags(), refused_flags()})
    for (const FlagSpec& spec : part) EXPECT_TRUE(walked.contains(spec.name)) << spec.name;
}

TEST(FlagTable, RowsAreSound) {
  for (const Command command :
       {Command::kServe, Command::kChat, Command::kBench, Command::kPlan, Command::kBenchServe}) {
    std::set<std::string> names;
    for (const FlagSpec* spec : flags_of(command)) {
      EXPECT_TRUE(names.insert(spec->name).second) << spec->name << " is twice in one command";
      EXPECT_GT(std::string(spec->text).size(), 5U) << spec->name;
      EXPECT_TRUE(spec->effect != FlagEffect::kHonoured || spec->apply != nullptr) << spec->name;
      EXPECT_TRUE(spec->effect == FlagEffect::kRefused || *spec->quiet == '\0') << spec->name;
    }
  }
}

TEST(FlagTable, DocumentationListsEveryFlag) {
  std::ifstream in(STRATA_SOURCE_DIR "/docs/cli.md");
  ASSERT_TRUE(in) << "docs/cli.md";
  const std::string page((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  for (const auto part : {honoured_flags(), inert_flags(), refused_flags()})
    for (const FlagSpec& spec : part)
      EXPECT_THAT(page, HasSubstr("`" + std::string(spec.name))) << spec.name;
  // `bench serve` has a table of its own: some of its names mean something else there.
  const std::string begin = "## Flags of bench serve";
  ASSERT_THAT(page, HasSubstr(begin));
  std::string table = page.substr(page.find(begin) + begin.size());
  table = table.substr(0, table.find("\n## "));
  for (const FlagSpec& spec : load_flags()) {
    std::string text = spec.text;
    for (std::size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2)
      text.insert(at, "\\");
    EXPECT_THAT(table, HasSubstr("| `" + std::string(spec.name) + "` | " + text + " |"));
  }
}

}  // namespace
}  // namespace strata::app
