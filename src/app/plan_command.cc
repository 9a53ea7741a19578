#include <fmt/core.h>

#include "app/commands.h"
#include "app/exit_code.h"
#include "app/model_setup.h"

namespace strata::app {

int run_plan(const Options& options) {
  const ModelSetup setup(options);
  if (options.json) fmt::print("{}\n", plan_json(setup.plan()));
  else fmt::print("{}\n{}", setup.description(), format_plan(setup.plan()));
  return kExitOk;
}

}  // namespace strata::app
