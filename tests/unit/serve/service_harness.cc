#include "tests/unit/serve/service_harness.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/log.h"

namespace strata::testing {

const tokenizer::Tokenizer& tiny_tokenizer() {
  static const auto tokenizer =
      tokenizer::Tokenizer::load(STRATA_SOURCE_DIR "/models/strata-tiny/tokenizer.json");
  return *tokenizer;
}

ServiceHarness::ServiceHarness(const std::vector<std::string>& scripts, HarnessOptions options) {
  std::vector<std::vector<TokenId>> ids;
  for (const auto& script : scripts) ids.push_back(tiny_tokenizer().encode_with_specials(script));
  start(std::move(ids), std::move(options));
}

ServiceHarness::ServiceHarness(const std::vector<std::vector<TokenId>>& scripts,
                               HarnessOptions options) {
  start(scripts, std::move(options));
}

ServiceHarness::~ServiceHarness() = default;

void ServiceHarness::start(std::vector<std::vector<TokenId>> scripts, HarnessOptions options) {
  set_log_level(LogLevel::kError);
  const auto& tokenizer = tiny_tokenizer();
  ScriptedOptions scripted;
  scripted.scripts = std::move(scripts);
  scripted.end_token = tokenizer.specials().return_;
  scripted.step_delay_us = options.step_delay_us;
  scripted.info.name = "scripted";
  scripted.info.vocab = 4096;
  scripted.info.max_context = options.max_model_len;
  scripted.info.window = 128;
  scripted.info.num_pages = 2048;
  scripted.info.max_slots = options.max_num_seqs;
  scripted.info.max_rows = 256;
  scripted.info.max_logits_rows = 256;
  scripted.info.backend = "scripted";
  EngineOptions engine;
  engine.max_model_len = options.max_model_len;
  engine.max_num_seqs = options.max_num_seqs;
  engine.max_queued_requests = options.max_queued_requests;
  engine_ = std::make_unique<Engine>(make_scripted_model(scripted), engine,
                                     [scripted] { return make_scripted_model(scripted); });

  auto& service = options.service;
  if (service.model_names.empty()) service.model_names = {"strata-tiny"};
  service.current_date = "2026-01-02";
  service.seed = 1;
  metrics_ = std::make_unique<metrics::ServerMetrics>(service.model_names.front());
  service_ = std::make_unique<serve::Service>(service, tokenizer, *engine_, *metrics_);
  http::ServerOptions http;
  http.port = 0;
  http.threads = options.http_threads;
  http.max_body_bytes = options.max_body_bytes;
  http.error_response = serve::Service::framing_error;
  server_ = std::make_unique<http::Server>(http, service_->handler());
}

RawResponse ServiceHarness::ask(const std::string& method, const std::string& path,
                                const std::string& headers, const std::string& body) {
  RawClient client(port());
  std::string request = method + " " + path + " HTTP/1.1\r\n";
  if (headers.find("Host:") == std::string::npos)
    request += "Host: localhost:" + std::to_string(port()) + "\r\n";
  request += headers;
  if (!body.empty() || method == "POST")
    request += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  client.send(request + "\r\n" + body);
  return client.read_response(method == "HEAD");
}

RawResponse ServiceHarness::get(const std::string& path, const std::string& headers) {
  return ask("GET", path, headers, "");
}

RawResponse ServiceHarness::post(const std::string& path, const std::string& body,
                                 const std::string& headers) {
  return ask("POST", path, "Content-Type: application/json\r\n" + headers, body);
}

json ServiceHarness::post_json(const std::string& path, const json& body) {
  const auto response = post(path, body.dump());
  EXPECT_EQ(response.status, 200) << response.body;
  const auto out = json::parse(response.body, nullptr, false);
  EXPECT_FALSE(out.is_discarded()) << response.body;
  return out;
}

std::vector<json> read_events(const std::string& body, bool* done) {
  std::vector<json> out;
  bool ended = false;
  for (std::size_t at = 0; at < body.size();) {
    const auto end = body.find("\n\n", at);
    EXPECT_NE(end, std::string::npos) << "an event is cut: " << body.substr(at);
    if (end == std::string::npos) break;
    const auto event = body.substr(at, end - at);
    at = end + 2;
    if (event.starts_with(":")) continue;
    EXPECT_TRUE(event.starts_with("data: ")) << event;
    EXPECT_FALSE(ended) << "an event after the end: " << event;
    if (event == "data: [DONE]") {
      ended = true;
      continue;
    }
    out.push_back(json::parse(event.substr(6), nullptr, false));
    EXPECT_FALSE(out.back().is_discarded()) << event;
  }
  if (done != nullptr) *done = ended;
  return out;
}

json join_chunks(const std::vector<json>& events, int index) {
  json out = {{"content", ""}, {"reasoning", ""}, {"tool_calls", json::array()}};
  for (const auto& event : events) {
    for (const auto& choice : event.value("choices", json::array())) {
      if (choice["index"] != index) continue;
      const auto& delta = choice["delta"];
      for (const char* key : {"content", "reasoning"})
        if (delta.contains(key))
          out[key] = out[key].get<std::string>() + delta[key].get<std::string>();
      for (const auto& call : delta.value("tool_calls", json::array())) {
        const auto at = call["index"].get<std::size_t>();
        if (out["tool_calls"].size() <= at) out["tool_calls"].push_back(call);
        else {
          auto& arguments = out["tool_calls"][at]["function"]["arguments"];
          arguments =
              arguments.get<std::string>() + call["function"]["arguments"].get<std::string>();
        }
      }
      if (!choice["finish_reason"].is_null()) out["finish_reason"] = choice["finish_reason"];
    }
  }
  return out;
}

json chat_body(const std::string& text) {
  return {{"messages", json::array({{{"role", "user"}, {"content", text}}})}};
}

}  // namespace strata::testing
