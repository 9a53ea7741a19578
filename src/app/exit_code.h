// Exit codes of the program: an interface for service managers and tests, listed in docs/cli.md.
#pragma once

namespace strata::app {

inline constexpr int kExitOk = 0;        // finished, or drained after SIGTERM or SIGINT
inline constexpr int kExitFailure = 1;   // the engine died or a request of `bench` or `chat` failed
inline constexpr int kExitUsage = 2;     // command line
inline constexpr int kExitModel = 3;     // model or script not found, broken or unsupported
inline constexpr int kExitMemory = 4;    // not enough memory for what was asked
inline constexpr int kExitAddress = 5;   // host or port cannot be used
inline constexpr int kExitSignal = 128;  // + signal number: ended at once by a signal

}  // namespace strata::app
