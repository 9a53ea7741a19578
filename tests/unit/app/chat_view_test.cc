#include "app/chat_view.h"

#include <gtest/gtest.h>

namespace strata::app {
namespace {

using harmony::Event;
using harmony::EventKind;
using harmony::MessageKind;

std::string show_message(ChatView& view, MessageKind kind, const std::vector<std::string>& pieces) {
  std::string out = view.show({EventKind::kMessageStart, kind, "", "", kNoToken});
  for (const std::string& piece : pieces)
    out += view.show({EventKind::kContent, kind, piece, "", kNoToken});
  return out + view.show({EventKind::kMessageEnd, kind, "", "", kNoToken});
}

std::string show_answer(ChatView& view) {
  std::string out = show_message(view, MessageKind::kAnalysis, {"Let me ", "see."});
  out += show_message(view, MessageKind::kFinal, {"Four", "."});
  return out + view.finish();
}

TEST(ChatView, DimsReasoning) {
  ChatView view({.reasoning = true, .color = true});
  EXPECT_EQ(show_answer(view), "\033[2mLet me see.\033[0m\nFour.\n");
}

TEST(ChatView, BracketsReasoningWithoutColor) {
  ChatView view({.reasoning = true, .color = false});
  EXPECT_EQ(show_answer(view), "[Let me see.]\nFour.\n");
}

TEST(ChatView, LeavesReasoningOutOfPipes) {
  ChatView view({.reasoning = false, .color = false});
  EXPECT_EQ(show_answer(view), "Four.\n");
  EXPECT_EQ(view.reasoning(), "Let me see.");
  EXPECT_EQ(view.answer(), "Four.");
}

TEST(ChatView, ClosesWhatWasCutOff) {
  ChatView view({.reasoning = true, .color = true});
  std::string out = view.show({EventKind::kMessageStart, MessageKind::kAnalysis, "", "", kNoToken});
  out += view.show({EventKind::kContent, MessageKind::kAnalysis, "Hm", "", kNoToken});
  EXPECT_EQ(out + view.finish(), "\033[2mHm\033[0m\n");
  EXPECT_EQ(view.finish(), "");
}

TEST(ChatView, NeverShowsDiscardedMessages) {
  ChatView view({.reasoning = true, .color = false});
  EXPECT_EQ(show_message(view, MessageKind::kDiscarded, {"secret"}) + view.finish(), "");
  EXPECT_EQ(view.answer(), "");
}

TEST(ChatView, AnswersEndWithOneNewline) {
  ChatView view({});
  EXPECT_EQ(show_message(view, MessageKind::kFinal, {"a\n"}) + view.finish(), "a\n");
}

}  // namespace
}  // namespace strata::app
