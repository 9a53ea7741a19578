// Draining under load, many times: no stream ends without its finish or an error event.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/random.h"
#include "tests/unit/serve/service_harness.h"

namespace strata::testing {
namespace {

constexpr int kRounds = 100;
constexpr int kStreams = 12;

std::string stream_request(std::uint64_t draw) {
  auto body = chat_body();
  body["stream"] = true;
  if (draw % 3 == 0) body["n"] = 2;
  if (draw % 4 == 0) body["thinking_token_budget"] = 2;
  if (draw % 5 == 0) body["resumable"] = true;
  const auto text = body.dump();
  return "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
         std::to_string(text.size()) + "\r\n\r\n" + text;
}

// What the program does at SIGTERM: no new work, then the engine's end of all that runs, then the
// server's end.
void drain(ServiceHarness& harness) {
  const auto drained = std::make_shared<std::atomic<bool>>(false);
  harness.service().begin_drain();
  harness.engine().drain([drained] { *drained = true; });
  while (!*drained || harness.service().active_requests() > 0) std::this_thread::yield();
  harness.stop_server();
}

// Its own finish and [DONE], or an error: as an answer, or as an event. Or it was never begun: it
// came when the server was gone.
bool ended_well(const RawResponse& response) {
  if (response.status == 0) return true;
  if (!response.complete) return false;
  if (response.status == 503) return response.body.find("\"error\"") != std::string::npos;
  if (response.status != 200) return false;
  const bool error = response.body.find("data: {\"error\"") != std::string::npos;
  const bool done = response.body.ends_with("data: [DONE]\n\n") &&
                    response.body.find("\"finish_reason\":\"stop\"") != std::string::npos;
  return error || done;
}

TEST(Drain, NoStreamEndsWithoutItsFinish) {
  int answered = 0;
  int refused = 0;
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    HarnessOptions options;
    options.step_delay_us = 50;
    options.max_num_seqs = 6;
    ServiceHarness harness({"<|channel|>analysis<|message|>one two three four<|end|><|start|>"
                            "assistant<|channel|>final<|message|>five six seven<|return|>"},
                           options);
    const auto port = harness.port();
    std::vector<std::unique_ptr<RawClient>> clients;
    const auto early = random_at(1, round) % (kStreams + 1);
    const auto send = [&] {
      clients.push_back(std::make_unique<RawClient>(port));
      clients.back()->send(stream_request(random_at(2, round * kStreams + clients.size())));
    };
    while (clients.size() < early) send();
    // Some are under way, some wait, some come while it drains.
    if (early > 0) {
      ASSERT_NE(clients[random_at(3, round) % early]->read_until("\r\n\r\n"), "");
    }
    std::thread draining([&] { drain(harness); });
    const auto read_from = clients.size();
    while (clients.size() < kStreams) send();
    draining.join();
    for (std::size_t i = read_from; i < clients.size(); ++i) {
      const auto response = clients[i]->read_response();
      EXPECT_TRUE(ended_well(response)) << round << ": " << response.status << response.body;
      (response.status == 200 ? answered : refused) += 1;
    }
  }
  EXPECT_GT(refused, 0);
}

TEST(Drain, StreamsUnderWayFinish) {
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    HarnessOptions options;
    options.step_delay_us = 50;
    options.max_num_seqs = 6;
    ServiceHarness harness({"<|channel|>final<|message|>one two three four<|return|>"}, options);
    std::vector<std::unique_ptr<RawClient>> clients;
    for (int i = 0; i < kStreams; ++i) {
      clients.push_back(std::make_unique<RawClient>(harness.port()));
      clients.back()->send(stream_request(random_at(4, round * kStreams) | 1U));
    }
    // Whoever is accepted has the head of the answer by then, waits in the queue, or has ended.
    const auto begun = [&harness] {
      const auto info = harness.engine().info();
      return info->running + info->waiting > 0 || info->generated_tokens > 0;
    };
    while (!begun()) std::this_thread::yield();
    drain(harness);
    for (auto& client : clients) {
      const auto response = client->read_response();
      EXPECT_TRUE(ended_well(response)) << round << ": " << response.status << response.body;
    }
  }
}

// The end of the patience: what still runs is told so.
TEST(Drain, WhatIsCutOffIsTold) {
  for (std::uint64_t round = 0; round < 10; ++round) {
    HarnessOptions options;
    options.step_delay_us = 2000;
    options.max_model_len = 4096;
    ServiceHarness harness({"<|channel|>final<|message|>" + std::string(4000, 'x')}, options);
    RawClient client(harness.port());
    client.send(stream_request(1 + round * 60));
    ASSERT_NE(client.read_until("\n\n"), "");
    harness.service().begin_drain();
    harness.service().end_all();
    EXPECT_NE(client.read_until("\"error\""), "");
    EXPECT_NE(client.read_until("0\r\n\r\n"), "") << "the answer has no end";
  }
}

}  // namespace
}  // namespace strata::testing
