#include "serve/rate_limiter.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <string>

#include "tests/unit/serve/service_harness.h"

namespace strata::testing {
namespace {

using serve::RateLimiter;
using serve::RateLimits;

constexpr Nanos kSecond = 1'000'000'000;

Sha256Digest key(std::uint8_t first) {
  Sha256Digest out{};
  out[0] = first;
  return out;
}

std::map<std::string, std::string> headers_of(RateLimiter& limiter, const Sha256Digest& client) {
  const auto list = limiter.headers(client);
  return {list.begin(), list.end()};
}

TEST(RateLimiter, WithoutLimitsEverythingPassesAndNothingIsShown) {
  ManualClock clock;
  RateLimiter limiter({}, clock);
  for (int i = 0; i < 1000; ++i) {
    const auto lease = limiter.admit(key(1));
    ASSERT_TRUE(lease);
    EXPECT_TRUE((*lease)->take_prompt(1'000'000));
  }
  EXPECT_TRUE(limiter.headers(key(1)).empty());
}

TEST(RateLimiter, RunningRequestsAreCountedPerKey) {
  ManualClock clock;
  RateLimiter limiter({.concurrent_requests = 2}, clock);
  auto first = limiter.admit(key(1));
  auto second = limiter.admit(key(1));
  ASSERT_TRUE(first && second);
  const auto third = limiter.admit(key(1));
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error().code, ErrorCode::kRateLimited);
  EXPECT_EQ(third.error().detail, "rate_limit_exceeded");
  EXPECT_EQ(third.error().retry_after_s, 1);
  EXPECT_TRUE(limiter.admit(key(2)));
  first->reset();
  EXPECT_TRUE(limiter.admit(key(1)));
}

TEST(RateLimiter, RequestsFillUpEvenly) {
  ManualClock clock;
  RateLimiter limiter({.requests_per_minute = 6}, clock);
  for (int i = 0; i < 6; ++i) EXPECT_TRUE(limiter.admit(key(1))) << i;
  const auto refused = limiter.admit(key(1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().retry_after_s, 10);
  auto shown = headers_of(limiter, key(1));
  EXPECT_EQ(shown["x-ratelimit-limit-requests"], "6");
  EXPECT_EQ(shown["x-ratelimit-remaining-requests"], "0");
  EXPECT_EQ(shown["x-ratelimit-reset-requests"], "1m0s");
  EXPECT_FALSE(shown.contains("x-ratelimit-limit-tokens"));
  clock.advance(9 * kSecond);
  EXPECT_FALSE(limiter.admit(key(1)));
  clock.advance(kSecond);
  EXPECT_TRUE(limiter.admit(key(1)));
  EXPECT_FALSE(limiter.admit(key(1)));
  // A bucket holds one minute's worth, however long nothing came.
  clock.advance(3600 * kSecond);
  EXPECT_EQ(headers_of(limiter, key(1))["x-ratelimit-remaining-requests"], "6");
}

TEST(RateLimiter, TokensOfAnswersArePaidLater) {
  ManualClock clock;
  RateLimiter limiter({.tokens_per_minute = 600}, clock);
  {
    const auto lease = limiter.admit(key(1));
    ASSERT_TRUE(lease);
    EXPECT_TRUE((*lease)->take_prompt(500));
    EXPECT_FALSE((*lease)->take_prompt(200));
    (*lease)->take_answer(400);  // 300 more than there are
  }
  auto shown = headers_of(limiter, key(1));
  EXPECT_EQ(shown["x-ratelimit-limit-tokens"], "600");
  EXPECT_EQ(shown["x-ratelimit-remaining-tokens"], "0");
  EXPECT_EQ(shown["x-ratelimit-reset-tokens"], "1m30s");
  const auto refused = limiter.admit(key(1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().retry_after_s, 31);  // until one token is there
  clock.advance(31 * kSecond);
  EXPECT_TRUE(limiter.admit(key(1)));
}

TEST(RateLimiter, PromptsThatNeverFitAreToldSo) {
  ManualClock clock;
  RateLimiter limiter({.tokens_per_minute = 100}, clock);
  const auto lease = limiter.admit(key(1));
  ASSERT_TRUE(lease);
  const auto refused = (*lease)->take_prompt(101);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().retry_after_s, 0);
  EXPECT_NE(refused.error().message.find("101"), std::string::npos);
  EXPECT_TRUE((*lease)->take_prompt(100));
}

TEST(RateLimiter, ResetTimesAreWrittenAsOpenAiWritesThem) {
  EXPECT_EQ(serve::reset_text(0), "0ms");
  EXPECT_EQ(serve::reset_text(0.25), "250ms");
  EXPECT_EQ(serve::reset_text(1.5), "1.5s");
  EXPECT_EQ(serve::reset_text(59.0), "59s");
  EXPECT_EQ(serve::reset_text(360.0), "6m0s");
}

HarnessOptions limited(const RateLimits& limits) {
  HarnessOptions options;
  options.service.key_limits = limits;
  options.service.api_keys = {"one", "two"};
  return options;
}

const std::string kScript = "<|channel|>final<|message|>ok<|return|>";

TEST(RateLimits, AnswersShowThemAndRefusalsSayWhenToComeBack) {
  ServiceHarness harness({kScript},
                         limited({.requests_per_minute = 2, .tokens_per_minute = 100000}));
  const auto ask = [&](const std::string& who) {
    return harness.post("/v1/chat/completions", chat_body().dump(),
                        "Authorization: Bearer " + who + "\r\n");
  };
  const auto first = ask("one");
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(first.headers.at("x-ratelimit-limit-requests"), "2");
  EXPECT_EQ(first.headers.at("x-ratelimit-remaining-requests"), "1");
  EXPECT_EQ(first.headers.at("x-ratelimit-limit-tokens"), "100000");
  EXPECT_NE(first.headers.at("x-ratelimit-remaining-tokens"), "100000");
  EXPECT_NE(first.headers.at("x-ratelimit-reset-tokens"), "");
  EXPECT_EQ(ask("one").status, 200);
  const auto refused = ask("one");
  EXPECT_EQ(refused.status, 429);
  const auto error = json::parse(refused.body)["error"];
  EXPECT_EQ(error["type"], "rate_limit_error");
  EXPECT_EQ(error["code"], "rate_limit_exceeded");
  EXPECT_EQ(refused.headers.at("retry-after"), "30");
  EXPECT_EQ(refused.headers.at("x-ratelimit-remaining-requests"), "0");
  // The other key has limits of its own; other routes are not counted.
  EXPECT_EQ(ask("two").status, 200);
  EXPECT_EQ(harness.get("/v1/models", "Authorization: Bearer one\r\n").status, 200);
  const auto metrics = harness.get("/metrics", "Authorization: Bearer one\r\n").body;
  EXPECT_NE(metrics.find(R"(reason="rate_limit"} 1)"), std::string::npos);
}

TEST(RateLimits, ARunningRequestHoldsItsPlaceUntilItEnds) {
  auto options = limited({.concurrent_requests = 1});
  options.step_delay_us = 20000;
  options.max_model_len = 2048;
  ServiceHarness harness({"<|channel|>final<|message|>" + std::string(2000, 'x')}, options);
  auto body = chat_body();
  body["stream"] = true;
  const auto text = body.dump();
  RawClient client(harness.port());
  client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer one\r\n" +
              std::string("Content-Length: ") + std::to_string(text.size()) + "\r\n\r\n" + text);
  ASSERT_NE(client.read_until("\n\n"), "");
  const auto ask = [&] {
    auto quick = chat_body();
    quick["max_tokens"] = 1;
    return harness.post("/v1/chat/completions", quick.dump(), "Authorization: Bearer one\r\n")
        .status;
  };
  EXPECT_EQ(ask(), 429);
  client.reset();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  int status = 429;
  while (status == 429 && std::chrono::steady_clock::now() < deadline) status = ask();
  EXPECT_EQ(status, 200);
}

TEST(RateLimits, WithoutKeysAllClientsAreOne) {
  HarnessOptions options;
  options.service.key_limits.requests_per_minute = 1;
  ServiceHarness harness({kScript}, options);
  EXPECT_EQ(harness.post("/v1/completions", R"({"prompt":"a"})").status, 200);
  EXPECT_EQ(harness.post("/v1/completions", R"({"prompt":"a"})", "Authorization: Bearer other\r\n")
                .status,
            429);
}

}  // namespace
}  // namespace strata::testing
