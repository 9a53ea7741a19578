// ModelSetup: everything about the model that is known before its weights are loaded, and the
// factory that loads it. Made by each command on the main thread; const afterwards, so the engine
// may call build() again from its thread after the device died.
#pragma once

#include <memory>
#include <string>

#include "app/model_locator.h"
#include "app/options.h"
#include "base/model_config.h"
#include "engine/engine.h"
#include "engine/model.h"
#include "kernels/cpu/isa.h"
#include "model/memory_plan.h"
#include "model/transformer_model.h"
#include "tokenizer/tokenizer.h"
#include "weights/checkpoint.h"

namespace strata::app {

class ModelSetup {
 public:
  // Locates and opens tokenizer, configuration and checkpoint and plans memory; reads no weights.
  // Throws StartupError.
  explicit ModelSetup(const Options& options);

  // What clients ask for, unless --served-model-name says otherwise.
  const std::string& name() const { return located_.name; }
  // The model and where it is from, for people.
  std::string description() const;
  const std::filesystem::path& directory() const { return located_.directory; }
  const tokenizer::Tokenizer& tokenizer() const { return *tokenizer_; }
  const ModelConfig& config() const { return config_; }
  // Where memory goes; the scripted model needs none.
  const MemoryPlan& plan() const { return plan_; }
  // What was asked for, with the backend chosen and what was left to it filled in.
  const Options& options() const { return options_; }
  int threads() const { return threads_; }
  kernels::CpuIsa cpu_isa() const;

  // Loads the weights. Throws StartupError, or MemoryError when an allocation failed.
  std::unique_ptr<Model> build() const;
  // The same without decorators, for `bench`. REQUIRES a load format other than scripted. Throws
  // StartupError only, with kExitMemory when an allocation failed.
  std::unique_ptr<TransformerModel> build_transformer() const;

 private:
  void choose_backend();
  std::unique_ptr<TransformerModel> load_transformer() const;
  std::unique_ptr<Model> build_scripted() const;

  Options options_;  // const after construction, as all is
  LocatedModel located_;
  std::unique_ptr<const tokenizer::Tokenizer> tokenizer_;
  std::unique_ptr<const weights::Checkpoint> checkpoint_;  // null for the scripted model
  ModelConfig config_;
  MemoryPlan plan_;
  int threads_ = 1;
};

// The engine over setup.build(), which it calls again whenever it needs the model anew. `setup`
// outlives it. Throws StartupError.
std::unique_ptr<Engine> make_engine(const ModelSetup& setup);

}  // namespace strata::app
