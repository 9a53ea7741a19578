#include "api/completion_response.h"

#include "api/json_writer.h"
#include "base/json.h"

namespace strata::api {
namespace {

void append_identity(std::string& out, const AnswerIdentity& identity) {
  out += R"({"id":)";
  append_json_string(out, identity.id);
  out += R"(,"object":"text_completion","created":)";
  append_integer(out, identity.created);
  out += R"(,"model":)";
  append_json_string(out, identity.model);
  out += R"(,"system_fingerprint":)";
  append_json_string(out, identity.fingerprint);
  out += R"(,"choices":[)";
}

void append_choice(std::string& out, const CompletionChoice& choice) {
  out += R"({"index":)";
  append_integer(out, choice.index);
  out += R"(,"text":)";
  append_json_string(out, choice.text);
  out += R"(,"logprobs":)";
  if (choice.logprobs) {
    append_completion_logprobs(out, *choice.logprobs);
  } else {
    out += "null";
  }
  out += R"(,"finish_reason":)";
  if (choice.finish_reason.empty()) {
    out += "null";
  } else {
    append_json_string(out, choice.finish_reason);
  }
  out += R"(,"stop_reason":)";
  append_stop_cause(out, choice.stop);
  if (choice.token_ids) {
    out += R"(,"token_ids":)";
    append_ids(out, *choice.token_ids);
  }
  if (choice.prompt_token_ids) {
    out += R"(,"prompt_token_ids":)";
    append_ids(out, *choice.prompt_token_ids);
  }
  out += '}';
}

}  // namespace

std::string completion_response(const AnswerIdentity& identity,
                                const std::vector<CompletionChoice>& choices, const Usage& usage,
                                const Timings& timings) {
  std::string out;
  append_identity(out, identity);
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (i > 0) out += ',';
    append_choice(out, choices[i]);
  }
  out += R"(],"usage":)";
  append_usage(out, usage);
  out += R"(,"metrics":)";
  append_timings(out, timings);
  out += '}';
  return out;
}

void completion_chunk(std::string& out, const AnswerIdentity& identity,
                      const CompletionChoice& choice, bool announce_usage, const Usage* usage) {
  out += "data: ";
  append_identity(out, identity);
  append_choice(out, choice);
  out += ']';
  if (usage != nullptr) {
    out += R"(,"usage":)";
    append_usage(out, *usage);
  } else if (announce_usage) {
    out += R"(,"usage":null)";
  }
  out += "}\n\n";
}

void completion_usage_chunk(std::string& out, const AnswerIdentity& identity, const Usage& usage,
                            const Timings& timings) {
  out += "data: ";
  append_identity(out, identity);
  out += R"(],"usage":)";
  append_usage(out, usage);
  out += R"(,"metrics":)";
  append_timings(out, timings);
  out += "}\n\n";
}

}  // namespace strata::api
