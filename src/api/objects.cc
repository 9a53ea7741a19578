#include "api/objects.h"

#include "api/json_writer.h"
#include "base/json.h"

namespace strata::api {
namespace {

// OpenAI's `type` and default `code` of an error.
struct ErrorNames {
  std::string_view type;
  std::string_view code;  // empty: null
};

ErrorNames error_names(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidRequest:
    case ErrorCode::kUnsupportedMedia: return {"invalid_request_error", ""};
    case ErrorCode::kContextOverflow: return {"invalid_request_error", "context_length_exceeded"};
    case ErrorCode::kUnauthorized: return {"invalid_request_error", "invalid_api_key"};
    case ErrorCode::kForbidden: return {"permission_error", "forbidden"};
    case ErrorCode::kNotFound: return {"invalid_request_error", "not_found"};
    case ErrorCode::kMethodNotAllowed: return {"invalid_request_error", "method_not_allowed"};
    case ErrorCode::kTimeout: return {"invalid_request_error", "request_timeout"};
    case ErrorCode::kTooLarge: return {"invalid_request_error", "request_too_large"};
    case ErrorCode::kRateLimited: return {"rate_limit_error", "server_busy"};
    case ErrorCode::kContentFilter: return {"invalid_request_error", "content_filter"};
    case ErrorCode::kUnavailable: return {"service_unavailable_error", "unavailable"};
    case ErrorCode::kInsufficientMemory:
      return {"service_unavailable_error", "insufficient_memory"};
    case ErrorCode::kCancelled: return {"invalid_request_error", "cancelled"};
    case ErrorCode::kInternal: break;
  }
  return {"server_error", "internal_error"};
}

void append_text_or_null(std::string& out, std::string_view text) {
  if (text.empty()) {
    out += "null";
  } else {
    append_json_string(out, text);
  }
}

}  // namespace

std::string error_object(const Error& error) {
  const auto names = error_names(error.code);
  std::string out = R"({"error":{"message":)";
  append_json_string(out, error.message);
  out += R"(,"type":)";
  append_json_string(out, names.type);
  out += R"(,"param":)";
  append_text_or_null(out, error.param);
  out += R"(,"code":)";
  append_text_or_null(out, error.detail.empty() ? names.code : std::string_view(error.detail));
  out += "}}";
  return out;
}

std::string model_object(const ModelCard& model) {
  std::string out = R"({"id":)";
  append_json_string(out, model.id);
  out += R"(,"object":"model","created":)";
  append_integer(out, model.created);
  out += R"(,"owned_by":"strata","root":)";
  append_json_string(out, model.id);
  out += R"(,"parent":null,"max_model_len":)";
  append_integer(out, model.max_model_len);
  out += R"(,"context_length":)";
  append_integer(out, model.max_model_len);
  out += '}';
  return out;
}

std::string model_list(const std::vector<ModelCard>& models) {
  std::string out = R"({"object":"list","data":[)";
  for (std::size_t i = 0; i < models.size(); ++i) {
    if (i > 0) out += ',';
    out += model_object(models[i]);
  }
  out += "]}";
  return out;
}

std::string token_list(const std::vector<TokenId>& tokens, std::int32_t max_model_len,
                       const std::vector<std::string_view>* texts) {
  std::string out = R"({"tokens":)";
  append_ids(out, tokens);
  out += R"(,"count":)";
  append_integer(out, static_cast<std::int64_t>(tokens.size()));
  out += R"(,"max_model_len":)";
  append_integer(out, max_model_len);
  if (texts != nullptr) {
    out += R"(,"token_strs":[)";
    for (std::size_t i = 0; i < texts->size(); ++i) {
      if (i > 0) out += ',';
      append_token_text(out, (*texts)[i]);
    }
    out += ']';
  }
  out += '}';
  return out;
}

std::string text_object(std::string_view key, std::string_view text) {
  std::string out = "{";
  append_key(out, key);
  append_json_string(out, text);
  out += '}';
  return out;
}

std::string template_object(std::string_view prompt, const std::vector<TokenId>& tokens) {
  std::string out = R"({"prompt":)";
  append_json_string(out, prompt);
  out += R"(,"tokens":)";
  append_ids(out, tokens);
  out += '}';
  return out;
}

}  // namespace strata::api
