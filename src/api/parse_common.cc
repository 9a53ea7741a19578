#include "api/parse_common.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

namespace strata::api {
namespace {

constexpr std::int64_t kMaxInt32 = INT32_MAX;

void parse_logit_bias(Fields& fields, std::int32_t vocab, SamplingFields& out) {
  const Json* bias = fields.object("logit_bias");
  if (bias == nullptr) return;
  if (bias->size() > kMaxLogitBias)
    return fields.fail("logit_bias", fmt::format("must not have more than {} entries, not {}",
                                                 kMaxLogitBias, bias->size()));
  for (const auto& [key, value] : bias->get_ref<const Json::object_t&>()) {
    TokenId id = kNoToken;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc{} || end != key.data() + key.size() || id < 0 || id >= vocab)
      return fields.fail("logit_bias",
                         fmt::format("must map token ids from 0 to {} to numbers", vocab - 1));
    const double number = value.is_number() ? value.get<double>() : 1e9;
    if (!(number >= -100.0 && number <= 100.0))
      return fields.fail("logit_bias", "must map token ids to numbers between -100 and 100");
    out.logit_bias.emplace_back(id, static_cast<float>(number));
  }
}

void add_stop(Fields& fields, const Json& value, SamplingFields& out) {
  if (!value.is_string()) return fields.fail("stop", "must be a string or an array of strings");
  const auto& text = value.get_ref<const std::string&>();
  if (text.size() > kMaxStopBytes)
    return fields.fail("stop",
                       fmt::format("must not hold strings longer than {} bytes", kMaxStopBytes));
  if (!text.empty()) out.stop.push_back(text);
}

void parse_stop(Fields& fields, SamplingFields& out) {
  const Json* stop = fields.find("stop");
  if (stop == nullptr) return;
  if (!stop->is_array()) return add_stop(fields, *stop, out);
  if (stop->size() > kMaxStops)
    return fields.fail("stop", fmt::format("must not have more than {} elements, not {}", kMaxStops,
                                           stop->size()));
  for (const auto& value : *stop) add_stop(fields, value, out);
}

// Any 64-bit integer, signed or not.
void parse_seed(Fields& fields, SamplingFields& out) {
  const Json* seed = fields.find("seed");
  if (seed == nullptr) return;
  if (seed->is_number_unsigned()) {
    out.seed = seed->get<std::uint64_t>();
  } else if (const auto value = fields.integer("seed", INT64_MIN, INT64_MAX)) {
    out.seed = static_cast<std::uint64_t>(*value);
  }
}

bool is_set(const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_array() || value.is_object() || value.is_string()) return !value.empty();
  return true;
}

}  // namespace

SamplingFields parse_sampling(Fields& fields, const RequestLimits& limits) {
  SamplingFields out;
  out.temperature = fields.number("temperature", 0.0, 2.0);
  out.top_p = fields.number("top_p", 0.0, 1.0);
  out.min_p = fields.number("min_p", 0.0, 1.0);
  if (const auto top_k = fields.integer("top_k", -1, kMaxInt32))
    out.top_k = static_cast<std::int32_t>(std::max<std::int64_t>(*top_k, 0));
  out.repetition_penalty = fields.number("repetition_penalty", 0.01, 10.0);
  out.presence_penalty = fields.number("presence_penalty", -2.0, 2.0).value_or(0.0);
  out.frequency_penalty = fields.number("frequency_penalty", -2.0, 2.0).value_or(0.0);
  parse_logit_bias(fields, limits.vocab, out);
  parse_seed(fields, out);
  parse_stop(fields, out);
  out.min_tokens =
      static_cast<std::int32_t>(fields.integer("min_tokens", 0, kMaxInt32).value_or(0));
  out.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  out.include_stop_text = fields.boolean("include_stop_str_in_output").value_or(false);
  if (const Json* ids = fields.array("stop_token_ids", kMaxStopTokenIds))
    out.stop_token_ids = parse_token_ids(fields, "stop_token_ids", *ids, limits.vocab);
  out.n = static_cast<std::int32_t>(fields.integer("n", 1, kMaxChoices).value_or(1));
  out.priority =
      static_cast<std::int32_t>(fields.integer("priority", -kMaxInt32, kMaxInt32).value_or(0));
  out.cache_salt = fields.text("cache_salt", kMaxCacheSaltBytes).value_or("");
  return out;
}

StreamFields parse_stream(Fields& fields) {
  StreamFields out;
  out.stream = fields.boolean("stream").value_or(false);
  out.resumable = fields.boolean("resumable").value_or(false);
  if (const Json* options = fields.object("stream_options")) {
    std::optional<Error> error;
    Fields inner(*options, fields.path_of("stream_options"), error);
    out.include_usage = inner.boolean("include_usage").value_or(false);
    out.continuous_usage = inner.boolean("continuous_usage_stats").value_or(false);
    out.include_progress = inner.boolean("include_progress").value_or(false);
    if (error) fields.fail("stream_options", "must hold only true or false values");
  }
  return out;
}

std::optional<std::int32_t> parse_max_tokens(Fields& fields, std::int64_t min) {
  for (const char* name : {"max_completion_tokens", "max_tokens"}) {
    const auto value = fields.integer(name, -1, kMaxInt32);
    if (!value || *value == -1) continue;
    if (*value < min) {
      fields.fail(name, fmt::format("must be at least {}, not {}", min, *value));
      return std::nullopt;
    }
    return static_cast<std::int32_t>(*value);
  }
  return std::nullopt;
}

void refuse_unsupported(Fields& fields) {
  constexpr const char* kUnsupported[] = {
      "structured_outputs", "guided_json",     "guided_regex",           "guided_choice",
      "guided_grammar",     "grammar",         "use_beam_search",        "bad_words",
      "allowed_token_ids",  "prompt_logprobs", "truncate_prompt_tokens", "chat_template",
      "documents",          "audio",           "kv_transfer_params",     "logprob_token_ids"};
  for (const char* name : kUnsupported) {
    const Json* value = fields.find(name);
    if (value != nullptr && is_set(*value))
      fields.fail(name, "is not supported by this server", "unsupported_parameter");
  }
  if (const Json* modalities = fields.array("modalities", 16))
    for (const auto& one : *modalities)
      if (one != "text")
        fields.fail("modalities", "may only hold \"text\": this model is text only",
                    "unsupported_parameter");
  if (const auto best_of = fields.integer("best_of", 0, kMaxChoices)) {
    const auto n = fields.integer("n", 1, kMaxChoices).value_or(1);
    if (*best_of > n)
      fields.fail("best_of", "must not be greater than n: ranking of answers is not supported",
                  "unsupported_parameter");
  }
}

std::vector<TokenId> parse_token_ids(Fields& fields, std::string_view name, const Json& array,
                                     std::int32_t vocab) {
  std::vector<TokenId> out;
  out.reserve(array.size());
  for (const auto& value : array) {
    if (!value.is_number_integer() || value.get<std::int64_t>() < 0 ||
        value.get<std::int64_t>() >= vocab) {
      fields.fail(name, fmt::format("must hold token ids from 0 to {}", vocab - 1));
      return {};
    }
    out.push_back(static_cast<TokenId>(value.get<std::int64_t>()));
  }
  return out;
}

}  // namespace strata::api
