// The table of command-line flags: the program's own and those that users of vLLM carry over.
// Every flag has one documented effect; docs/cli.md lists the same rows.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "app/options.h"

namespace strata::app {

enum class FlagKind {
  kSwitch,    // --x, --no-x, --x=true|false
  kValue,     // --x V; the last one counts
  kList,      // --x V V ...
  kRepeated,  // --x V --x V
};

enum class FlagEffect {
  kHonoured,
  kCard,     // honoured on a card; with --backend cpu or ref one line says that it has no effect
  kInert,    // accepted; one line says why it has no effect
  kRefused,  // fails, unless it asks for what is so anyway (`quiet`)
};

// Which commands take a flag, as bits 1 << Command.
using CommandSet = unsigned;
constexpr CommandSet command_bit(Command command) { return 1U << static_cast<unsigned>(command); }
inline constexpr CommandSet kServeOnly = command_bit(Command::kServe);
inline constexpr CommandSet kChatOnly = command_bit(Command::kChat);
inline constexpr CommandSet kBenchOnly = command_bit(Command::kBench);
inline constexpr CommandSet kBenchServeOnly = command_bit(Command::kBenchServe);
inline constexpr CommandSet kPlanOnly = command_bit(Command::kPlan);
// `plan` takes whatever `serve` takes, so that a command line can be tried before it is run.
inline constexpr CommandSet kServing = kServeOnly | kPlanOnly;
inline constexpr CommandSet kEvery = kServing | kChatOnly | kBenchOnly;

struct FlagSpec;

// A flag as it was given.
struct FlagUse {
  const FlagSpec& spec;
  std::vector<std::string> values;  // kSwitch: "true" or "false"
  const std::string& value() const { return values.back(); }
  bool on() const { return values.back() == "true"; }
};

struct FlagSpec {
  const char* name;  // with "--"
  FlagKind kind;
  FlagEffect effect;
  CommandSet commands;
  const char* group;  // heading in --help; "" leaves the flag out of it
  const char* text;   // kHonoured, kCard: the help; kInert, kRefused: the reason
  // kRefused: values, separated by '|', that ask for what is the case anyway and are let pass.
  const char* quiet = "";
  // Checks the value and, when honoured, stores it. Throws StartupError.
  void (*apply)(Options&, const FlagUse&) = nullptr;
};

std::span<const FlagSpec> honoured_flags();
std::span<const FlagSpec> inert_flags();
std::span<const FlagSpec> refused_flags();
// Of `bench serve`, with effect or without: names of other commands' flags may mean something else.
std::span<const FlagSpec> load_flags();

// The flag of that exact name that `command` takes, or nullptr.
const FlagSpec* find_flag(std::string_view name, Command command);
std::vector<const FlagSpec*> flags_of(Command command);

// Whether the use asks for nothing beyond `quiet`.
bool is_quiet(const FlagUse& use);

// The name of a flag of `command` closest to `name`, or "" when none is near.
std::string nearest_flag(std::string_view name, Command command);

// Short and old spellings -> the table's names: -tp, -q, --a_b, --disable-log-requests ...
// Dotted keys (-cc.level=3) become --flag=key=value.
std::string canonical_argument(const std::string& argument);

}  // namespace strata::app
