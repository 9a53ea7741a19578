// Writes the dummy weights (docs/formats/dummy.md) as a GGUF file, so that llama.cpp can be timed
// on exactly the work Strata does. MXFP4 experts are bit-identical; dense matrices are bf16
// (bit-identical) or Q8_0.
//
//   dummy_gguf SPEC bf16|q8_0 OUT.gguf      SPEC as after --load-format dummy: ":20b", ":120b:7"
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "base/bf16.h"
#include "base/check.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "gguf_file.h"
#include "weights/checkpoint.h"
#include "weights/tensor_map.h"

namespace strata::gguf {
namespace {

using weights::TensorKind;
using weights::TensorSpec;

std::string target_name(const TensorSpec& spec) {
  const auto layer = [&](const char* rest) {
    return "blk." + std::to_string(spec.layer) + "." + rest;
  };
  switch (spec.kind) {
    case TensorKind::kEmbedding: return "token_embd.weight";
    case TensorKind::kUnembedding: return "output.weight";
    case TensorKind::kFinalNorm: return "output_norm.weight";
    case TensorKind::kAttnNorm: return layer("attn_norm.weight");
    case TensorKind::kQWeight: return layer("attn_q.weight");
    case TensorKind::kQBias: return layer("attn_q.bias");
    case TensorKind::kKWeight: return layer("attn_k.weight");
    case TensorKind::kKBias: return layer("attn_k.bias");
    case TensorKind::kVWeight: return layer("attn_v.weight");
    case TensorKind::kVBias: return layer("attn_v.bias");
    case TensorKind::kSinks: return layer("attn_sinks.weight");
    case TensorKind::kOutWeight: return layer("attn_output.weight");
    case TensorKind::kOutBias: return layer("attn_output.bias");
    case TensorKind::kMlpNorm: return layer("post_attention_norm.weight");
    case TensorKind::kRouterWeight: return layer("ffn_gate_inp.weight");
    case TensorKind::kRouterBias: return layer("ffn_gate_inp.bias");
    case TensorKind::kDownBlocks:
    case TensorKind::kDownScales: return layer("ffn_down_exps.weight");
    case TensorKind::kDownBias: return layer("ffn_down_exps.bias");
    default: return layer("");  // gate and up: two tensors, see half_name
  }
}

std::string half_name(const TensorSpec& spec, bool up, const char* what) {
  return "blk." + std::to_string(spec.layer) + (up ? ".ffn_up_exps." : ".ffn_gate_exps.") + what;
}

bool is_matrix(TensorKind kind) {
  return kind == TensorKind::kEmbedding || kind == TensorKind::kUnembedding ||
         kind == TensorKind::kQWeight || kind == TensorKind::kKWeight ||
         kind == TensorKind::kVWeight || kind == TensorKind::kOutWeight;
}

void declare(GgufFile& file, const TensorSpec& spec, const ModelConfig& c, Type dense) {
  const auto hidden = static_cast<std::uint64_t>(c.hidden);
  const auto inner = static_cast<std::uint64_t>(c.intermediate);
  const auto experts = static_cast<std::uint64_t>(c.num_experts);
  switch (spec.kind) {
    case TensorKind::kGateUpBlocks:
      for (const bool up : {false, true})
        file.add_tensor(half_name(spec, up, "weight"), Type::kMxfp4, {hidden, inner, experts});
      return;
    case TensorKind::kGateUpBias:
      for (const bool up : {false, true})
        file.add_tensor(half_name(spec, up, "bias"), Type::kF32, {inner, experts});
      return;
    case TensorKind::kDownBlocks:
      file.add_tensor(target_name(spec), Type::kMxfp4, {inner, hidden, experts});
      return;
    case TensorKind::kGateUpScales:
    case TensorKind::kDownScales: return;  // inside the blocks
    default: break;
  }
  std::vector<std::uint64_t> dims(spec.shape.rbegin(), spec.shape.rend());
  file.add_tensor(target_name(spec), is_matrix(spec.kind) ? dense : Type::kF32, std::move(dims));
}

std::vector<std::byte> read_rows(const TensorView& view, std::size_t first, std::size_t count,
                                 std::size_t row_bytes) {
  std::vector<std::byte> bytes(count * row_bytes);
  view.source->read(first * row_bytes, bytes);
  return bytes;
}

std::uint16_t half_bits(float value) {
  const auto half = static_cast<_Float16>(value);
  std::uint16_t bits = 0;
  std::memcpy(&bits, &half, sizeof bits);
  return bits;
}

// Q8_0: 32 values share a half-precision scale, max / 127.
void write_q8_0(const Bf16* from, std::size_t count, std::byte* to) {
  for (std::size_t block = 0; block < count; block += 32, to += 34) {
    float largest = 0.0F;
    for (std::size_t i = 0; i < 32; ++i)
      largest = std::max(largest, std::fabs(to_float(from[block + i])));
    const float scale = largest / 127.0F;
    const std::uint16_t bits = half_bits(scale);
    std::memcpy(to, &bits, 2);
    for (std::size_t i = 0; i < 32; ++i) {
      const float value = scale > 0.0F ? to_float(from[block + i]) / scale : 0.0F;
      to[2 + i] = static_cast<std::byte>(static_cast<std::int8_t>(std::lround(value)));
    }
  }
}

// fn(row) for every row of a tensor, on all processors.
template <class Fn>
void for_rows(std::size_t rows, const Fn& fn) {
  static ThreadPool pool(static_cast<int>(std::thread::hardware_concurrency()));
  pool.run([&](int worker) {
    const Slice slice = slice_of(static_cast<int>(rows), 1, worker, pool.num_threads());
    for (int row = slice.begin; row < slice.end; ++row) fn(static_cast<std::size_t>(row));
  });
}

void write_dense(const TensorView& view, Type type, std::span<std::byte> out) {
  const std::size_t row = static_cast<std::size_t>(view.shape.back());
  for_rows(view.num_elements() / row, [&](std::size_t r) {
    const auto bytes = read_rows(view, r, 1, row * 2);
    const auto* values = reinterpret_cast<const Bf16*>(bytes.data());
    std::byte* to = out.data() + r * type_bytes(type, row);
    if (type == Type::kBf16) {
      std::memcpy(to, bytes.data(), bytes.size());
    } else if (type == Type::kQ8_0) {
      write_q8_0(values, row, to);
    } else {
      for (std::size_t i = 0; i < row; ++i) {
        const float value = to_float(values[i]);
        std::memcpy(to + i * 4, &value, 4);
      }
    }
  });
}

// Checkpoint byte j of a block holds elements 2j and 2j+1; ggml's byte j holds j and j+16.
void regroup_block(const std::byte* from, std::byte* to) {
  const auto element = [&](int i) {
    const auto byte = static_cast<unsigned>(from[i / 2]);
    return i % 2 == 0 ? byte & 15U : byte >> 4;
  };
  for (int j = 0; j < 16; ++j) to[j] = static_cast<std::byte>(element(j) | element(j + 16) << 4);
}

// Rows of blocks (or of their scales) into MXFP4 blocks: scale byte first, 17 bytes each.
// `targets` takes the rows in turn: one for down, gate and up alternating for gate_up.
void write_experts(const TensorView& view, bool scales,
                   const std::vector<std::span<std::byte>>& targets) {
  const auto blocks = static_cast<std::size_t>(view.shape[2]);
  for_rows(static_cast<std::size_t>(view.shape[0] * view.shape[1]), [&](std::size_t row) {
    const auto bytes = read_rows(view, row, 1, scales ? blocks : blocks * 16);
    std::byte* to = targets[row % targets.size()].data() + row / targets.size() * blocks * 17;
    for (std::size_t b = 0; b < blocks; ++b, to += 17) {
      if (scales) to[0] = bytes[b];
      else regroup_block(bytes.data() + b * 16, to + 1);
    }
  });
}

void write_gate_up_bias(const TensorView& view, std::span<std::byte> gate,
                        std::span<std::byte> up) {
  const auto bytes = read_rows(view, 0, 1, view.num_bytes());
  const auto* values = reinterpret_cast<const Bf16*>(bytes.data());
  for (std::size_t i = 0; i < view.num_elements(); ++i) {
    const float value = to_float(values[i]);
    std::memcpy((i % 2 == 0 ? gate : up).data() + i / 2 * 4, &value, 4);
  }
}

void write_tensor(GgufFile& file, const TensorSpec& spec, const TensorView& view, Type dense) {
  switch (spec.kind) {
    case TensorKind::kGateUpBlocks:
    case TensorKind::kGateUpScales:
      return write_experts(view, spec.kind == TensorKind::kGateUpScales,
                           {file.data(half_name(spec, false, "weight")),
                            file.data(half_name(spec, true, "weight"))});
    case TensorKind::kDownBlocks:
    case TensorKind::kDownScales:
      return write_experts(view, spec.kind == TensorKind::kDownScales,
                           {file.data(target_name(spec))});
    case TensorKind::kGateUpBias:
      return write_gate_up_bias(view, file.data(half_name(spec, false, "bias")),
                                file.data(half_name(spec, true, "bias")));
    default: break;
  }
  write_dense(view, is_matrix(spec.kind) ? dense : Type::kF32, file.data(target_name(spec)));
}

// The character that stands for a byte in a byte-level vocabulary: itself where it is printable,
// else the next one from 256 on.
std::string byte_text(int byte) {
  const auto printable = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  };
  int point = byte;
  if (!printable(byte)) {
    point = 256;
    for (int before = 0; before < byte; ++before) point += printable(before) ? 0 : 1;
  }
  if (point < 128) return {static_cast<char>(point)};
  return {static_cast<char>(0xC0 | (point >> 6)), static_cast<char>(0x80 | (point & 63))};
}

// A vocabulary of bytes and numbers, so that llama-server has a text for every token. It merges
// nothing: a text is as many tokens as bytes, and prompts of other lengths come as token ids.
void add_vocabulary(GgufFile& file, std::int32_t size) {
  constexpr std::int32_t kNormal = 1, kControl = 3;
  constexpr const char* kSpace = "\xC4\xA0";
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(byte_text(byte));
  for (std::int32_t id = 256; id < size - 1; ++id) tokens.push_back(kSpace + std::to_string(id));
  tokens.emplace_back("<|return|>");
  std::vector<std::int32_t> types(tokens.size(), kNormal);
  types.back() = kControl;
  file.add_string("tokenizer.ggml.model", "gpt2");
  file.add_string("tokenizer.ggml.pre", "gpt-4o");
  file.add_strings("tokenizer.ggml.tokens", tokens);
  file.add_i32s("tokenizer.ggml.token_type", types);
  file.add_strings("tokenizer.ggml.merges", {});
  file.add_u32("tokenizer.ggml.bos_token_id", static_cast<std::uint32_t>(size - 1));
  file.add_u32("tokenizer.ggml.eos_token_id", static_cast<std::uint32_t>(size - 1));
}

void add_metadata(GgufFile& file, const ModelConfig& c) {
  const auto u32 = [&](const char* key, std::int32_t value) {
    file.add_u32(std::string("gpt-oss.") + key, static_cast<std::uint32_t>(value));
  };
  file.add_string("general.architecture", "gpt-oss");
  file.add_string("general.name", c.name + " dummy");
  add_vocabulary(file, c.vocab);
  u32("vocab_size", c.vocab);
  u32("block_count", c.num_layers);
  u32("context_length", c.max_context);
  u32("embedding_length", c.hidden);
  u32("feed_forward_length", c.intermediate);
  u32("expert_feed_forward_length", c.intermediate);
  u32("expert_count", c.num_experts);
  u32("expert_used_count", c.experts_per_token);
  u32("attention.head_count", c.num_q_heads);
  u32("attention.head_count_kv", c.num_kv_heads);
  u32("attention.key_length", c.head_dim);
  u32("attention.value_length", c.head_dim);
  u32("attention.sliding_window", c.window);
  u32("rope.scaling.original_context_length", c.rope.original_context);
  file.add_f32("gpt-oss.attention.layer_norm_rms_epsilon", c.rms_eps);
  file.add_f32("gpt-oss.rope.freq_base", static_cast<float>(c.rope.theta));
  file.add_f32("gpt-oss.rope.scaling.factor", static_cast<float>(c.rope.factor));
  file.add_f32("gpt-oss.rope.scaling.yarn_beta_fast", static_cast<float>(c.rope.beta_fast));
  file.add_f32("gpt-oss.rope.scaling.yarn_beta_slow", static_cast<float>(c.rope.beta_slow));
  file.add_string("gpt-oss.rope.scaling.type", "yarn");
}

int run(int argc, char** argv) {
  const std::string format = argc == 4 ? argv[2] : "";
  if (format != "bf16" && format != "q8_0") {
    std::fprintf(stderr, "usage: dummy_gguf SPEC bf16|q8_0 OUT.gguf   (SPEC such as :20b)\n");
    return 1;
  }
  const Type dense = format == "bf16" ? Type::kBf16 : Type::kQ8_0;
  const auto checkpoint = weights::make_dummy_checkpoint(argv[1], gpt_oss_20b());
  const ModelConfig& config = checkpoint->config();
  const auto specs = weights::expected_tensors(config);
  GgufFile file;
  add_metadata(file, config);
  for (const TensorSpec& spec : specs) declare(file, spec, config, dense);
  file.create(argv[3]);
  checkpoint->stream([&](const TensorView& view) {
    const auto spec = std::find_if(specs.begin(), specs.end(), [&](const TensorSpec& candidate) {
      return candidate.name == view.name;
    });
    STRATA_CHECK(spec != specs.end(), "{}", view.name);
    write_tensor(file, *spec, view, dense);
  });
  return 0;
}

}  // namespace
}  // namespace strata::gguf

int main(int argc, char** argv) {
  try {
    return strata::gguf::run(argc, argv);
  } catch (const strata::StartupError& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return error.exit_code();
  }
}
