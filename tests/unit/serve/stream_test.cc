// Resumable streams and progress: what a client that lost its connection gets.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "tests/unit/serve/service_harness.h"

namespace strata::testing {
namespace {

const std::string kAnswer =
    "<|channel|>analysis<|message|>Let me think.<|end|><|start|>assistant"
    "<|channel|>final<|message|>one two three four five six seven eight"
    "<|return|>";
const std::string kLong = "<|channel|>final<|message|>" + std::string(2000, 'x');

json streaming(bool resumable = true) {
  auto body = chat_body();
  body["stream"] = true;
  if (resumable) body["resumable"] = true;
  return body;
}

std::string request_bytes(const json& body, const std::string& headers = {}) {
  const auto text = body.dump();
  return "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n" + headers +
         "Content-Length: " + std::to_string(text.size()) + "\r\n\r\n" + text;
}

std::string header_of(const std::string& head, const std::string& name) {
  const auto at = head.find(name + ": ");
  if (at == std::string::npos) return {};
  const auto begin = at + name.size() + 2;
  return head.substr(begin, head.find("\r\n", begin) - begin);
}

template <typename Condition>
bool eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

HarnessOptions paced(int step_delay_us) {
  HarnessOptions options;
  options.step_delay_us = step_delay_us;
  options.max_model_len = 4096;
  return options;
}

struct NumberedEvent {
  std::uint64_t number = 0;
  std::string data;
};

// Comments are left out.
std::vector<NumberedEvent> numbered(const std::string& body) {
  std::vector<NumberedEvent> out;
  for (std::size_t at = 0; at < body.size();) {
    const auto end = body.find("\n\n", at);
    if (end == std::string::npos) break;
    const auto event = body.substr(at, end - at);
    at = end + 2;
    if (event.starts_with(":")) continue;
    const auto line = event.find('\n');
    EXPECT_TRUE(event.starts_with("id: ")) << event;
    EXPECT_NE(line, std::string::npos) << event;
    if (line == std::string::npos) continue;
    out.push_back({std::stoull(event.substr(4)), event.substr(line + 1)});
    EXPECT_TRUE(out.back().data.starts_with("data: ")) << event;
  }
  return out;
}

std::string unnumbered(const std::vector<NumberedEvent>& events) {
  std::string out;
  for (const auto& event : events) out += event.data + "\n\n";
  return out;
}

// A streamed request whose client is gone after its first event; the stream's id.
std::string leave_early(ServiceHarness& harness, std::vector<NumberedEvent>& seen,
                        const std::string& headers = {}) {
  RawClient client(harness.port());
  client.send(request_bytes(streaming(), headers));
  const auto head = client.read_until("\r\n\r\n");
  const auto id = header_of(head, "x-strata-stream-id");
  EXPECT_TRUE(id.starts_with("chatcmpl-")) << head;
  client.read_until("\r\n");  // the size of the first chunk
  seen = numbered(client.read_until("\n\n"));
  EXPECT_EQ(seen.size(), 1U);
  client.reset();
  return id;
}

TEST(Resumable, EventsAreNumberedFromOne) {
  ServiceHarness harness({kAnswer});
  const auto response = harness.post("/v1/chat/completions", streaming().dump());
  EXPECT_EQ(response.status, 200);
  const auto events = numbered(response.body);
  for (std::size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i].number, i + 1);
  EXPECT_EQ(events.back().data, "data: [DONE]");
  const auto message = join_chunks(read_events(unnumbered(events)));
  EXPECT_EQ(message["content"], "one two three four five six seven eight");
  EXPECT_EQ(message["reasoning"], "Let me think.");
  const auto first = json::parse(events.front().data.substr(6));
  EXPECT_EQ(response.headers.at("x-strata-stream-id"), first["id"]);
  // The header asks for the same as the field; without either nothing is numbered.
  const auto by_header =
      harness.post("/v1/chat/completions", streaming(false).dump(), "X-Strata-Resumable: 1\r\n");
  EXPECT_TRUE(by_header.body.starts_with("id: 1\n"));
  EXPECT_TRUE(
      harness.post("/v1/chat/completions", streaming(false).dump()).body.starts_with("data: "));
}

TEST(Resumable, OnlyStreamsAre) {
  ServiceHarness harness({kAnswer});
  auto body = chat_body();
  body["resumable"] = true;
  const auto response = harness.post("/v1/chat/completions", body.dump());
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(json::parse(response.body)["error"]["param"], "resumable");
}

TEST(Resumable, AClientThatComesBackMissesNothing) {
  ServiceHarness harness({kAnswer}, paced(3000));
  std::vector<NumberedEvent> seen;
  const auto id = leave_early(harness, seen);
  const auto rest =
      harness.get("/v1/streams/" + id + "?from=" + std::to_string(seen.back().number + 1));
  EXPECT_EQ(rest.status, 200);
  EXPECT_TRUE(rest.headers.at("content-type").starts_with("text/event-stream"));
  auto all = seen;
  for (const auto& event : numbered(rest.body)) all.push_back(event);
  for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i].number, i + 1);
  bool done = false;
  const auto message = join_chunks(read_events(unnumbered(all), &done));
  EXPECT_TRUE(done);
  EXPECT_EQ(message["content"], "one two three four five six seven eight");
  EXPECT_EQ(message["finish_reason"], "stop");
  // Also after its end, and by the header browsers send; the same events each time.
  const auto again = harness.get("/streams/" + id,
                                 "Last-Event-ID: " + std::to_string(seen.back().number) + "\r\n");
  EXPECT_EQ(again.status, 200);
  EXPECT_EQ(unnumbered(numbered(again.body)), unnumbered(numbered(rest.body)));
  EXPECT_EQ(numbered(harness.get("/v1/streams/" + id).body).size(), all.size());
}

