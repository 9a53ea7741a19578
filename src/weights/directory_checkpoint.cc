// A checkpoint directory in the Hugging Face layout: config.json, *.safetensors and, for several
// shards, model.safetensors.index.json. Opening reads headers only; stream() reads each file once,
// front to back.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <unordered_map>

#include "base/log.h"
#include "base/result.h"
#include "weights/checkpoint.h"
#include "weights/shard_file.h"
#include "weights/tensor_map.h"

namespace strata::weights {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfigName = "config.json";
constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr std::uint64_t kMaxConfigBytes = 16U << 20;
constexpr std::uint64_t kMaxIndexBytes = 256U << 20;

struct Shard {
  fs::path path;
  std::uint64_t bytes = 0;
  std::vector<TensorEntry> entries;  // by offset
};

// MemAvailable in bytes; 0 where /proc does not tell.
std::uint64_t available_memory() {
  std::ifstream info("/proc/meminfo");
  std::string key;
  std::uint64_t kib = 0;
  for (std::string rest; info >> key >> kib; std::getline(info, rest))
    if (key == "MemAvailable:") return kib << 10;
  return 0;
}

// Where weights and their cached file do not fit into memory side by side, the cache behind the
// reader is dropped, before the kernel drops what others use; else it stays, so that the next start
// is fast.
bool drops_cache(std::uint64_t total_bytes) { return total_bytes > available_memory() / 2; }

class DirectoryCheckpoint final : public Checkpoint {
 public:
  DirectoryCheckpoint(ModelConfig config, std::vector<Shard> shards)
      : config_(std::move(config)), shards_(std::move(shards)) {
    for (const Shard& shard : shards_)
      for (const TensorEntry& entry : shard.entries) total_bytes_ += entry.bytes;
  }

  const ModelConfig& config() const override { return config_; }
  std::uint64_t total_bytes() const override { return total_bytes_; }

  void stream(const std::function<void(const TensorView&)>& sink) const override {
    const bool drop = drops_cache(total_bytes_);
    for (const Shard& shard : shards_) {
      const ShardFile file(shard.path);
      if (file.bytes() != shard.bytes)
        fail_at(file.name(), {}, file.bytes(),
                fmt::format("the size changed from {} bytes since it was opened", shard.bytes));
      for (const TensorEntry& entry : shard.entries) {
        const FileTensorSource source(file, entry);
        sink(TensorView{entry.name, entry.dtype, entry.shape, file.name(), entry.begin, &source});
        if (drop) file.drop_cache(entry.begin, entry.bytes);
      }
    }
  }

