#include "http/server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "tests/unit/http/raw_client.h"

namespace strata::http {
namespace {

using testing::RawClient;
using testing::RawResponse;

// Handler with a few behaviours by path; counts and waits for events.
class Probe {
 public:
  void operator()(const std::shared_ptr<Exchange>& exchange) {
    const auto& request = exchange->request();
    if (request.path == "/echo") {
      Response response;
      response.content_type = "text/plain";
      response.body = request.method + " " + request.body;
      exchange->respond(std::move(response));
    } else if (request.path == "/stream") {
      stream(exchange, 3);
    } else if (request.path == "/flood") {
      flood(exchange);
    } else if (request.path == "/wait") {
      exchange->on_close([this] { note("closed"); });
      const std::lock_guard lock(mutex_);
      waiting_.push_back(exchange);
      changed_.notify_all();
    } else if (request.path == "/injected") {
      Response response;
      response.headers = {{"x-bad", "a\r\nSet-Cookie: b"}, {"x-good", "c"}};
      exchange->respond(std::move(response));
    } else {
      Response response;
      response.status = 404;
      exchange->respond(std::move(response));
    }
  }

  void note(const std::string& event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(event);
    changed_.notify_all();
  }
  bool wait_for(const std::string& event, std::size_t times = 1) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] {
      return static_cast<std::size_t>(std::count(events_.begin(), events_.end(), event)) >= times;
    });
  }
  std::shared_ptr<Exchange> take_waiting() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(20), [&] { return !waiting_.empty(); });
    if (waiting_.empty()) return nullptr;
    auto exchange = waiting_.back();
    waiting_.pop_back();
    return exchange;
  }

 private:
  static void stream(const std::shared_ptr<Exchange>& exchange, int pieces) {
    Response head;
    head.content_type = "text/event-stream";
    exchange->start_stream(std::move(head));
    for (int i = 0; i < pieces; ++i) exchange->write("piece " + std::to_string(i) + "\n");
    exchange->write("");  // must not end the body
    exchange->write("end");
    exchange->finish();
  }
  void flood(const std::shared_ptr<Exchange>& exchange) {
    exchange->on_close([this] { note("cut"); });
    exchange->start_stream({});
    for (int i = 0; i < 64; ++i) exchange->write(std::string(64U << 10, 'x'));
    exchange->finish();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> events_;
  std::vector<std::shared_ptr<Exchange>> waiting_;
};

