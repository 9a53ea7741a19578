// SignalWatcher: SIGINT and SIGTERM as events of one thread.
//
// Make it in main before any other thread starts: it blocks both signals, and threads inherit that.
// Until on_signal() is called a signal ends the process at once, as it would by default.
#pragma once

#include <functional>
#include <mutex>
#include <thread>

namespace strata::app {

class SignalWatcher {
 public:
  SignalWatcher();
  ~SignalWatcher();
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;

  // From now on `handler` gets every signal's number and how many came before, on the watcher's
  // thread. It may end the process.
  void on_signal(std::function<void(int signal, int earlier)> handler);

  // Ends the process at once, without destructors, with kExitSignal + signal.
  [[noreturn]] static void exit_now(int signal);

 private:
  void watch();

  int signal_fd_ = -1;
  int stop_fd_ = -1;
  std::mutex mutex_;
  std::function<void(int, int)> handler_;  // GUARDED_BY(mutex_)
  std::thread thread_;
};

}  // namespace strata::app
