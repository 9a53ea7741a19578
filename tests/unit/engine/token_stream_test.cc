#include "engine/token_stream.h"

#include <gtest/gtest.h>

#include <thread>

namespace strata {
namespace {

TokenOutput token(TokenId id) {
  TokenOutput output;
  output.token = id;
  return output;
}

PromptLogprob prompt_token(TokenId id) {
  PromptLogprob logprob;
  logprob.token = id;
  return logprob;
}

TEST(TokenStream, GivesEachThingOnce) {
  TokenStream stream;
  EXPECT_TRUE(stream.push(token(1)));
  EXPECT_TRUE(stream.push(token(2)));
  stream.push_prompt({prompt_token(7)});
  stream.push_prompt({prompt_token(8)});
  stream.set_progress(3, -1);
  TokenStream::Batch batch = stream.take();
  ASSERT_EQ(batch.tokens.size(), 2U);
  EXPECT_EQ(batch.tokens[1].token, 2);
  ASSERT_EQ(batch.prompt.size(), 2U);
  EXPECT_EQ(batch.prompt[1].token, 8);
  EXPECT_EQ(batch.queue_position, 3);
  EXPECT_FALSE(batch.end);
  batch = stream.take();
  EXPECT_TRUE(batch.tokens.empty());
  EXPECT_TRUE(batch.prompt.empty());
  EXPECT_EQ(batch.queue_position, -1);
}

TEST(TokenStream, RefusesTokensBeyondItsCapacityUntilTheyAreTaken) {
  TokenStream stream(2);
  EXPECT_TRUE(stream.push(token(1)));
  EXPECT_TRUE(stream.push(token(2)));
  EXPECT_FALSE(stream.push(token(3)));
  EXPECT_EQ(stream.take().tokens.size(), 2U);
  EXPECT_TRUE(stream.push(token(3)));
}

TEST(TokenStream, TheEndFitsEvenWhenTokensDoNot) {
  TokenStream stream(0);
  EXPECT_FALSE(stream.push(token(1)));
  SequenceEnd end;
  end.reason = FinishReason::kError;
  stream.end(end);
  EXPECT_EQ(stream.take().end->reason, FinishReason::kError);
  EXPECT_FALSE(stream.take().end);
}

TEST(TokenStreamDeath, ASecondEndIsABug) {
  TokenStream stream;
  stream.end({});
  EXPECT_DEATH(stream.end({}), "one end");
}

TEST(TokenStream, OneProducerOneConsumer) {
  TokenStream stream(1'000'000);
  constexpr int kCount = 20'000;
  std::thread producer([&] {
    for (int i = 0; i < kCount; ++i) EXPECT_TRUE(stream.push(token(i)));
    stream.end({});
  });
  std::vector<TokenId> got;
  bool ended = false;
  while (!ended) {
    const TokenStream::Batch batch = stream.take();
    for (const TokenOutput& output : batch.tokens) got.push_back(output.token);
    ended = batch.end.has_value();
  }
  producer.join();
  ASSERT_EQ(got.size(), static_cast<std::size_t>(kCount));
  for (int i = 0; i < kCount; ++i) ASSERT_EQ(got[static_cast<std::size_t>(i)], i);
}

}  // namespace
}  // namespace strata
