#include "base/fault.h"

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <map>
#include <mutex>
#include <thread>

namespace strata::fault {
namespace internal {
std::atomic<bool> armed{false};
}

namespace {

struct Plan {
  Action action = Action::kNone;
  int delay_ms = 0;
  long fire_on = 1;  // 0: every hit
  long hits = 0;
};

std::mutex mutex;
std::map<std::string, Plan, std::less<>>& plans() {
  static std::map<std::string, Plan, std::less<>> instance;
  return instance;
}

Result<Plan> parse_plan(std::string_view text) {
  Plan plan;
  std::string_view count;
  if (const auto colon = text.find(':'); colon != std::string_view::npos) {
    count = text.substr(colon + 1);
    text = text.substr(0, colon);
  }
  if (count == "*") {
    plan.fire_on = 0;
  } else if (!count.empty()) {
    const auto [end, ec] = std::from_chars(count.data(), count.data() + count.size(), plan.fire_on);
    if (ec != std::errc() || end != count.data() + count.size() || plan.fire_on < 1)
      return invalid("fault point count must be a positive number or *", "fault-inject");
  }
  constexpr std::string_view delay = "delay_ms=";
  if (text == "error") plan.action = Action::kError;
  else if (text == "oom") plan.action = Action::kOom;
  else if (text == "hang") plan.action = Action::kHang;
  else if (text == "exit") plan.action = Action::kExit;
  else if (text.substr(0, delay.size()) == delay) {
    plan.action = Action::kDelay;
    plan.delay_ms = std::atoi(std::string(text.substr(delay.size())).c_str());
  } else {
    return invalid("unknown fault action '" + std::string(text) + "'", "fault-inject");
  }
  return plan;
}

}  // namespace

namespace internal {

Action hit(const char* point) {
  Plan due;
  {
    const std::lock_guard lock(mutex);
    const auto found = plans().find(std::string_view(point));
    if (found == plans().end()) return Action::kNone;
    Plan& plan = found->second;
    ++plan.hits;
    if (plan.fire_on != 0 && plan.hits != plan.fire_on) return Action::kNone;
    due = plan;
  }
  switch (due.action) {
    case Action::kDelay:
      std::this_thread::sleep_for(std::chrono::milliseconds(due.delay_ms));
      return Action::kNone;
    case Action::kHang:
      while (armed.load()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      return Action::kNone;
    case Action::kExit: std::_Exit(70);
    default: return due.action;
  }
}

}  // namespace internal

Result<void> arm(std::string_view spec) {
  std::map<std::string, Plan, std::less<>> parsed;
  while (!spec.empty()) {
    const auto comma = spec.find(',');
    const std::string_view item = spec.substr(0, comma);
    spec = comma == std::string_view::npos ? std::string_view{} : spec.substr(comma + 1);
    const auto equals = item.find('=');
    if (equals == std::string_view::npos || equals == 0)
      return invalid("a fault is written point=action", "fault-inject");
    auto plan = parse_plan(item.substr(equals + 1));
    if (!plan) return Unexpected(plan.error());
    parsed[std::string(item.substr(0, equals))] = *plan;
  }
  const std::lock_guard lock(mutex);
  plans() = std::move(parsed);
  internal::armed.store(!plans().empty());
  return {};
}

void disarm() {
  internal::armed.store(false);
  const std::lock_guard lock(mutex);
  plans().clear();
}

}  // namespace strata::fault
