#include "loadgen/spec_decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace strata::loadgen {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;

constexpr const char* kBefore = R"(# HELP vllm:spec_decode_num_drafts_total x
vllm:spec_decode_num_drafts_total{engine="0"} 10.0
vllm:spec_decode_num_drafts_created{engine="0"} 1.7e9
vllm:spec_decode_num_draft_tokens_total{engine="0"} 30.0
vllm:spec_decode_num_accepted_tokens_total{engine="0"} 12.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="0"} 8.0
)";
constexpr const char* kAfter = R"(vllm:spec_decode_num_drafts_total{engine="0"} 20.0
vllm:spec_decode_num_draft_tokens_total{engine="0"} 60.0
vllm:spec_decode_num_accepted_tokens_total{engine="0"} 27.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="0"} 17.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="1"} 6.0
)";

TEST(SpecDecode, IsWhatCameInBetween) {
  const auto figures = spec_decode_between(read_spec_decode(kBefore), read_spec_decode(kAfter));
  ASSERT_TRUE(figures);
  EXPECT_EQ(figures->drafts, 10);
  EXPECT_EQ(figures->draft_tokens, 30);
  EXPECT_EQ(figures->accepted_tokens, 15);
  EXPECT_DOUBLE_EQ(figures->acceptance_rate, 50.0);
  EXPECT_DOUBLE_EQ(figures->acceptance_length, 2.5);
  EXPECT_THAT(figures->rate_at, ElementsAre(DoubleEq(0.9), DoubleEq(0.6)));
}

TEST(SpecDecode, NothingWithoutDrafts) {
  EXPECT_FALSE(read_spec_decode("vllm:num_requests_running 0\n"));
  EXPECT_FALSE(read_spec_decode(""));
  EXPECT_FALSE(spec_decode_between(read_spec_decode(kAfter), read_spec_decode(kAfter)));
  EXPECT_FALSE(spec_decode_between({}, read_spec_decode(kAfter)));
}

}  // namespace
}  // namespace strata::loadgen
