// A Service with a scripted engine behind a real http::Server on loopback, and a client for it.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "engine/scripted_model.h"
#include "http/server.h"
#include "metrics/server_metrics.h"
#include "serve/service.h"
#include "tests/unit/http/raw_client.h"
#include "tokenizer/tokenizer.h"

namespace strata::testing {

using nlohmann::json;

// The tokenizer that ships with the program, loaded once.
const tokenizer::Tokenizer& tiny_tokenizer();

struct HarnessOptions {
  serve::ServiceOptions service;
  std::int32_t max_model_len = 512;
  std::int32_t max_queued_requests = 64;
  std::int32_t max_num_seqs = 8;
  int step_delay_us = 0;
  int http_threads = 2;
  std::size_t max_body_bytes = 1U << 20;
};

class ServiceHarness {
 public:
  // `scripts`: what the n-th sequence samples, special tokens written as their texts.
  explicit ServiceHarness(const std::vector<std::string>& scripts, HarnessOptions options = {});
  ServiceHarness(const std::vector<std::vector<TokenId>>& scripts, HarnessOptions options);
  ~ServiceHarness();

  std::uint16_t port() const { return server_->port(); }
  RawResponse get(const std::string& path, const std::string& headers = {});
  RawResponse post(const std::string& path, const std::string& body,
                   const std::string& headers = {});
  RawResponse ask(const std::string& method, const std::string& path, const std::string& headers,
                  const std::string& body);
  // Fails the test when the answer is no JSON.
  json post_json(const std::string& path, const json& body);

  serve::Service& service() { return *service_; }
  Engine& engine() { return *engine_; }
  void stop_server() { server_.reset(); }

 private:
  void start(std::vector<std::vector<TokenId>> scripts, HarnessOptions options);

  std::unique_ptr<Engine> engine_;
  std::unique_ptr<metrics::ServerMetrics> metrics_;
  std::unique_ptr<serve::Service> service_;
  std::unique_ptr<http::Server> server_;
};

// The events of a stream; the last must be [DONE] unless an error came. Checks that every event is
// JSON, and so valid UTF-8.
std::vector<json> read_events(const std::string& body, bool* done = nullptr);

// What the chunks of choice `index` add up to, as a message object with finish_reason.
json join_chunks(const std::vector<json>& events, int index = 0);

json chat_body(const std::string& text = "hi");

}  // namespace strata::testing