 private:
  ModelConfig config_;
  std::vector<Shard> shards_;
  std::uint64_t total_bytes_ = 0;
};

std::set<std::string> safetensors_files(const fs::path& directory) {
  std::error_code error;
  const fs::directory_iterator items(directory, error);
  if (error)
    throw StartupError(fmt::format("{}: cannot list: {}", directory.string(), error.message()));
  std::set<std::string> names;
  for (const auto& item : items)
    if (item.path().extension() == ".safetensors") names.insert(item.path().filename().string());
  return names;
}

Shard open_shard(const fs::path& path) {
  const ShardFile file(path);
  return {path, file.bytes(), file.read_header()};
}

bool is_present(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

// Tensor name -> where it was found first; a second finding is an error.
using TensorPlaces = std::unordered_map<std::string, std::pair<const Shard*, const TensorEntry*>>;

TensorPlaces index_tensors(const std::vector<Shard>& shards) {
  TensorPlaces places;
  for (const Shard& shard : shards)
    for (const TensorEntry& entry : shard.entries) {
      const auto [found, fresh] = places.try_emplace(entry.name, &shard, &entry);
      if (!fresh)
        fail_at(
            shard.path.string(), entry.name, entry.begin,
            fmt::format("is also in {} at byte {}", found->second.first->path.filename().string(),
                        found->second.second->begin));
    }
  return places;
}

void check_index(const ShardIndex& index, const std::string& index_file,
                 const TensorPlaces& places) {
  std::unordered_map<std::string, const std::string*> listed;
  for (const auto& [tensor, shard] : index.weight_map) {
    listed.emplace(tensor, &shard);
    const auto place = places.find(tensor);
    if (place == places.end())
      throw StartupError(
          fmt::format("{}: tensor {}: is not in {}", index_file, quote(tensor), shard));
    const auto& [holder, entry] = place->second;
    if (holder->path.filename() != shard)
      fail_at(holder->path.string(), tensor, entry->begin,
              fmt::format("{} says it is in {}", kIndexName, shard));
  }
  std::uint64_t total = 0;
  for (const auto& [tensor, place] : places) {
    if (!listed.contains(tensor))
      fail_at(place.first->path.string(), tensor, place.second->begin,
              fmt::format("is not listed in {}", kIndexName));
    total += place.second->bytes;
  }
  if (index.total_size != 0 && index.total_size != total)
    log_warn("{}: metadata.total_size is {}, the tensors have {} bytes", index_file,
             index.total_size, total);
}

std::vector<Shard> open_indexed_shards(const fs::path& directory, const ShardIndex& index,
                                       const std::string& index_file) {
  std::map<std::string, std::string> first_tensor;  // shard file -> a tensor that needs it
  for (const auto& [tensor, shard] : index.weight_map) first_tensor.try_emplace(shard, tensor);
  std::vector<Shard> shards;
  for (const auto& [name, tensor] : first_tensor) {
    if (!is_present(directory / name))
      throw StartupError(fmt::format("{}: tensor {}: its shard {} is missing", index_file,
                                     quote(tensor), (directory / name).string()),
                         "Download the missing file again.");
    shards.push_back(open_shard(directory / name));
  }
  for (const std::string& name : safetensors_files(directory))
    if (!first_tensor.contains(name))
      log_warn("{}: not listed in {}, left alone", (directory / name).string(), kIndexName);
  return shards;
}

// What to try when names do not fit the config's expert format.
std::string expert_format_hint(std::string_view tensor, const ModelConfig& config) {
  if (tensor.find(".mlp.experts.") == std::string_view::npos) return {};
  return config.expert_format == ExpertFormat::kMxfp4
             ? "config.json has quantization_config mxfp4: experts must be _blocks and _scales."
             : "config.json has no quantization_config: experts must be dequantised bf16.";
}

void check_against_config(const TensorPlaces& places, const std::vector<Shard>& shards,
                          const ModelConfig& config) {
  std::unordered_map<std::string, TensorSpec> specs;
  for (TensorSpec& spec : expected_tensors(config)) {
    std::string name = spec.name;
    specs.emplace(std::move(name), std::move(spec));
  }
  for (const Shard& shard : shards)
    for (const TensorEntry& entry : shard.entries) {
      const std::string file = shard.path.string();
      const auto spec = specs.find(entry.name);
      if (spec == specs.end())
        fail_at(file, entry.name, entry.begin, "does not belong to a model of this config.json",
                expert_format_hint(entry.name, config));
      const TensorSpec& want = spec->second;
      if (!accepts_dtype(want, entry.dtype))
        fail_at(file, entry.name, entry.begin,
                fmt::format("dtype is {}, expected {}", dtype_name(entry.dtype),
                            dtype_name(want.dtype)));
      if (entry.shape != want.shape)
        fail_at(file, entry.name, entry.begin,
                fmt::format("shape is {}, but config.json gives {}", shape_text(entry.shape),
                            shape_text(want.shape)));
    }
  for (const TensorSpec& spec : expected_tensors(config))
    if (!places.contains(spec.name))
      throw StartupError(
          fmt::format("{}: tensor {}: missing from all {} shards",
                      shards.front().path.parent_path().string(), quote(spec.name), shards.size()),
          expert_format_hint(spec.name, config));
}

}  // namespace

std::unique_ptr<Checkpoint> open_checkpoint(const fs::path& directory) {
  std::error_code error;
  if (!fs::is_directory(directory, error))
    throw StartupError(fmt::format("{}: is not a directory", directory.string()));
  const fs::path config_path = directory / kConfigName;
  if (!is_present(config_path))
    throw StartupError(fmt::format("{}: is missing", config_path.string()),
                       "A checkpoint directory holds config.json and *.safetensors files.");
  ModelConfig config =
      parse_model_config(read_text_file(config_path, kMaxConfigBytes), config_path.string());
  config.name = fs::absolute(directory).lexically_normal().filename().string();
  if (config.name.empty())  // the path ended in a slash
    config.name = fs::absolute(directory).lexically_normal().parent_path().filename().string();

  std::vector<Shard> shards;
  const fs::path index_path = directory / kIndexName;
  if (is_present(index_path)) {
    const ShardIndex index =
        parse_index(read_text_file(index_path, kMaxIndexBytes), index_path.string());
    shards = open_indexed_shards(directory, index, index_path.string());
    check_index(index, index_path.string(), index_tensors(shards));
  } else {
    for (const std::string& name : safetensors_files(directory))
      shards.push_back(open_shard(directory / name));
  }
  if (shards.empty())
    throw StartupError(fmt::format("{}: holds no *.safetensors file", directory.string()));
  check_against_config(index_tensors(shards), shards, config);
  return std::make_unique<DirectoryCheckpoint>(std::move(config), std::move(shards));
}

}  // namespace strata::weights
