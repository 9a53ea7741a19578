// The generator against a server that answers as each test wants.
#include "loadgen/runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>

#include "base/result.h"
#include "http/server.h"

namespace strata::loadgen {
namespace {

using http::Exchange;
using testing::ElementsAre;
using testing::HasSubstr;
using ExchangeRef = std::shared_ptr<Exchange>;

constexpr const char* kDelta = R"(data: {"choices":[{"text":"a"}]})";
constexpr const char* kLast = R"(data: {"choices":[{"text":"b","finish_reason":"stop"}]})";
constexpr const char* kUsage =
    R"(data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5}})";

void stream(const ExchangeRef& exchange, const std::vector<std::string>& events) {
  http::Response head;
  head.content_type = "text/event-stream";
  exchange->start_stream(std::move(head));
  for (const std::string& event : events) exchange->write(event + "\n\n");
  exchange->finish();
}

class Runner : public testing::Test {
 protected:
  void serve(http::Handler handler) {
    http::ServerOptions options;
    options.port = 0;
    options.threads = 1;
    server_ = std::make_unique<http::Server>(options, std::move(handler));
  }
  Target target() const {
    return parse_target("http://127.0.0.1:" + std::to_string(server_->port()) + "/");
  }
  RunResult run(int count) {
    options_.model = "m";
    options_.save_detailed = true;
    return run_load(target(), options_,
                    std::vector<Prompt>(static_cast<std::size_t>(count), Prompt{"hi", {}, 0, 5}));
  }

