// FaultModel: a Model that fails on purpose, for --fault-inject and tests. It passes every call on
// to another model and visits fault points: "model.submit" on the engine thread; "model.wait" on a
// thread of its own between the step's end and the engine hearing of it, so that a delay or a hang
// there looks like a slow or hung device.
#pragma once

#include <memory>

#include "engine/model.h"

namespace strata {

std::unique_ptr<Model> make_fault_model(std::unique_ptr<Model> inner);

}  // namespace strata
