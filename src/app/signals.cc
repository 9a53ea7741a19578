#include "app/signals.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "app/exit_code.h"
#include "base/check.h"

namespace strata::app {

SignalWatcher::SignalWatcher() {
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGINT);
  sigaddset(&watched, SIGTERM);
  STRATA_CHECK(pthread_sigmask(SIG_BLOCK, &watched, nullptr) == 0);
  signal_fd_ = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
  stop_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  STRATA_CHECK(signal_fd_ >= 0 && stop_fd_ >= 0, "no descriptors left");
  thread_ = std::thread([this] { watch(); });
}

SignalWatcher::~SignalWatcher() {
  const std::uint64_t one = 1;
  STRATA_CHECK(write(stop_fd_, &one, sizeof one) == sizeof one);
  thread_.join();
  close(signal_fd_);
  close(stop_fd_);
}

void SignalWatcher::on_signal(std::function<void(int, int)> handler) {
  const std::lock_guard lock(mutex_);
  handler_ = std::move(handler);
}

void SignalWatcher::exit_now(int signal) { std::_Exit(kExitSignal + signal); }

void SignalWatcher::watch() {
  int seen = 0;
  for (;;) {
    std::array<pollfd, 2> waiting = {{{signal_fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}}};
    if (poll(waiting.data(), waiting.size(), -1) < 0) continue;
    if (waiting[1].revents != 0) return;
    signalfd_siginfo info{};
    if (read(signal_fd_, &info, sizeof info) != sizeof info) continue;
    const int signal = static_cast<int>(info.ssi_signo);
    const std::lock_guard lock(mutex_);
    if (!handler_) exit_now(signal);
    handler_(signal, seen++);
  }
}

}  // namespace strata::app
