#include "api/chat_response.h"

#include "api/json_writer.h"
#include "base/json.h"

namespace strata::api {
namespace {

// Both names: clients read one or the other.
void append_reasoning(std::string& out, std::string_view text) {
  for (const char* key : {"reasoning", "reasoning_content"}) {
    out += ',';
    append_key(out, key);
    append_json_string(out, text);
  }
}

void append_identity(std::string& out, const AnswerIdentity& identity, std::string_view object) {
  out += R"({"id":)";
  append_json_string(out, identity.id);
  out += R"(,"object":)";
  append_json_string(out, object);
  out += R"(,"created":)";
  append_integer(out, identity.created);
  out += R"(,"model":)";
  append_json_string(out, identity.model);
  out += R"(,"system_fingerprint":)";
  append_json_string(out, identity.fingerprint);
  out += R"(,"choices":[)";
}

void append_tool_call(std::string& out, const FinishedToolCall& call) {
  out += R"("id":)";
  append_json_string(out, call.id);
  out += R"(,"type":"function","function":{"name":)";
  append_json_string(out, call.name);
  out += R"(,"arguments":)";
  append_json_string(out, call.arguments);
  out += "}}";
}

void append_message(std::string& out, const ChatChoice& choice) {
  out += R"({"role":"assistant","content":)";
  if (choice.content) {
    append_json_string(out, *choice.content);
  } else {
    out += "null";
  }
  out += R"(,"refusal":null)";
  if (!choice.reasoning.empty()) append_reasoning(out, choice.reasoning);
  if (!choice.tool_calls.empty()) {
    out += R"(,"tool_calls":[)";
    for (std::size_t i = 0; i < choice.tool_calls.size(); ++i) {
      out += i > 0 ? ",{" : "{";
      append_tool_call(out, choice.tool_calls[i]);
    }
    out += ']';
  }
  out += '}';
}

void append_choice(std::string& out, const ChatChoice& choice) {
  out += R"({"index":)";
  append_integer(out, choice.index);
  out += R"(,"message":)";
  append_message(out, choice);
  out += R"(,"logprobs":)";
  if (choice.logprobs) {
    out += R"({"content":)";
    append_chat_logprobs(out, *choice.logprobs);
    out += R"(,"refusal":null})";
  } else {
    out += "null";
  }
  out += R"(,"finish_reason":)";
  append_json_string(out, choice.finish_reason);
  out += R"(,"stop_reason":)";
  append_stop_cause(out, choice.stop);
  if (choice.token_ids) {
    out += R"(,"token_ids":)";
    append_ids(out, *choice.token_ids);
  }
  out += '}';
}

}  // namespace

std::string chat_response(const AnswerIdentity& identity, const std::vector<ChatChoice>& choices,
                          const Usage& usage, const Timings& timings) {
  std::string out;
  append_identity(out, identity, "chat.completion");
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

ChatChunkWriter::ChatChunkWriter(const AnswerIdentity& identity, bool announce_usage)
    : prefix_("data: "), announce_usage_(announce_usage) {
  append_identity(prefix_, identity, "chat.completion.chunk");
}

void ChatChunkWriter::open(std::string& out, std::int32_t index) const {
  out += prefix_;
  out += R"({"index":)";
  append_integer(out, index);
  out += R"(,"delta":{)";
}

// After the members of the delta and its brace: the rest of the choice and the event.
void ChatChunkWriter::close(std::string& out, std::string_view finish_reason) const {
  out += R"(,"finish_reason":)";
  if (finish_reason.empty()) {
    out += "null}]";
  } else {
    append_json_string(out, finish_reason);
  }
}

void ChatChunkWriter::close_event(std::string& out) const {
  if (running_usage_) {
    out += R"(,"usage":)";
    append_usage(out, *running_usage_);
  } else if (announce_usage_) {
    out += R"(,"usage":null)";
  }
  out += "}\n\n";
}

void ChatChunkWriter::role(std::string& out, std::int32_t index) const {
  open(out, index);
  out += R"("role":"assistant","content":""},"logprobs":null)";
  close(out, {});
  close_event(out);
}

void ChatChunkWriter::content(std::string& out, std::int32_t index, std::string_view text,
                              const std::vector<TokenLogprobText>* logprobs) const {
  open(out, index);
  out += R"("content":)";
  append_json_string(out, text);
  out += R"(},"logprobs":)";
  if (logprobs != nullptr) {
    out += R"({"content":)";
    append_chat_logprobs(out, *logprobs);
    out += R"(,"refusal":null})";
  } else {
    out += "null";
  }
  close(out, {});
  close_event(out);
}

void ChatChunkWriter::reasoning(std::string& out, std::int32_t index, std::string_view text) const {
  open(out, index);
  out += R"("reasoning":)";
  append_json_string(out, text);
  out += R"(,"reasoning_content":)";
  append_json_string(out, text);
  out += R"(},"logprobs":null)";
  close(out, {});
  close_event(out);
}

void ChatChunkWriter::tool_start(std::string& out, std::int32_t index, std::int32_t call,
                                 const FinishedToolCall& head) const {
  open(out, index);
  out += R"("tool_calls":[{"index":)";
  append_integer(out, call);
  out += ',';
  append_tool_call(out, head);
  out += R"(]},"logprobs":null)";
  close(out, {});
  close_event(out);
}

void ChatChunkWriter::tool_arguments(std::string& out, std::int32_t index, std::int32_t call,
                                     std::string_view text) const {
  open(out, index);
  out += R"("tool_calls":[{"index":)";
  append_integer(out, call);
  out += R"(,"function":{"arguments":)";
  append_json_string(out, text);
  out += R"(}}]},"logprobs":null)";
  close(out, {});
  close_event(out);
}

void ChatChunkWriter::finish(std::string& out, std::int32_t index, const Finish& finish) const {
  open(out, index);
  out += R"(},"logprobs":null)";
  close(out, finish.reason);
  out += R"(,"stop_reason":)";
  append_stop_cause(out, finish.stop != nullptr ? *finish.stop : StopCause{});
  if (finish.token_ids != nullptr) {
    out += R"(,"token_ids":)";
    append_ids(out, *finish.token_ids);
  }
  out += "}]";
  if (finish.timings != nullptr) {
    out += R"(,"metrics":)";
    append_timings(out, *finish.timings);
  }
  close_event(out);
}

void ChatChunkWriter::usage(std::string& out, const Usage& usage, const Timings& timings) const {
  out += prefix_;
  out += R"(],"usage":)";
  append_usage(out, usage);
  out += R"(,"metrics":)";
  append_timings(out, timings);
  out += "}\n\n";
}

}  // namespace strata::api
