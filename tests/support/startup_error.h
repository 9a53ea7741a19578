// The message of the StartupError that `action` throws; "" (and a test failure) when it throws
// none.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "base/result.h"

namespace strata::test {

template <typename Action>
std::string startup_error_of(Action&& action) {
  try {
    action();
  } catch (const StartupError& error) {
    return error.what();
  }
  ADD_FAILURE() << "no StartupError was thrown";
  return {};
}

}  // namespace strata::test
