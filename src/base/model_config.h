// ModelConfig: the shape of a gpt-oss model, read once from config.json (weights/config_reader)
// and const from then on. Plain values; any thread may read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"

namespace strata {

// YaRN rotary embedding as the reference implementation computes it (ramp ends not rounded
// unless `truncate`).
struct RopeConfig {
  double theta = 150000.0;
  double factor = 32.0;  // 1 means plain rotary embedding
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  std::int32_t original_context = 4096;
  bool truncate = false;
};

enum class ExpertFormat { kMxfp4, kBf16 };

struct ModelConfig {
  std::string name;  // directory or hub name, for people
  std::int32_t num_layers = 0;
  std::int32_t hidden = 0;        // H, a multiple of 32
  std::int32_t intermediate = 0;  // I, a multiple of 32
  std::int32_t num_q_heads = 0;
  std::int32_t num_kv_heads = 0;  // divides num_q_heads
  std::int32_t head_dim = 64;
  std::int32_t num_experts = 0;        // any count >= 1
  std::int32_t experts_per_token = 0;  // 1 .. num_experts
  std::int32_t vocab = 0;              // rows of embedding and unembedding
  std::int32_t window = 128;           // a query sees itself and window-1 keys before it
  std::int32_t max_context = 131072;   // max_position_embeddings
  float rms_eps = 1e-5F;
  float swiglu_limit = 7.0F;
  float swiglu_alpha = 1.702F;
  RopeConfig rope;
  ExpertFormat expert_format = ExpertFormat::kMxfp4;
  std::vector<bool> windowed;  // [num_layers] true: sliding window, false: full

  std::int32_t q_dim() const { return num_q_heads * head_dim; }
  std::int32_t kv_dim() const { return num_kv_heads * head_dim; }
  std::int32_t qkv_dim() const { return q_dim() + 2 * kv_dim(); }
  std::int32_t q_per_kv() const { return num_q_heads / num_kv_heads; }
};

// The 20b and 120b shapes, and the embedded tiny one, for the dummy loader, plans and tests.
ModelConfig gpt_oss_20b();
ModelConfig gpt_oss_120b();
ModelConfig strata_tiny();

// Inverse frequencies [head_dim/2] and the factor multiplied into cos and sin of q and k.
struct RopeTable {
  std::vector<float> inv_freq;
  float concentration = 1.0F;
};
RopeTable make_rope_table(const RopeConfig& rope, std::int32_t head_dim);

}  // namespace strata
