// CHECK: broken invariants abort with file, line and the values involved. Never for input.
#pragma once

#include <fmt/core.h>

#include <string>

namespace strata {

[[noreturn]] void check_failed(const char* file, int line, const char* what,
                               const std::string& message);

}  // namespace strata

#define STRATA_CHECK(cond, ...)                                                         \
  do {                                                                                  \
    if (!(cond)) [[unlikely]]                                                           \
      ::strata::check_failed(__FILE__, __LINE__, #cond, ::fmt::format("" __VA_ARGS__)); \
  } while (0)

#ifdef NDEBUG
#define STRATA_DCHECK(cond, ...) \
  do {                           \
  } while (0 && (cond))
#else
#define STRATA_DCHECK(cond, ...) STRATA_CHECK(cond, __VA_ARGS__)
#endif
