// The program's version, as `strata --version` and the API tell it.
#pragma once

namespace strata::app {

inline constexpr const char* kVersion = STRATA_VERSION;

}  // namespace strata::app
