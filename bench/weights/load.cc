// Time to load a checkpoint directory into the CPU backend, from page cache and from memory.
//
//   bench_weights_load DIR [LAYERS] [THREADS]
//
// DIR gets a cut of gpt-oss-20b with LAYERS layers (default 6, 3.0 GB) and 4096 vocabulary rows,
// written from dummy weights, if it holds no config.json yet; an existing checkpoint is loaded as
// it is. Prints one line for the directory and one for the same shape from the dummy generator,
// each the best of three passes.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "base/result.h"
#include "kernels/cpu/cpu_backend.h"
#include "model/checkpoint_loader.h"
#include "weights/checkpoint.h"
#include "weights/tensor_map.h"

namespace strata {
namespace {

namespace fs = std::filesystem;

ModelConfig cut_of_20b(int layers) {
  ModelConfig config = gpt_oss_20b();
  config.num_layers = layers;
  config.windowed.resize(static_cast<std::size_t>(layers));
  config.vocab = 4096;
  return config;
}

std::string config_text(const ModelConfig& config) {
  return fmt::format(
      R"({{"model_type": "gpt_oss", "num_hidden_layers": {}, "hidden_size": {},)"
      R"( "intermediate_size": {}, "num_attention_heads": {}, "num_key_value_heads": {},)"
      R"( "num_local_experts": {}, "num_experts_per_tok": {}, "vocab_size": {},)"
      R"( "quantization_config": {{"quant_method": "mxfp4"}}}})",
      config.num_layers, config.hidden, config.intermediate, config.num_q_heads,
      config.num_kv_heads, config.num_experts, config.experts_per_token, config.vocab);
}

std::string header_of(const weights::Checkpoint& checkpoint) {
  std::vector<std::string> entries;
  checkpoint.stream([&](const TensorView& view) {
    entries.push_back(fmt::format(R"("{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                                  view.name, weights::dtype_name(view.dtype),
                                  fmt::join(view.shape, ","), view.file_offset,
                                  view.file_offset + view.num_bytes()));
  });
  std::string header = fmt::format("{{{}}}", fmt::join(entries, ","));
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return header;
}

void write_cut(const fs::path& directory, const weights::Checkpoint& checkpoint) {
  fs::create_directories(directory);
  std::ofstream out(directory / "model.safetensors", std::ios::binary);
  const std::string header = header_of(checkpoint);
  const std::uint64_t length = header.size();  // little-endian, as the format asks
  out.write(reinterpret_cast<const char*>(&length), sizeof length);
  out << header;
  std::vector<std::byte> block(std::size_t{64} << 20);
  checkpoint.stream([&](const TensorView& view) {
    for (std::size_t at = 0; at < view.num_bytes(); at += block.size()) {
      const auto part = std::span(block).first(std::min(block.size(), view.num_bytes() - at));
      view.source->read(at, part);
      out.write(reinterpret_cast<const char*>(part.data()),
                static_cast<std::streamsize>(part.size()));
    }
  });
  std::ofstream(directory / "config.json") << config_text(checkpoint.config());
  if (!out.flush()) throw std::runtime_error("cannot write " + directory.string());
}

// Seconds from nothing to all weights in place.
double load_once(const weights::Checkpoint& checkpoint, ThreadPool& pool) {
  const auto start = std::chrono::steady_clock::now();
  const auto backend = kernels::make_cpu_backend({.config = checkpoint.config(), .never_emit = {}},
                                                 kernels::detect_isa(), pool);
  ExpertStore experts(checkpoint.config(), &pool);
  load_checkpoint(checkpoint, *backend, experts);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void report(const char* source, const weights::Checkpoint& checkpoint, ThreadPool& pool) {
  double best = load_once(checkpoint, pool);
  for (int pass = 1; pass < 3; ++pass) best = std::min(best, load_once(checkpoint, pool));
  const double gigabytes = static_cast<double>(checkpoint.total_bytes()) * 1e-9;
  fmt::print("load {} {:.2f} GB, {} threads: {:.2f} s, {:.2f} GB/s\n", source, gigabytes,
             pool.num_threads(), best, gigabytes / best);
}

int run(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: bench_weights_load DIR [LAYERS] [THREADS]\n");
    return 2;
  }
  const fs::path directory = argv[1];
  const int layers = argc > 2 ? std::atoi(argv[2]) : 6;
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  ThreadPool pool(argc > 3 ? std::atoi(argv[3]) : cores);
  if (!fs::exists(directory / "config.json"))
    write_cut(directory,
              *weights::make_dummy_checkpoint("", cut_of_20b(std::clamp(layers, 1, 24))));
  const auto checkpoint = weights::open_checkpoint(directory);
  report("directory", *checkpoint, pool);
  report("dummy", *weights::make_dummy_checkpoint("", checkpoint->config()), pool);
  return 0;
}

}  // namespace
}  // namespace strata

int main(int argc, char** argv) {
  try {
    return strata::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