  LoadOptions options_;
  std::unique_ptr<http::Server> server_;
};

TEST_F(Runner, ReadsAStream) {
  std::string body, path, key;
  serve([&](ExchangeRef exchange) {
    body = exchange->request().body;
    path = exchange->request().path;
    key = exchange->request().header("authorization");
    stream(exchange, {": ping", kDelta, kLast, kUsage, "data: [DONE]"});
  });
  options_.api_key = "secret";
  const Outcome out = run(1).outcomes[0];
  server_.reset();  // what the handler wrote is read from here on
  EXPECT_TRUE(out.success) << out.error;
  EXPECT_EQ(out.text, "ab");
  EXPECT_EQ(out.input_tokens, 9);
  EXPECT_EQ(out.output_tokens, 5);
  EXPECT_EQ(out.itl.size(), 1U);
  EXPECT_GE(out.latency, out.ttft);
  EXPECT_EQ(path, "/v1/completions");
  EXPECT_EQ(key, "Bearer secret");
  EXPECT_EQ(body, request_body(options_, Prompt{"hi", {}, 0, 5}));
}

TEST_F(Runner, CountsChunksWhereTheServerTellsNoUsage) {
  serve([](ExchangeRef exchange) { stream(exchange, {kDelta, kDelta, kLast}); });
  EXPECT_EQ(run(1).outcomes[0].output_tokens, 3);
}

TEST_F(Runner, FailuresAreToldApart) {
  std::atomic<int> number = 0;
  serve([&](ExchangeRef exchange) {
    http::Response refusal;
    switch (number++) {
      case 0:
        refusal.status = 429;
        refusal.headers = {{"openai-processing-ms", "3"}};
        refusal.body = R"({"error":{"message":"full"}})";
        return exchange->respond(std::move(refusal));
      case 1:
        refusal.status = 503;
        refusal.body = "busy";
        return exchange->respond(std::move(refusal));
      case 2: return stream(exchange, {kDelta, R"(data: {"error":{"message":"died"}})"});
      case 3: return stream(exchange, {kDelta});
      case 4: return stream(exchange, {});
      default: return stream(exchange, {"data: {"});
    }
  });
  options_.max_concurrency = 1;
  const RunResult result = run(6);
  std::vector<std::string> errors;
  for (const Outcome& out : result.outcomes) {
    EXPECT_FALSE(out.success);
    errors.push_back(out.error);
  }
  EXPECT_THAT(errors,
              ElementsAre("HTTP 429: full", "HTTP 503", "error event: died",
                          "the stream ended without a finish reason", "no chunk with a choice came",
                          "error event: an event is no JSON object"));
  EXPECT_TRUE(result.outcomes[0].rejected());
  EXPECT_EQ(result.outcomes[0].server_time, 0.003);
}

// The server drops the connection in the middle of the stream.
TEST_F(Runner, ACutStreamIsAFailure) {
  std::vector<ExchangeRef> open;
  serve([&](ExchangeRef exchange) {
    http::Response head;
    exchange->start_stream(std::move(head));
    exchange->write(std::string(kDelta) + "\n\n" + std::string(2U << 20, ' '));  // over its limit
    open.push_back(std::move(exchange));
  });
  const Outcome out = run(1).outcomes[0];
  EXPECT_FALSE(out.success);
  EXPECT_THAT(out.error, testing::AnyOf(HasSubstr("ended"), HasSubstr("reset")));
  server_.reset();
}

TEST_F(Runner, ASecondRequestUsesTheSameConnection) {
  int most = 0;
  serve([&](ExchangeRef exchange) {
    most = std::max(most, server_->open_connections());
    stream(exchange, {kLast, "data: [DONE]"});
  });
  options_.max_concurrency = 1;
  EXPECT_TRUE(run(5).outcomes[4].success);
  server_.reset();
  EXPECT_EQ(most, 1);
}

// Nobody is answered before everybody has asked: slow answers delay no arrival.
TEST_F(Runner, TheLoopIsOpen) {
  std::mutex mutex;
  std::vector<ExchangeRef> waiting;
  serve([&](ExchangeRef exchange) {
    const std::lock_guard lock(mutex);
    waiting.push_back(std::move(exchange));
    if (waiting.size() < 20) return;
    for (const auto& one : waiting) stream(one, {kLast, "data: [DONE]"});
  });
  options_.request_rate = 1000;
  const RunResult result = run(20);
  for (const Outcome& out : result.outcomes) EXPECT_TRUE(out.success) << out.error;
  EXPECT_NEAR(result.outcomes.back().due, 0.02, 1e-9);
  for (const Outcome& out : result.outcomes) EXPECT_GE(out.start, out.due);
  EXPECT_EQ(result.outcomes.back().queue, 0);
}

TEST_F(Runner, ConcurrencyIsBounded) {
  std::atomic<int> open = 0, most = 0;
  serve([&](const ExchangeRef& exchange) {
    most = std::max(most.load(), ++open);
    exchange->post_after(2, [&, exchange] {
      --open;
      stream(exchange, {kLast, "data: [DONE]"});
    });
  });
  options_.max_concurrency = 3;
  const RunResult result = run(12);
  for (const Outcome& out : result.outcomes) EXPECT_TRUE(out.success) << out.error;
  EXPECT_EQ(most, 3);
  EXPECT_GT(result.outcomes.back().queue, 0);
}

TEST_F(Runner, NobodyListens) {
  serve([](const ExchangeRef&) {});
  const Target dead = target();
  server_.reset();
  const RunResult result = run_load(dead, options_, {Prompt{"hi", {}, 0, 5}});
  EXPECT_THAT(result.outcomes[0].error, HasSubstr("cannot connect"));
  EXPECT_EQ(result.outcomes[0].status, 0);
}

TEST_F(Runner, FirstModelOfTheServer) {
  const auto list = [this](const std::string& body) {
    serve([body](const ExchangeRef& exchange) {
      http::Response response;
      response.body = body;
      exchange->respond(std::move(response));
    });
  };
  list(R"({"object":"list","data":[{"id":"first"},{"id":"second"}]})");
  EXPECT_EQ(first_model(target(), options_), "first");
  for (const char* bad : {R"({"data":[]})", "{}", "[", R"({"data":[{"id":3}]})"}) {
    list(bad);
    EXPECT_THROW(first_model(target(), options_), StartupError) << bad;
  }
}

TEST(Target, Urls) {
  const Target plain = parse_target("http://host");
  EXPECT_EQ(plain.host_header(), "host:80");
  const Target prefixed = parse_target("http://127.0.0.1:8000/proxy/a/");
  EXPECT_EQ(prefixed.prefix, "/proxy/a");
  EXPECT_EQ(prefixed.port, "8000");
  EXPECT_EQ(parse_target("http://[::1]:81").host, "::1");
  EXPECT_EQ(parse_target("http://[::1]:81").host_header(), "[::1]:81");
  for (const char* bad :
       {"https://x", "host:80", "http://", "http://h:", "http://h:x", "http://[::1"})
    EXPECT_THROW(parse_target(bad), StartupError) << bad;
}

}  // namespace
}  // namespace strata::loadgen
