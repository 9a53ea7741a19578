// Random checkpoints of odd shapes, the same bit for bit as tools/train/synth_checkpoint.py makes
// them; the expected log-probabilities of tests/golden were computed from those. The rules are in
// that script and in tests/golden/README.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/model_config.h"

namespace strata::test {

struct SynthShape {
  std::string name;
  ModelConfig config;
  std::uint64_t seed = 0;
  std::size_t shards = 1;
  bool rope_parameters = false;             // config.json in the form of transformers 5
  std::vector<std::size_t> prompt_lengths;  // tokens of each test prompt
};

const std::vector<SynthShape>& synth_shapes();
const SynthShape& synth_shape(std::string_view name);  // CHECKs that it exists

// Writes config.json, the shards and their index into `directory`. Returns file name -> sha256 in
// hexadecimal digits of every shard.
std::map<std::string, std::string> write_synth_checkpoint(const SynthShape& shape,
                                                          const std::filesystem::path& directory);
// Token ids of test prompt `number`.
std::vector<TokenId> synth_prompt(const SynthShape& shape, std::size_t number);

}  // namespace strata::test
