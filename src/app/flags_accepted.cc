// Flags of vLLM that have no effect here, or that ask for what Strata cannot do.
#include <fmt/core.h>

#include "app/flag_values.h"
#include "app/flags.h"

namespace strata::app {
namespace {

using enum FlagKind;
constexpr FlagEffect kInert = FlagEffect::kInert;
constexpr FlagEffect kRefused = FlagEffect::kRefused;

constexpr const char* kNoCard = "all experts stay where the model computes";
constexpr const char* kNoGraphs =
    "a card records the usual shapes of steps before it is ready; the CPU records none";
constexpr const char* kOneProcess = "one process with one rank serves the model";
constexpr const char* kNoTls =
    "Strata does not speak TLS: use a reverse proxy such as nginx in front of it";
constexpr const char* kNoLora = "LoRA adapters are not supported: merge them into the checkpoint";
constexpr const char* kOneRank = "only one rank exists so far: leave it at 1";
constexpr const char* kHarmony = "the harmony format of gpt-oss is built in";
constexpr const char* kAlwaysParsed = "tool calls and reasoning of harmony are always parsed";
constexpr const char* kNoTexts = "the log never holds prompts or answers";
constexpr const char* kFixedCors =
    "methods and headers of the API are always allowed to the allowed origins";

void check_count(Options& /*options*/, const FlagUse& use) {
  parse_integer(use.spec.name, use.value(), 0, std::int64_t{1} << 60);
}
void check_gibibytes(Options& /*options*/, const FlagUse& use) {
  parse_bytes(use.spec.name, use.value(), std::int64_t{1} << 30);
}
void check_bytes(Options& /*options*/, const FlagUse& use) {
  parse_bytes(use.spec.name, use.value(), 1);
}

// Every use of these prints one line: NAME has no effect because REASON.
const FlagSpec kInertFlags[] = {
    // Memory of a card.
    {"--kv-cache-memory-bytes", kValue, kInert, kEvery, "",
     "the KV pool follows from --max-model-len and --max-num-seqs", "", check_bytes},
    {"--cpu-offload-gb", kValue, kInert, kEvery, "", kNoCard, "", check_gibibytes},
    {"--cpu-offload-params", kList, kInert, kEvery, "", kNoCard},
    {"--offload-backend", kValue, kInert, kEvery, "", kNoCard},
    {"--offload-group-size", kValue, kInert, kEvery, "", kNoCard, "", check_count},
    {"--offload-num-in-group", kValue, kInert, kEvery, "", kNoCard, "", check_count},
    {"--offload-prefetch-step", kValue, kInert, kEvery, "", kNoCard, "", check_count},
    {"--kv-offloading-backend", kValue, kInert, kEvery, "",
     "swapped KV pages are always kept by the program itself"},
    {"--kv-cache-dtype-skip-layers", kList, kInert, kEvery, "",
     "all layers keep keys and values in one type, and none is quantised"},
    {"--disable-hybrid-kv-cache-manager", kSwitch, kInert, kEvery, "",
     "sliding-window layers always have pages of their own"},
    // Graphs.
    {"--max-cudagraph-capture-size", kValue, kInert, kEvery, "", kNoGraphs, "", check_count},
    {"--cudagraph-capture-sizes", kList, kInert, kEvery, "", kNoGraphs},
    {"--compilation-config", kValue, kInert, kEvery, "", kNoGraphs},
    // Scheduling.
    {"--prefix-caching-hash-algo", kValue, kInert, kEvery, "",
     "the prefix cache uses its own hash and compares tokens"},
    {"--enable-chunked-prefill", kSwitch, kInert, kEvery, "",
     "prompts are always computed in pieces of at most --max-num-batched-tokens"},
    {"--long-prefill-token-threshold", kValue, kInert, kEvery, "",
     "running answers always come before prompt pieces", "", check_count},
    {"--max-num-partial-prefills", kValue, kInert, kEvery, "",
     "prompt pieces fill whatever a step has left", "", check_count},
    {"--max-long-partial-prefills", kValue, kInert, kEvery, "",
     "prompt pieces fill whatever a step has left", "", check_count},
    {"--stream-interval", kValue, kInert, kServing, "",
     "every token is sent as soon as it is known", "", check_count},
    {"--distributed-executor-backend", kValue, kInert, kEvery, "", kOneProcess},
    {"--disable-custom-all-reduce", kSwitch, kInert, kEvery, "", kOneProcess},
    {"--api-server-count", kValue, kInert, kServing, "", kOneProcess, "", check_count},
    {"--data-parallel-size-local", kValue, kInert, kEvery, "", kOneProcess, "", check_count},
    {"--data-parallel-rank", kValue, kInert, kEvery, "", kOneProcess, "", check_count},
    {"--data-parallel-start-rank", kValue, kInert, kEvery, "", kOneProcess, "", check_count},
    {"--data-parallel-address", kValue, kInert, kEvery, "", kOneProcess},
    {"--data-parallel-rpc-port", kValue, kInert, kEvery, "", kOneProcess, "", check_count},
    {"--data-parallel-backend", kValue, kInert, kEvery, "", kOneProcess},
    {"--data-parallel-hybrid-lb", kSwitch, kInert, kEvery, "", kOneProcess},
    {"--data-parallel-external-lb", kSwitch, kInert, kEvery, "", kOneProcess},
    // Model.
    {"--dtype", kValue, kInert, kEvery, "",
     "the CPU computes in float32 from the checkpoint's own types"},
    {"--trust-remote-code", kSwitch, kInert, kEvery, "",
     "no code is ever run from a model directory"},
    {"--logprobs-mode", kValue, kInert, kServing, "",
     "log-probabilities are always those before temperature and penalties"},
    // Tools, reasoning, templates.
    {"--tool-call-parser", kValue, kInert, kServing, "", kAlwaysParsed},
    {"--enable-auto-tool-choice", kSwitch, kInert, kServing, "", kAlwaysParsed},
    {"--reasoning-parser", kValue, kInert, kServing, "", kAlwaysParsed},
    {"--structured-outputs-config", kValue, kInert, kServing, "",
     "response formats have no settings"},
    {"--chat-template", kValue, kInert, kServing, "", kHarmony},
    {"--chat-template-content-format", kValue, kInert, kServing, "", kHarmony},
    {"--trust-request-chat-template", kSwitch, kInert, kServing, "", kHarmony},
    // Logs and answers.
    {"--enable-log-requests", kSwitch, kInert, kServing, "", kNoTexts},
    {"--enable-log-outputs", kSwitch, kInert, kServing, "", kNoTexts},
    {"--max-log-len", kValue, kInert, kServing, "", kNoTexts, "", check_count},
    {"--disable-log-stats", kSwitch, kInert, kServing, "",
     "figures are on /metrics, not in the log"},
    {"--disable-uvicorn-access-log", kSwitch, kInert, kServing, "", "there is no access log"},
    {"--disable-access-log-for-endpoints", kList, kInert, kServing, "", "there is no access log"},
    {"--uvicorn-log-level", kValue, kInert, kServing, "", "--log-level sets it"},
    {"--enable-prompt-tokens-details", kSwitch, kInert, kServing, "",
     "usage always tells cached prompt tokens"},
    {"--enable-force-include-usage", kSwitch, kInert, kServing, "",
     "streams carry usage when stream_options.include_usage asks"},
    {"--enable-per-request-metrics", kSwitch, kInert, kServing, "",
     "/metrics holds histograms over all requests"},
    {"--enable-request-id-headers", kSwitch, kInert, kServing, "",
     "every answer carries X-Request-Id"},
    {"--enable-server-load-tracking", kSwitch, kInert, kServing, "",
     "the load is always on /metrics"},
    {"--enable-tokenizer-info-endpoint", kSwitch, kInert, kServing, "",
     "/tokenize and /detokenize are always there"},
    {"--fingerprint-mode", kValue, kInert, kServing, "",
     "answers carry the program's version, or --fingerprint-value, as system_fingerprint"},
    // HTTP.
    {"--allow-credentials", kSwitch, kInert, kServing, "",
     "keys travel in headers; cookies are not used"},
    {"--allowed-methods", kValue, kInert, kServing, "", kFixedCors},
    {"--allowed-headers", kValue, kInert, kServing, "", kFixedCors},
    {"--disable-fastapi-docs", kSwitch, kInert, kServing, "", "there are no generated API pages"},
    {"--h11-max-header-count", kValue, kInert, kServing, "",
     "request heads are limited by size, not by count", "", check_count},
    {"--max-loras", kValue, kInert, kEvery, "", "LoRA adapters are not supported", "", check_count},
    {"--max-lora-rank", kValue, kInert, kEvery, "", "LoRA adapters are not supported", "",
     check_count},
};

const FlagSpec kRefusedFlags[] = {
    {"--tensor-parallel-size", kValue, kRefused, kEvery, "", kOneRank, "1", check_count},
    {"--pipeline-parallel-size", kValue, kRefused, kEvery, "", kOneRank, "1", check_count},
    {"--data-parallel-size", kValue, kRefused, kEvery, "",
     "one process serves one copy of the model: start several behind a load balancer", "1",
     check_count},
    {"--enable-expert-parallel", kSwitch, kRefused, kEvery, "", kOneRank, "false"},
    {"--speculative-config", kValue, kRefused, kEvery, "", "speculative decoding is not built yet",
     "{}|null"},
    {"--quantization", kValue, kRefused, kEvery, "",
     "weights are served as they are in the checkpoint", "mxfp4|gpt_oss_mxfp4|none|None"},
    {"--hf-overrides", kValue, kRefused, kEvery, "", "edit the model's config.json instead", "{}"},
    {"--default-chat-template-kwargs", kValue, kRefused, kServing, "",
     "send reasoning_effort with each request", "{}"},
    {"--tool-server", kValue, kRefused, kServing, "", "built-in tools are not supported", ""},
    {"--tool-parser-plugin", kValue, kRefused, kServing, "",
     "Python plug-ins cannot be loaded; tool calls of harmony are always parsed", ""},
    {"--response-role", kValue, kRefused, kServing, "", "answers have the role assistant",
     "assistant"},
    {"--root-path", kValue, kRefused, kServing, "",
     "let the reverse proxy strip the prefix before it passes requests on", "/"},
    {"--middleware", kValue, kRefused, kServing, "", "Python middleware cannot be loaded", "[]"},
    {"--uds", kValue, kRefused, kServing, "", "only TCP is served: use --host 127.0.0.1 and --port",
     ""},
    {"--ssl-keyfile", kValue, kRefused, kServing, "", kNoTls, ""},
    {"--ssl-certfile", kValue, kRefused, kServing, "", kNoTls, ""},
    {"--ssl-ca-certs", kValue, kRefused, kServing, "", kNoTls, ""},
    {"--ssl-cert-reqs", kValue, kRefused, kServing, "", kNoTls, "0"},
    {"--ssl-ciphers", kValue, kRefused, kServing, "", kNoTls, ""},
    {"--enable-ssl-refresh", kSwitch, kRefused, kServing, "", kNoTls, "false"},
    {"--enable-lora", kSwitch, kRefused, kEvery, "", kNoLora, "false"},
    {"--lora-modules", kList, kRefused, kServing, "", kNoLora, ""},
    {"--config", kValue, kRefused, kEvery, "",
     "configuration files are not read: give flags on the command line", ""},
};

}  // namespace

std::span<const FlagSpec> inert_flags() { return kInertFlags; }
std::span<const FlagSpec> refused_flags() { return kRefusedFlags; }

}  // namespace strata::app
