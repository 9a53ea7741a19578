// Requests that do not end well: clients that leave, full queues, engines that stop.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

#include "base/random.h"
#include "tests/unit/serve/service_harness.h"

namespace strata::testing {
namespace {

using std::chrono::seconds;

const std::string kLong = "<|channel|>final<|message|>" + std::string(2000, 'x');

std::string request_bytes(const json& body) {
  const auto text = body.dump();
  return "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
         std::to_string(text.size()) + "\r\n\r\n" + text;
}

json streaming() {
  auto body = chat_body();
  body["stream"] = true;
  return body;
}

template <typename Condition>
bool eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

// Nothing of any request is left: no sequence, no page, no session.
bool idle(ServiceHarness& harness) {
  const auto info = harness.engine().info();
  return info->running == 0 && info->waiting == 0 && harness.service().active_requests() == 0;
}

HarnessOptions paced(int step_delay_us) {
  HarnessOptions options;
  options.step_delay_us = step_delay_us;
  options.max_model_len = 2048;
  return options;
}

TEST(Lifecycle, ClientsThatLeaveAnywhereLeaveNothingBehind) {
  ServiceHarness harness({kLong}, paced(100));
  for (std::uint64_t round = 0; round < 60; ++round) {
    RawClient client(harness.port());
    auto body = round % 3 == 0 ? chat_body() : streaming();
    if (round % 5 == 0) body["n"] = 3;
    const auto bytes = request_bytes(body);
    const bool partial = round % 7 == 6;
    client.send(partial ? bytes.substr(0, bytes.size() / 2) : bytes);
    if (round % 3 != 0 && !partial)
      for (std::uint64_t i = 0; i < random_at(7, round) % 20; ++i) client.read_until("\n\n");
    if (round % 2 == 0) client.reset();
    else client.close();
  }
  EXPECT_TRUE(eventually([&] { return idle(harness); }));
  const auto metrics = harness.get("/metrics").body;
  EXPECT_NE(metrics.find(R"(finished_reason="abort")"), std::string::npos);
  EXPECT_EQ(metrics.find(R"(finished_reason="abort",model_name="strata-tiny"} 0)"),
            std::string::npos);
  EXPECT_EQ(harness
                .post("/v1/chat/completions",
                      [] {
                        auto body = chat_body();
                        body["max_tokens"] = 3;
                        return body.dump();
                      }())
                .status,
            200);
}

TEST(Lifecycle, FullQueuesAnswer429WithATimeToWait) {
  auto options = paced(20000);
  options.max_num_seqs = 1;
  options.max_queued_requests = 1;
  ServiceHarness harness({kLong}, options);
  RawClient running(harness.port());
  running.send(request_bytes(streaming()));
  ASSERT_NE(running.read_until("\n\n"), "");
  RawClient waiting(harness.port());
  waiting.send(request_bytes(streaming()));
  ASSERT_TRUE(eventually([&] { return harness.engine().info()->waiting == 1; }));
  const auto refused = harness.post("/v1/chat/completions", chat_body().dump());
  EXPECT_EQ(refused.status, 429);
  const auto error = json::parse(refused.body)["error"];
  EXPECT_EQ(error["type"], "rate_limit_error");
  EXPECT_GE(std::atoi(refused.headers.at("retry-after").c_str()), 1);
  EXPECT_NE(harness.get("/metrics").body.find("vllm:admission_rejections_total"),
            std::string::npos);
  // Several choices of which only some fit are refused as a whole.
  waiting.close();
  ASSERT_TRUE(eventually([&] { return harness.engine().info()->waiting == 0; }));
  auto several = chat_body();
  several["n"] = 4;
  EXPECT_EQ(harness.post("/v1/chat/completions", several.dump()).status, 429);
  running.close();
  EXPECT_TRUE(eventually([&] { return idle(harness); }));
}

TEST(Lifecycle, SilentStreamsAreKeptAlive) {
  auto options = paced(400'000);
  options.service.keep_alive_ms = 20;
  ServiceHarness harness({"<|channel|>final<|message|>hi<|return|>"}, options);
  const auto response = harness.post("/v1/chat/completions", streaming().dump());
  EXPECT_NE(response.body.find(": keep-alive\n\n"), std::string::npos);
  bool done = false;
  EXPECT_EQ(join_chunks(read_events(response.body, &done))["content"], "hi");
  EXPECT_TRUE(done);
}

TEST(Lifecycle, StoppingTheServerEndsItsRequests) {
  ServiceHarness harness({kLong}, paced(1000));
  RawClient client(harness.port());
  client.send(request_bytes(streaming()));
  ASSERT_NE(client.read_until("\n\n"), "");
  harness.stop_server();
  EXPECT_TRUE(eventually([&] { return idle(harness); }));
}

TEST(Lifecycle, DrainingLetsRunningStreamsFinish) {
  ServiceHarness harness({"<|channel|>final<|message|>one two three<|return|>"}, paced(5000));
  RawClient client(harness.port());
  client.send(request_bytes(streaming()));
  ASSERT_NE(client.read_until("\n\n"), "");
  harness.service().begin_drain();
  EXPECT_EQ(harness.post("/v1/chat/completions", chat_body().dump()).status, 503);
  EXPECT_NE(client.read_until("data: [DONE]"), "");
}

TEST(Lifecycle, ManyStreamsAtOnceAllEndWell) {
  ServiceHarness harness({"<|channel|>final<|message|>one two three four five<|return|>"});
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < 40; ++i) {
    clients.push_back(std::make_unique<RawClient>(harness.port()));
    clients.back()->send(request_bytes(streaming()));
  }
  for (auto& client : clients) {
    const auto response = client->read_response();
    ASSERT_TRUE(response.complete);
    bool done = false;
    EXPECT_EQ(join_chunks(read_events(response.body, &done))["content"], "one two three four five");
    EXPECT_TRUE(done);
  }
  EXPECT_TRUE(eventually([&] { return idle(harness); }));
}

}  // namespace
}  // namespace strata::testing