TEST(Resumable, WhatCameWhileNobodyReadIsFewEvents) {
  ServiceHarness harness({kAnswer}, paced(1000));
  std::vector<NumberedEvent> seen;
  const auto id = leave_early(harness, seen);
  ASSERT_TRUE(eventually([&] { return harness.engine().info()->running == 0; }));
  ASSERT_TRUE(eventually([&] { return harness.service().active_requests() == 0; }));
  const auto events = numbered(harness.get("/v1/streams/" + id).body);
  EXPECT_LT(events.size(), 10U);
  EXPECT_EQ(join_chunks(read_events(unnumbered(events)))["content"],
            "one two three four five six seven eight");
}

TEST(Resumable, ANewReaderTakesTheStreamOver) {
  ServiceHarness harness({kLong}, paced(5000));
  RawClient first(harness.port());
  first.send(request_bytes(streaming()));
  const auto id = header_of(first.read_until("\r\n\r\n"), "x-strata-stream-id");
  ASSERT_NE(first.read_until("\n\n"), "");
  RawClient second(harness.port());
  second.send("GET /v1/streams/" + id + "?from=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
  ASSERT_NE(second.read_until("id: 1\n"), "");
  EXPECT_NE(first.read_until("stream_taken_over"), "");
  EXPECT_NE(first.read_until("0\r\n\r\n"), "") << "the first answer has no end";
  ASSERT_NE(second.read_until("id: 4\n"), "");
  EXPECT_EQ(harness.ask("DELETE", "/v1/streams/" + id, "", "").status, 200);
  EXPECT_NE(second.read_until("cancelled"), "");
  EXPECT_TRUE(eventually([&] { return harness.engine().info()->running == 0; }));
  EXPECT_EQ(harness.get("/v1/streams/" + id).status, 404);
}

TEST(Resumable, StreamsBelongToTheirKey) {
  auto options = paced(3000);
  options.service.api_keys = {"one", "two"};
  ServiceHarness harness({kAnswer}, options);
  std::vector<NumberedEvent> seen;
  const auto id = leave_early(harness, seen, "Authorization: Bearer one\r\n");
  EXPECT_EQ(harness.get("/v1/streams/" + id).status, 401);
  const auto other = "Authorization: Bearer two\r\n";
  EXPECT_EQ(harness.get("/v1/streams/" + id, other).status, 404);
  EXPECT_EQ(harness.ask("DELETE", "/v1/streams/" + id, other, "").status, 404);
  EXPECT_EQ(harness.get("/v1/streams/" + id, "Authorization: Bearer one\r\n").status, 200);
}

TEST(Resumable, BadNumbersAndUnknownStreamsAreRefused) {
  ServiceHarness harness({kAnswer});
  const auto response = harness.post("/v1/chat/completions", streaming().dump());
  const auto path = "/v1/streams/" + response.headers.at("x-strata-stream-id");
  EXPECT_EQ(harness.get(path + "?from=x").status, 400);
  EXPECT_EQ(harness.get(path + "?from=100000").status, 400);
  EXPECT_EQ(harness.get(path, "Last-Event-ID: x\r\n").status, 400);
  EXPECT_EQ(harness.get("/v1/streams/chatcmpl-0123").status, 404);
  EXPECT_EQ(harness.get("/v1/streams").status, 404);
  EXPECT_EQ(harness.post("/v1/streams/chatcmpl-0123", "{}").status, 405);
  EXPECT_EQ(harness.ask("DELETE", path, "", "").status, 200);
  EXPECT_EQ(harness.ask("DELETE", path, "", "").status, 404);
}

TEST(Resumable, NobodyWhoComesBackInTimeEndsIt) {
  auto options = paced(2000);
  options.service.resume_ms = 50;
  ServiceHarness harness({kLong}, options);
  std::vector<NumberedEvent> seen;
  const auto id = leave_early(harness, seen);
  EXPECT_TRUE(eventually([&] { return harness.engine().info()->running == 0; }));
  EXPECT_TRUE(eventually([&] { return harness.service().active_requests() == 0; }));
  EXPECT_EQ(harness.get("/v1/streams/" + id).status, 404);
}

TEST(Resumable, NobodyWhoComesBackInTimeEndsItInTheQueueToo) {
  auto options = paced(2000);
  options.max_num_seqs = 1;
  options.service.resume_ms = 50;
  options.service.keep_alive_ms = 20;
  ServiceHarness harness({kLong}, options);
  RawClient running(harness.port());
  running.send(request_bytes(streaming(), {}));
  running.read_until("data: ");
  RawClient waiting(harness.port());
  waiting.send(request_bytes(streaming(), {}));
  waiting.read_until("x-strata-stream-id");
  EXPECT_TRUE(eventually([&] { return harness.engine().info()->waiting == 1; }));
  waiting.reset();
  EXPECT_TRUE(eventually([&] { return harness.engine().info()->waiting == 0; }));
  EXPECT_TRUE(eventually([&] { return harness.service().active_requests() == 1; }));
}

TEST(Resumable, EndedStreamsAreForgottenInTime) {
  auto options = paced(0);
  options.service.resume_ms = 50;
  ServiceHarness harness({kAnswer}, options);
  const auto response = harness.post("/v1/chat/completions", streaming().dump());
  const auto path = "/v1/streams/" + response.headers.at("x-strata-stream-id");
  // Each look is a reader, after whom the time begins anew.
  int status = 200;
  for (int pause_ms = 60; status != 404 && pause_ms < 10'000; pause_ms *= 2) {
    std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms));
    status = harness.get(path).status;
  }
  EXPECT_EQ(status, 404);
}

