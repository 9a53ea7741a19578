// The oracle: the whole gpt-oss model once more, in double precision and as plainly as possible.
// It has no KV cache, no pages, no batches, and shares no code with kernels/ or model/: only a
// checkpoint and its ModelConfig go in. Tests compare backends and golden values with it.
//
// Cost: one pass over the active weights a token, quadratic attention; meant for up to a few
// hundred tokens of a model of up to a few ten million parameters, held as float32.
//
// A mutation breaks one detail on purpose. A test that passes under a mutation cannot see that
// detail; the mutation table of the golden tests says which golden text each one changes.
//
//   const Oracle oracle(*checkpoint);
//   const OracleOutput out = oracle.run(token_ids);
//   out.logits[t][v]      // logits after token t
//   out.hidden[l][t][h]   // residual stream before layer l; [num_layers]: after the last one
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/model_config.h"
#include "weights/checkpoint.h"

namespace strata::oracle {

enum class Mutation {
  kNone,
  kSinksOff,        // no sink term
  kSinksWrongHead,  // head h takes the sink of head h + 1
  kWindowMinusOne,
  kWindowPlusOne,
  kWindowOff,          // every layer sees everything
  kWindowOnOddLayers,  // window and full layers change places
  kYarnFactorOne,      // plain rotary embedding
  kMscaleDropped,      // concentration 1
  kRampRounded,        // ramp ends floored and ceiled
  kRopeInterleaved,    // pairs (2i, 2i + 1) instead of halves
  kSoftmaxBeforeTopK,  // weights are not renormalised over the chosen experts
  kTopKMinusOne,
  kPlusOneDropped,  // gate * sigmoid * up instead of (up + 1)
  kAlphaOne,
  kClampOff,
  kGateUpHalves,    // gate = first I rows, up = last I rows
  kNibblesSwapped,  // high nibble first
  kScaleOffByOne,
  kEpsSmall,      // 1e-6
  kKvHeadModulo,  // kv head h mod Nk instead of h / (Nq / Nk)
  kNoQueryBias,
  kNoKeyBias,
  kNoValueBias,
  kNoOutBias,
  kNoRouterBias,
  kNoGateUpBias,
  kNoDownBias,
};

std::span<const Mutation> all_mutations();  // without kNone
std::string_view mutation_name(Mutation mutation);

using Vector = std::vector<double>;
using Matrix = std::vector<Vector>;  // [rows][cols]

struct OracleOutput {
  Matrix logits;               // [tokens][vocab]
  std::vector<Matrix> hidden;  // [layers + 1][tokens][hidden]
  double largest_gate = 0.0;   // largest |gate| and |up| before clamping: did the limit bite?
  // Smallest gap between the last chosen and the first rejected router logit; a rival whose
  // rounding differs by more may choose another expert.
  double smallest_router_gap = 0.0;
};

// Natural-log softmax of one row of logits.
Vector log_softmax(const Vector& logits);

class Oracle {
 public:
  // Reads and dequantises every tensor. Experts may be MXFP4 or bf16.
  explicit Oracle(const weights::Checkpoint& checkpoint, Mutation mutation = Mutation::kNone);

  // Logits and layer outputs of all tokens, the first at position 0.
  OracleOutput run(std::span<const TokenId> tokens) const;

 private:
  // A tensor flattened to [rows, cols]: leading dimensions are rows.
  struct Tensor {
    std::int64_t cols = 0;
    std::vector<float> values;
    const float* row(std::int64_t index) const { return values.data() + index * cols; }
  };
  struct Rope {
    Vector inv_freq;
    double concentration = 1.0;
  };

  bool is(Mutation mutation) const { return mutation_ == mutation; }
  const Tensor& tensor(const std::string& name) const;
  void read(const TensorView& view);
  void dequantise(const std::string& name);
  void transpose(const std::string& name, std::int64_t k);
  Rope make_rope() const;
  bool is_windowed(LayerId layer) const;

  Vector norm(const Vector& x, const std::string& weight) const;
  Vector linear(const Vector& x, const std::string& name, bool bias) const;
  void rotate(Vector& heads, std::int64_t position) const;
  Matrix attention(LayerId layer, const Matrix& x) const;
  Vector attend_head(const Vector& q, std::span<const Vector> k, std::span<const Vector> v,
                     std::int32_t q_head, std::int32_t kv_head, double sink) const;
  Vector mixture(LayerId layer, const Vector& x, OracleOutput& out) const;
  std::vector<std::pair<std::int32_t, double>> choose(const Vector& logits,
                                                      OracleOutput& out) const;
  Vector expert(const std::string& prefix, std::int32_t index, const Vector& x,
                OracleOutput& out) const;

  const ModelConfig config_;
  const Mutation mutation_;
  const Rope rope_;
  std::map<std::string, Tensor> tensors_;
  std::map<std::string, std::vector<std::uint8_t>> packed_;  // MXFP4, while loading
};

}  // namespace strata::oracle
