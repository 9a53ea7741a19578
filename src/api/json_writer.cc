#include "api/json_writer.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

#include "base/json.h"

namespace strata::api {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";
// JSON has no infinity; OpenAI writes this for impossible tokens.
constexpr double kLowestLogprob = -9999.0;

void append_logprob(std::string& out, float value) {
  append_number(out, std::isfinite(value) ? static_cast<double>(value) : kLowestLogprob);
}

void append_bytes(std::string& out, std::string_view bytes) {
  out += '[';
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i > 0) out += ',';
    append_integer(out, static_cast<unsigned char>(bytes[i]));
  }
  out += ']';
}

void append_token_head(std::string& out, std::string_view bytes, float logprob) {
  out += R"({"token":)";
  append_token_text(out, bytes);
  out += R"(,"logprob":)";
  append_logprob(out, logprob);
  out += R"(,"bytes":)";
  append_bytes(out, bytes);
}

void append_milliseconds(std::string& out, std::string_view key, double value) {
  append_key(out, key);
  if (value < 0) {
    out += "null";
  } else {
    append_number(out, std::round(value * 1000.0) / 1000.0);
  }
}

}  // namespace

void append_key(std::string& out, std::string_view key) {
  append_json_string(out, key);
  out += ':';
}

void append_integer(std::string& out, std::int64_t value) {
  fmt::format_to(std::back_inserter(out), "{}", value);
}

void append_number(std::string& out, double value) {
  if (std::isfinite(value)) {
    fmt::format_to(std::back_inserter(out), "{}", value);
  } else {
    out += "null";
  }
}

void append_ids(std::string& out, const std::vector<TokenId>& ids) {
  out += '[';
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) out += ',';
    append_integer(out, ids[i]);
  }
  out += ']';
}

void append_token_text(std::string& out, std::string_view bytes) {
  const auto start = out.size();
  append_json_string(out, bytes);
  const bool replaced = out.find(kReplacement, start) != std::string::npos;
  if (!replaced || bytes.find(kReplacement) != std::string_view::npos) return;
  out.resize(start);
  out += "\"bytes:";
  for (const char c : bytes)
    fmt::format_to(std::back_inserter(out), "\\\\x{:02x}", static_cast<unsigned char>(c));
  out += '"';
}

void append_usage(std::string& out, const Usage& usage) {
  fmt::format_to(std::back_inserter(out),
                 R"({{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},)"
                 R"("prompt_tokens_details":{{"cached_tokens":{}}},)"
                 R"("completion_tokens_details":{{"reasoning_tokens":{}}}}})",
                 usage.prompt_tokens, usage.completion_tokens,
                 usage.prompt_tokens + usage.completion_tokens, usage.cached_tokens,
                 usage.reasoning_tokens);
}

void append_timings(std::string& out, const Timings& timings) {
  out += '{';
  append_milliseconds(out, "time_to_first_token_ms", timings.time_to_first_token_ms);
  out += ',';
  append_milliseconds(out, "generation_time_ms", timings.generation_time_ms);
  out += ',';
  append_milliseconds(out, "queue_time_ms", timings.queue_time_ms);
  out += ',';
  append_milliseconds(out, "mean_itl_ms", timings.mean_itl_ms);
  out += ',';
  append_milliseconds(out, "tokens_per_second", timings.tokens_per_second);
  out += '}';
}

void append_stop_cause(std::string& out, const StopCause& stop) {
  if (stop.text) {
    append_json_string(out, *stop.text);
  } else if (stop.token) {
    append_integer(out, *stop.token);
  } else {
    out += "null";
  }
}

void append_chat_logprobs(std::string& out, const std::vector<TokenLogprobText>& tokens) {
  out += '[';
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) out += ',';
    append_token_head(out, tokens[i].bytes, tokens[i].logprob);
    out += R"(,"top_logprobs":[)";
    for (std::size_t k = 0; k < tokens[i].top.size(); ++k) {
      if (k > 0) out += ',';
      append_token_head(out, tokens[i].top[k].first, tokens[i].top[k].second);
      out += '}';
    }
    out += "]}";
  }
  out += ']';
}

void append_completion_logprobs(std::string& out, const std::vector<CompletionToken>& tokens) {
  std::string logprobs;
  std::string tops;
  std::string offsets;
  out += R"({"tokens":[)";
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto& [token, has_logprob, offset] = tokens[i];
    for (std::string* part : {&out, &logprobs, &tops, &offsets})
      if (i > 0) *part += ',';
    append_token_text(out, token.bytes);
    append_integer(offsets, offset);
    if (!has_logprob) {
      logprobs += "null";
      tops += "null";
      continue;
    }
    append_logprob(logprobs, token.logprob);
    tops += '{';
    for (std::size_t k = 0; k < token.top.size(); ++k) {
      if (k > 0) tops += ',';
      append_token_text(tops, token.top[k].first);
      tops += ':';
      append_logprob(tops, token.top[k].second);
    }
    tops += '}';
  }
  out += fmt::format(R"(],"token_logprobs":[{}],"top_logprobs":[{}],"text_offset":[{}]}})",
                     logprobs, tops, offsets);
}

}  // namespace strata::api