TEST(Resumable, TheLogIsBounded) {
  auto options = paced(0);
  options.service.resume_bytes = 1500;
  ServiceHarness harness({kLong + "<|return|>"}, options);
  const auto response = harness.post("/v1/chat/completions", streaming().dump());
  const auto path = "/v1/streams/" + response.headers.at("x-strata-stream-id");
  const auto gone = harness.get(path + "?from=1");
  EXPECT_EQ(gone.status, 404);
  EXPECT_EQ(json::parse(gone.body)["error"]["code"], "events_expired");
  const auto kept = harness.get(path);
  EXPECT_EQ(kept.status, 200);
  EXPECT_LE(kept.body.size(), 1500U);
  EXPECT_EQ(numbered(kept.body).back().data, "data: [DONE]");
}

TEST(Resumable, StoppingTheServerLeavesNoSession) {
  ServiceHarness harness({kLong}, paced(2000));
  std::vector<NumberedEvent> seen;
  leave_early(harness, seen);
  harness.stop_server();
}

TEST(Progress, ComesAsCommentsWhenAsked) {
  auto options = paced(5000);
  options.max_num_seqs = 1;
  ServiceHarness harness({kLong, kAnswer, kAnswer}, options);
  RawClient running(harness.port());
  running.send(request_bytes(streaming(false)));
  ASSERT_NE(running.read_until("\n\n"), "");
  RawClient waiting(harness.port());
  auto body = streaming(false);
  // More than the 256 rows of a step.
  body["messages"][0]["content"] = std::string(1500, 'a') + " " + std::string(700, 'b');
  body["stream_options"] = {{"include_progress", true}};
  waiting.send(request_bytes(body));
  EXPECT_NE(waiting.read_until(": progress {\"queue_position\":0}\n\n"), "");
  running.reset();
  const auto prefill = waiting.read_until(",\"prompt_tokens\":");
  EXPECT_NE(prefill.find(": progress {\"prefilled_tokens\":"), std::string::npos) << prefill;
  EXPECT_NE(waiting.read_until("data: [DONE]"), "");
}

TEST(Progress, IsLeftOutOtherwise) {
  ServiceHarness harness({kAnswer});
  auto body = streaming(false);
  body["messages"][0]["content"] = std::string(300, 'a');
  EXPECT_EQ(harness.post("/v1/chat/completions", body.dump()).body.find(": progress"),
            std::string::npos);
}

}  // namespace
}  // namespace strata::testing
