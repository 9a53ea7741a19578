#include "app/model_locator.h"

#include <fmt/core.h>

#include <algorithm>
#include <fstream>
#include <system_error>

#include "app/exit_code.h"
#include "base/result.h"

namespace strata::app {
namespace {

namespace fs = std::filesystem;

bool is_model_directory(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path / "config.json", ignored);
}

bool is_plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_not_of(
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
             std::string_view::npos;
}

// "org/name" or "name", as the hub allows them: never a path out of the cache.
bool is_hub_name(std::string_view name) {
  const std::size_t slash = name.find('/');
  if (slash == std::string_view::npos) return is_plain_name(name);
  return is_plain_name(name.substr(0, slash)) && is_plain_name(name.substr(slash + 1));
}

std::string first_line(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
  return line;
}

// models--org--name/refs/REVISION names a commit, snapshots/COMMIT holds the files.
fs::path snapshot_of(const fs::path& cache, const std::string& name, const std::string& revision) {
  std::string folder = "models--" + name;
  if (const std::size_t slash = folder.find('/'); slash != std::string::npos)
    folder.replace(slash, 1, "--");
  const fs::path repository = cache / folder;
  const std::string wanted = revision.empty() ? "main" : revision;
  const std::string commit = first_line(repository / "refs" / wanted);
  const fs::path snapshot = repository / "snapshots" / (commit.empty() ? wanted : commit);
  return is_model_directory(snapshot) ? snapshot : fs::path();
}

std::string how_to_get(const std::string& name) {
  if (name.find('/') == std::string::npos)
    return "give a directory that holds config.json, tokenizer.json and *.safetensors";
  // The gpt-oss repositories hold the weights three times; only the shards at the root are read.
  return fmt::format(
      "download it with: hf download {} --exclude 'original/*' 'metal/*'\n"
      "or give the directory that holds its config.json and *.safetensors",
      name);
}

[[noreturn]] void not_found(const std::string& model, const std::vector<fs::path>& searched,
                            const std::string& hint) {
  std::string places;
  for (const fs::path& path : searched) places += fmt::format("\n  {}", path.string());
  throw StartupError(fmt::format("model {} not found; searched:{}", model, places), hint,
                     kExitModel);
}

LocatedModel locate_embedded(const Options& options, const fs::path& executable_dir) {
  const std::string name = kEmbeddedModel;
  std::vector<fs::path> places;
  if (!options.models_dir.empty()) places.push_back(fs::path(options.models_dir) / name);
  places.push_back(executable_dir / "models" / name);
  places.push_back(executable_dir / ".." / ".." / "models" / name);
  places.push_back(executable_dir / ".." / "share" / "strata" / "models" / name);
  for (fs::path& place : places) {
    place = place.lexically_normal();
    if (is_model_directory(place)) return {place, name};
  }
  not_found(name + " (the embedded model)", places,
            "name a model directory: strata serve /path/to/gpt-oss-20b");
}

}  // namespace

std::vector<fs::path> hub_caches(const Options& options) {
  const Environment& env = options.environment;
  std::vector<fs::path> caches;
  const auto add = [&caches](const std::string& base, const char* below) {
    if (!base.empty()) caches.push_back(fs::path(base) / below);
  };
  add(options.download_dir, "");
  add(env.hf_hub_cache, "");
  add(env.huggingface_hub_cache, "");
  add(env.hf_home, "hub");
  add(env.xdg_cache_home, "huggingface/hub");
  add(env.home, ".cache/huggingface/hub");
  return caches;
}

LocatedModel locate_model(const std::string& model, const Options& options,
                          const fs::path& executable_dir) {
  if (model.empty()) return locate_embedded(options, executable_dir);
  if (is_model_directory(model)) return {fs::path(model), model};
  std::error_code ignored;
  if (fs::is_directory(model, ignored))
    throw StartupError(fmt::format("directory {} holds no config.json", model),
                       how_to_get("the model"), kExitModel);

  std::vector<fs::path> searched = {fs::absolute(model)};
  if (is_hub_name(model)) {
    if (!options.models_dir.empty()) {
      const fs::path full = fs::path(options.models_dir) / model;
      for (const fs::path& place : {full, fs::path(options.models_dir) / full.filename()}) {
        if (is_model_directory(place)) return {place, model};
        if (std::find(searched.begin(), searched.end(), place) == searched.end())
          searched.push_back(place);
      }
    }
    for (const fs::path& cache : hub_caches(options)) {
      const fs::path snapshot = snapshot_of(cache, model, options.revision);
      if (!snapshot.empty()) return {snapshot, model};
      searched.push_back(cache);
    }
    if (model == kEmbeddedModel) return locate_embedded(options, executable_dir);
  }
  not_found(model, searched, how_to_get(model));
}

fs::path executable_directory() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::current_path() : program.parent_path();
}

}  // namespace strata::app
