// Checkpoint: a model's tensors as a stream of views in file order, whatever they come from:
// safetensors shards of a directory, or the dummy generator. Nothing is read before a view's
// source is asked. One loader thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/model_config.h"
#include "base/tensor_view.h"

namespace strata::weights {

class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  virtual const ModelConfig& config() const = 0;
  // Calls `sink` for every tensor, in file order, each exactly once; the page cache behind a
  // tensor may be dropped when its call returns. Views and sources are valid during the call.
  virtual void stream(const std::function<void(const TensorView&)>& sink) const = 0;
  virtual std::uint64_t total_bytes() const = 0;
};

// Opens `directory` (config.json plus *.safetensors, with or without an index). Checks everything
// that can be checked without reading payloads: header syntax, sizes, holes, overlaps, duplicate
// keys, index against shards, names, dtypes and shapes against the config. Throws StartupError
// naming file, tensor and offset.
std::unique_ptr<Checkpoint> open_checkpoint(const std::filesystem::path& directory);

// Random weights of a known shape, made at memory speed by a counter-based generator and the same
// on every device. `spec` is what follows "dummy": "", ":20b", ":120b:7", ":tiny"; with an empty
// name the shape of `fallback` is used. Throws StartupError on a bad spec.
std::unique_ptr<Checkpoint> make_dummy_checkpoint(std::string_view spec,
                                                  const ModelConfig& fallback);

// Reads config.json text into a ModelConfig; both rope forms. Throws StartupError naming the key.
ModelConfig parse_model_config(std::string_view json_text, std::string_view file_name);

}  // namespace strata::weights