class ServerTest : public ::testing::Test {
 protected:
  void start(ServerOptions options = {}) {
    options.port = 0;
    options.max_body_bytes = std::min<std::size_t>(options.max_body_bytes, 100'000);
    server_ = std::make_unique<Server>(
        options, [this](std::shared_ptr<Exchange> exchange) { probe_(exchange); });
  }
  RawResponse ask(const std::string& bytes, bool head_only = false) {
    RawClient client(server_->port());
    client.send(bytes);
    return client.read_response(head_only);
  }
  void expect_alive() {
    const auto response = ask("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, "GET ");
  }

  Probe probe_;
  std::unique_ptr<Server> server_;
};

const char kPost[] =
    "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
const char kChunked[] =
    "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    "2\r\nhe\r\n003\r\nllo\r\n0\r\nTrailer: x\r\n\r\n";

TEST_F(ServerTest, AnswersARequestSplitAtEveryByte) {
  start();
  for (const std::string request : {kPost, kChunked}) {
    for (std::size_t at = 1; at < request.size(); ++at) {
      RawClient client(server_->port());
      ASSERT_TRUE(client.send(request.substr(0, at)));
      ASSERT_TRUE(client.send(request.substr(at)));
      const auto response = client.read_response();
      ASSERT_EQ(response.status, 200) << at;
      ASSERT_EQ(response.body, "POST hello") << at;
    }
  }
}

TEST_F(ServerTest, KeepsConnectionsAndAnswersPipelinedRequestsInOrder) {
  start();
  RawClient client(server_->port());
  client.send(std::string(kPost) + kChunked + "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n" +
              "\r\nGET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.read_response().body, "POST hello");
  EXPECT_EQ(client.read_response().body, "POST hello");
  const auto stream = client.read_response();
  EXPECT_TRUE(stream.complete);
  EXPECT_EQ(stream.body, "piece 0\npiece 1\npiece 2\nend");
  const auto last = client.read_response();
  EXPECT_EQ(last.body, "GET ");
  EXPECT_EQ(last.headers.at("connection"), "close");
  EXPECT_EQ(client.read_all(), "");
}

TEST_F(ServerTest, HeadHasNoBodyAndTheConnectionStaysUsable) {
  start();
  RawClient client(server_->port());
  client.send("HEAD /echo HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto response = client.read_response(true);
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.at("content-length"), "5");
  client.send("HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(client.read_response(true).status, 200);
  client.send("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(client.read_response().body, "GET ");
}

TEST_F(ServerTest, Http10StreamsEndWithTheConnection) {
  start();
  const auto response = ask("GET /stream HTTP/1.0\r\n\r\n");
  EXPECT_EQ(response.headers.count("transfer-encoding"), 0U);
  EXPECT_EQ(response.body, "piece 0\npiece 1\npiece 2\nend");
}

TEST_F(ServerTest, ExpectContinueIsAnsweredBeforeTheBody) {
  start();
  RawClient client(server_->port());
  client.send(
      "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 100);
  client.send("hello");
  EXPECT_EQ(client.read_response().body, "POST hello");
  EXPECT_EQ(
      ask("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: magic\r\nContent-Length: 1\r\n\r\nx").status,
      417);
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                "Content-Length: 100001\r\n\r\n")
                .status,
            413);
}

TEST_F(ServerTest, RefusesBodiesOverTheLimitAndTheClientSeesWhy) {
  start();
  // Announced: refused before a byte of it came.
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n").status, 413);
  // Announced and sent in full, as most clients do.
  const auto sent = ask("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" +
                        std::string(300'000, 'x'));
  EXPECT_EQ(sent.status, 413);
  EXPECT_EQ(sent.body, R"({"error":{"message":"The request body is too large."}})");
  EXPECT_EQ(sent.headers.at("connection"), "close");
  // Chunked: refused at the limit.
  std::string chunked = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 20; ++i) chunked += "2710\r\n" + std::string(10'000, 'x') + "\r\n";
  EXPECT_EQ(ask(chunked + "0\r\n\r\n").status, 413);
  // The largest body that is allowed passes.
  EXPECT_EQ(ask("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" +
                std::string(100'000, 'x'))
                .body.size(),
            100'005U);
  expect_alive();
}

TEST_F(ServerTest, BadFramingGetsAnAnswerAndTheConnectionEnds) {
  start();
  const std::string post = "POST /echo HTTP/1.1\r\nHost: a\r\n";
  const std::string chunked = post + "Transfer-Encoding: chunked\r\n\r\n";
  const std::vector<std::pair<std::string, int>> cases = {
      {"GET /echo HTTP/1.1\n\n", 400},
      {std::string("GET /\0 HTTP/1.1\r\n", 17), 400},
      {"garbage\r\n\r\n", 400},
      {"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET /echo HTTP/3.0\r\nHost: a\r\n\r\n", 505},
      {"GET /echo HTTP/1.1\r\nHost: a\r\nX: " + std::string(17'000, 'x'), 431},
      {post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {post + "Content-Length: x\r\n\r\n", 400},
      {chunked + "-2\r\nhe\r\n0\r\n\r\n", 400},
      {chunked + "0x2\r\nhe\r\n0\r\n\r\n", 400},
      {chunked + "g\r\n", 400},
      {chunked + "2\nhe\r\n0\r\n\r\n", 400},
      {chunked + "2\r\nheXX0\r\n\r\n", 400},
      {chunked + "2;name=value\r\nhe\r\n0\r\n\r\n", 400},
      {chunked + "ffffffffffffffffff\r\n", 400},
      {chunked + "fffffffffffffff0\r\n", 413},
      {chunked + "\r\nhe\r\n0\r\n\r\n", 400},
      {chunked + std::string(40'000, '0'), 400},
  };
  for (const auto& [bytes, status] : cases) {
    RawClient client(server_->port());
    client.send(bytes);
    const auto response = client.read_response();
    EXPECT_EQ(response.status, status) << bytes.substr(0, 120);
    EXPECT_NE(response.body.find("\"error\""), std::string::npos) << bytes.substr(0, 120);
    EXPECT_EQ(client.read_all(), "") << "no second answer to: " << bytes.substr(0, 120);
    expect_alive();
  }
}

TEST_F(ServerTest, SlowClientsAreToldAndClosed) {
  ServerOptions options;
  options.header_timeout_s = 1;
  options.body_timeout_s = 1;
  options.keep_alive_timeout_s = 1;
  start(options);
  RawClient silent(server_->port());
  RawClient head(server_->port());
  head.send("GET /echo HT");
  RawClient body(server_->port());
  body.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
  RawClient idle(server_->port());
  idle.send("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(idle.read_response().status, 200);
  EXPECT_EQ(head.read_response().status, 408);
  EXPECT_EQ(body.read_response().status, 408);
  EXPECT_EQ(silent.read_all(), "");
  EXPECT_EQ(idle.read_all(), "");
}

TEST_F(ServerTest, NoticesAClientThatLeavesWhileItWaits) {
  start();
  const std::string request = "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n";
  for (int way = 0; way < 3; ++way) {
    RawClient client(server_->port());
    client.send(request);
    const auto exchange = probe_.take_waiting();
    ASSERT_NE(exchange, nullptr);
    EXPECT_FALSE(exchange->closed());
    if (way == 0) client.close();
    if (way == 1) client.reset();
    if (way == 2) client.finish_sending();
    EXPECT_TRUE(probe_.wait_for("closed", static_cast<std::size_t>(way) + 1)) << way;
    EXPECT_TRUE(exchange->closed());
    exchange->respond({});  // too late: nothing happens
  }
  expect_alive();
}

TEST_F(ServerTest, NoticesAClientThatLeavesDuringAStream) {
  start();
  RawClient client(server_->port());
  client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto exchange = probe_.take_waiting();
  ASSERT_NE(exchange, nullptr);
  exchange->start_stream({});
  exchange->write("first");
  EXPECT_NE(client.read_until("first"), "");
  client.close();
  EXPECT_TRUE(probe_.wait_for("closed"));
  exchange->write("more");
  exchange->finish();
  expect_alive();
}

TEST_F(ServerTest, AnswerFromAnotherThreadAndTimersReachTheClient) {
  start();
  RawClient client(server_->port());
  client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto exchange = probe_.take_waiting();
  ASSERT_NE(exchange, nullptr);
  exchange->start_stream({});
  exchange->post([exchange] { exchange->write("posted "); });
  exchange->post_after(1, [this, exchange] {
    exchange->write("later");
    exchange->finish();
    probe_.note("fired");
  });
  const auto response = client.read_response();
  EXPECT_EQ(response.body, "posted later");
  EXPECT_TRUE(probe_.wait_for("fired"));
}

TEST_F(ServerTest, AStreamNobodyReadsIsCutAtTheUnsentLimit) {
  ServerOptions options;
  options.max_unsent_bytes = 256U << 10;
  start(options);
  RawClient client(server_->port());
  client.send("GET /flood HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(probe_.wait_for("cut"));
  expect_alive();
}

TEST_F(ServerTest, HalfClosedClientsGetAnAnswerThatIsReady) {
  start();
  RawClient client(server_->port());
  client.send("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
  client.finish_sending();
  EXPECT_EQ(client.read_response().body, "GET ");
  EXPECT_EQ(client.read_all(), "");
}

TEST_F(ServerTest, HeadersCannotBeSmuggledIntoResponses) {
  start();
  const auto response = ask("GET /injected HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(response.headers.count("set-cookie"), 0U);
  EXPECT_EQ(response.headers.count("x-bad"), 0U);
  EXPECT_EQ(response.headers.at("x-good"), "c");
}

TEST_F(ServerTest, TooManyConnectionsAreRefusedWithAnAnswer) {
  ServerOptions options;
  options.max_connections = 1;
  start(options);
  RawClient first(server_->port());
  first.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto exchange = probe_.take_waiting();
  ASSERT_NE(exchange, nullptr);
  EXPECT_EQ(ask("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n").status, 503);
  exchange->respond({});
  EXPECT_EQ(first.read_response().status, 200);
}

TEST_F(ServerTest, StoppingCutsWhatIsOpenAndRunsItsCallbacks) {
  start();
  RawClient client(server_->port());
  client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto exchange = probe_.take_waiting();
  ASSERT_NE(exchange, nullptr);
  server_.reset();
  EXPECT_TRUE(probe_.wait_for("closed"));
  EXPECT_EQ(client.read_all(), "");
  exchange->post([this] { probe_.note("ran after the end"); });
  exchange->respond({});
}

TEST_F(ServerTest, StopAcceptingLeavesOpenExchangesAlone) {
  start();
  RawClient client(server_->port());
  client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
  const auto exchange = probe_.take_waiting();
  ASSERT_NE(exchange, nullptr);
  server_->stop_accepting();
  exchange->respond({});
  EXPECT_EQ(client.read_response().status, 200);
}

TEST(ServerErrors, NameThePortAndWhatToDo) {
  Server first({.port = 0}, [](const std::shared_ptr<Exchange>&) {});
  try {
    Server second({.port = first.port()}, [](const std::shared_ptr<Exchange>&) {});
    FAIL() << "two servers on one port";
  } catch (const StartupError& error) {
    EXPECT_NE(std::string(error.what()).find(std::to_string(first.port())), std::string::npos);
    EXPECT_NE(error.hint().find("--port"), std::string::npos);
  }
  EXPECT_THROW(Server({.host = "no such host", .port = 0}, [](const std::shared_ptr<Exchange>&) {}),
               StartupError);
}

}  // namespace
}  // namespace strata::http
