// Where the model's files are: MODEL of the command line -> a directory. Start-up only.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "app/options.h"

namespace strata::app {

struct LocatedModel {
  std::filesystem::path directory;  // holds config.json
  std::string name;                 // as typed, or the embedded model's: what clients ask for
};

inline constexpr const char* kEmbeddedModel = "strata-tiny";

// The Hugging Face hub caches in search order, without empty ones.
std::vector<std::filesystem::path> hub_caches(const Options& options);

// `model`: a directory; a name org/name or name in --models-dir or a hub cache; empty: the embedded
// model, searched beside the executable in `executable_dir`, in the source tree above it and in
// ../share/strata/models. Throws StartupError that lists the places and how to get the model.
LocatedModel locate_model(const std::string& model, const Options& options,
                          const std::filesystem::path& executable_dir);

// The directory of the running program.
std::filesystem::path executable_directory();

}  // namespace strata::app
