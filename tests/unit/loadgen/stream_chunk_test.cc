#include "loadgen/stream_chunk.h"

#include <gtest/gtest.h>

namespace strata::loadgen {
namespace {

TEST(StreamChunk, TextOfACompletion) {
  const auto chunk = read_chunk(
      R"({"id":"c","choices":[{"index":0,"text":"hi","logprobs":{"tokens":["x"],"text":"no"},"finish_reason":null}]})");
  ASSERT_TRUE(chunk);
  EXPECT_TRUE(chunk->has_choice);
  EXPECT_FALSE(chunk->has_finish);
  EXPECT_EQ(chunk->text, "hi");
}

TEST(StreamChunk, DeltaOfAChat) {
  const auto chunk = read_chunk(
      R"({"choices":[{"delta":{"role":"assistant","reasoning":"so ","content":"yes"},"finish_reason":"stop"}]})");
  ASSERT_TRUE(chunk);
  EXPECT_EQ(chunk->text, "yes");  // as vLLM: without the reasoning
  EXPECT_TRUE(chunk->has_finish);
}

TEST(StreamChunk, UsageWithoutAChoice) {
  const auto chunk = read_chunk(
      R"({"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":34,"prompt_tokens_details":{"completion_tokens":1}}})");
  ASSERT_TRUE(chunk);
  EXPECT_FALSE(chunk->has_choice);
  EXPECT_EQ(chunk->prompt_tokens, 12);
  EXPECT_EQ(chunk->completion_tokens, 34);
  EXPECT_FALSE(chunk->error);
  EXPECT_FALSE(read_chunk(R"({"choices":[{"text":""}],"usage":null})")->completion_tokens);
}

TEST(StreamChunk, ErrorsOfEveryShape) {
  EXPECT_EQ(read_chunk(R"({"error":{"message":"broken","code":500}})")->error, "broken");
  EXPECT_EQ(read_chunk(R"({"error":"plain"})")->error, "plain");
  EXPECT_EQ(read_chunk(R"({"error":{"code":1}})")->error, "");
  EXPECT_FALSE(read_chunk(R"({"error":null})")->error);
}

TEST(StreamChunk, IsAnObject) {
  for (const char* bad : {"", "[]", "3", "{", "[DONE]", "{\"a\":}"})
    EXPECT_FALSE(read_chunk(bad)) << bad;
}

}  // namespace
}  // namespace strata::loadgen
