#include "http/head_check.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace strata::http {
namespace {

TEST(HeadCheck, AcceptsOrdinaryHeads) {
  for (const char* head : {
           "GET / HTTP/1.1\r\nHost: localhost:8000\r\n\r\n",
           "POST /v1/x HTTP/1.1\r\nhost: [::1]:80\r\nContent-Length: 0\r\nX-A:\t b c \r\n\r\n",
           "POST / HTTP/1.1\r\nHost:\r\nTransfer-Encoding: Chunked\r\n\r\n",
           "GET / HTTP/1.0\r\n\r\n",
           "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
       })
    EXPECT_EQ(check_head(head).status, 0) << head << check_head(head).message;
}

struct Case {
  const char* head;
  int status;
};

TEST(HeadCheck, RefusesWhatServersDisagreeAbout) {
  const std::vector<Case> cases = {
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\tfolded\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n", 400},
      {"GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: a\x01z\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fz\r\n\r\n", 400},
      {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET / x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET /\r\nHost: a\r\n\r\n", 400},
      {"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET / http/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
      {"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 413},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
       400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0b"
       "chunked\r\n\r\n",
       400},
      {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: "
       "chunked\r\n\r\n",
       400},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
  };
  for (const auto& c : cases) {
    const auto verdict = check_head(c.head);
    EXPECT_EQ(verdict.status, c.status) << c.head;
    EXPECT_NE(std::string(verdict.message), "") << c.head;
  }
}

TEST(HeadCheck, LimitsTheNumberOfFields) {
  std::string head = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (int i = 1; i < kMaxHeaderFields; ++i) head += "x: 1\r\n";
  EXPECT_EQ(check_head(head + "\r\n").status, 0);
  EXPECT_EQ(check_head(head + "x: 1\r\n\r\n").status, 431);
}

TEST(HeadCheck, FindsBytesThatCanNeverBecomeAHead) {
  EXPECT_FALSE(has_bad_byte("GET / HTTP/1.1\r\nHo", 0));
  EXPECT_TRUE(has_bad_byte("GET / HTTP/1.1\n", 0));
  EXPECT_TRUE(has_bad_byte(std::string_view("GE\0", 3), 0));
  EXPECT_FALSE(has_bad_byte("a\r\n", 2)) << "the carriage return lies before the scanned part";
}

TEST(SplitTarget, DecodesPathsAndKeepsQueriesRaw) {
  std::string path;
  std::string query;
  ASSERT_TRUE(split_target("/v1/models/gpt%2Doss%20x?a=%20b", path, query));
  EXPECT_EQ(path, "/v1/models/gpt-oss x");
  EXPECT_EQ(query, "a=%20b");
  ASSERT_TRUE(split_target("http://host:1/a?b", path, query));
  EXPECT_EQ(path, "/a");
  ASSERT_TRUE(split_target("http://host", path, query));
  EXPECT_EQ(path, "/");
  ASSERT_TRUE(split_target("*", path, query));
  for (const char* bad : {"/%", "/%1", "/%zz", "/%00", "x", "ftp://a/"})
    EXPECT_FALSE(split_target(bad, path, query)) << bad;
}

}  // namespace
}  // namespace strata::http
