// Writes safetensors files, index files and whole checkpoint directories for tests: right ones, and
// wrong ones through a raw header.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/model_config.h"
#include "base/tensor_view.h"
#include "weights/tensor_map.h"

namespace strata::test {

inline void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!out) throw std::runtime_error("cannot write " + path.string());
}

inline std::string length_field(std::uint64_t length) {
  std::string field;
  for (int i = 0; i < 8; ++i) field.push_back(static_cast<char>(length >> (8 * i) & 0xff));
  return field;
}

// Length field, `header` and payload as they are.
inline std::string raw_safetensors(std::string_view header, std::string_view payload) {
  return length_field(header.size()) + std::string(header) + std::string(payload);
}

// One shard in memory; tensors lie in the order they were added.
class SafetensorsWriter {
 public:
  void add(const std::string& name, DType dtype, const std::vector<std::int64_t>& shape,
           std::string_view bytes) {
    entries_.push_back(fmt::format(R"("{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                                   name, weights::dtype_name(dtype), fmt::join(shape, ","),
                                   payload_.size(), payload_.size() + bytes.size()));
    payload_ += bytes;
    names_.push_back(name);
  }
  // The header is padded with spaces to a multiple of 8, as the published files are.
  std::string header() const {
    std::string text =
        fmt::format(R"({{"__metadata__":{{"format":"pt"}},{}}})", fmt::join(entries_, ","));
    text.resize((text.size() + 7) / 8 * 8, ' ');
    return text;
  }
  std::string bytes() const { return raw_safetensors(header(), payload_); }
  const std::string& payload() const { return payload_; }
  const std::vector<std::string>& names() const { return names_; }

 private:
  std::vector<std::string> entries_;
  std::vector<std::string> names_;
  std::string payload_;
};

// model.safetensors.index.json of (tensor, shard) pairs.
inline std::string index_json(const std::map<std::string, std::string>& weight_map) {
  std::vector<std::string> items;
  for (const auto& [tensor, shard] : weight_map)
    items.push_back(fmt::format(R"("{}":"{}")", tensor, shard));
  return fmt::format(R"({{"metadata":{{}},"weight_map":{{{}}}}})", fmt::join(items, ","));
}

// config.json as transformers 4 writes it, or with `rope_parameters` as transformers 5 does.
inline std::string config_json(const ModelConfig& config, bool rope_parameters = false) {
  std::vector<std::string> types;
  for (const bool window : config.windowed)
    types.push_back(window ? "\"sliding_attention\"" : "\"full_attention\"");
  std::string text = fmt::format(
      R"({{"model_type":"gpt_oss","num_hidden_layers":{},"hidden_size":{},"intermediate_size":{},)"
      R"("num_attention_heads":{},"num_key_value_heads":{},"head_dim":{},"num_local_experts":{},)"
      R"("num_experts_per_tok":{},"vocab_size":{},"sliding_window":{},)"
      R"("max_position_embeddings":{},"layer_types":[{}],"rms_norm_eps":{},"swiglu_limit":{},)",
      config.num_layers, config.hidden, config.intermediate, config.num_q_heads,
      config.num_kv_heads, config.head_dim, config.num_experts, config.experts_per_token,
      config.vocab, config.window, config.max_context, fmt::join(types, ","), config.rms_eps,
      config.swiglu_limit);
  if (config.expert_format == ExpertFormat::kMxfp4)
    text += R"("quantization_config":{"quant_method":"mxfp4"},)";
  const std::string theta = fmt::format(R"("rope_theta":{})", config.rope.theta);
  text += fmt::format(R"("{}":{{{}"rope_type":"yarn","factor":{},"beta_fast":{},"beta_slow":{},)"
                      R"("original_max_position_embeddings":{},"truncate":{}}})",
                      rope_parameters ? "rope_parameters" : "rope_scaling",
                      rope_parameters ? theta + "," : "", config.rope.factor, config.rope.beta_fast,
                      config.rope.beta_slow, config.rope.original_context, config.rope.truncate);
  return text + (rope_parameters ? "}" : "," + theta + "}");
}

// The published name of shard `index` of `count`: numbered from 0, the total is count - 1.
inline std::string shard_name(std::size_t index, std::size_t count) {
  return count == 1 ? "model.safetensors"
                    : fmt::format("model-{:05}-of-{:05}.safetensors", index, count - 1);
}

// config.json and one file per element of `shards`; an index when there is more than one.
inline void write_checkpoint(const std::filesystem::path& directory, const ModelConfig& config,
                             const std::vector<SafetensorsWriter>& shards,
                             bool rope_parameters = false) {
  write_file(directory / "config.json", config_json(config, rope_parameters));
  std::map<std::string, std::string> weight_map;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shard_name(i, shards.size());
    write_file(directory / name, shards[i].bytes());
    for (const std::string& tensor : shards[i].names()) weight_map[tensor] = name;
  }
  if (shards.size() > 1)
    write_file(directory / "model.safetensors.index.json", index_json(weight_map));
}

}  // namespace strata::test
