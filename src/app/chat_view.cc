#include "app/chat_view.h"

namespace strata::app {
namespace {

constexpr const char* kDim = "\033[2m";
constexpr const char* kPlain = "\033[0m";

}  // namespace

std::string ChatView::open(harmony::MessageKind kind) {
  in_reasoning_ = kind == harmony::MessageKind::kAnalysis && style_.reasoning;
  std::string out = at_line_start_ ? "" : "\n";
  at_line_start_ = true;
  if (in_reasoning_) out += style_.color ? kDim : "[";
  return out;
}

std::string ChatView::close() {
  if (!in_reasoning_) return {};
  in_reasoning_ = false;
  return style_.color ? kPlain : "]";
}

std::string ChatView::show(const harmony::Event& event) {
  using harmony::EventKind;
  using harmony::MessageKind;
  if (event.message == MessageKind::kDiscarded) return {};
  const bool hidden = event.message == MessageKind::kAnalysis && !style_.reasoning;
  switch (event.kind) {
    case EventKind::kMessageStart: return hidden ? std::string() : open(event.message);
    case EventKind::kMessageEnd: return close();
    case EventKind::kContent: break;
  }
  (event.message == MessageKind::kAnalysis ? reasoning_ : answer_) += event.text;
  if (hidden || event.text.empty()) return {};
  at_line_start_ = event.text.back() == '\n' && !in_reasoning_;
  return event.text;
}

std::string ChatView::finish() {
  std::string out = close();
  if (!at_line_start_ || !out.empty()) out += "\n";
  at_line_start_ = true;
  return out;
}

}  // namespace strata::app
