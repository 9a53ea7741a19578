#include "model/checkpoint_loader.h"

#include <fmt/format.h>

#include <chrono>
#include <map>
#include <string_view>
#include <variant>

#include "base/check.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/result.h"
#include "weights/tensor_map.h"

namespace strata {
namespace {

using kernels::LayerWeights;
using kernels::ModelWeights;
using kernels::Role;
using kernels::WeightHandle;
using weights::TensorKind;
using weights::TensorSpec;

// Where a dense tensor's handle is kept: of the model or of its layer.
struct Dense {
  Role role;
  std::variant<WeightHandle ModelWeights::*, WeightHandle LayerWeights::*> member;
};
using Target = std::variant<Dense, SlabPiece>;

// clang-format off
Target target_of(TensorKind kind) {
  switch (kind) {
    case TensorKind::kEmbedding: return Dense{Role::kEmbedding, &ModelWeights::embedding};
    case TensorKind::kUnembedding: return Dense{Role::kUnembedding, &ModelWeights::unembedding};
    case TensorKind::kFinalNorm: return Dense{Role::kFinalNorm, &ModelWeights::final_norm};
    case TensorKind::kAttnNorm: return Dense{Role::kAttnNorm, &LayerWeights::attn_norm};
    case TensorKind::kQWeight: return Dense{Role::kQWeight, &LayerWeights::q_weight};
    case TensorKind::kQBias: return Dense{Role::kQBias, &LayerWeights::q_bias};
    case TensorKind::kKWeight: return Dense{Role::kKWeight, &LayerWeights::k_weight};
    case TensorKind::kKBias: return Dense{Role::kKBias, &LayerWeights::k_bias};
    case TensorKind::kVWeight: return Dense{Role::kVWeight, &LayerWeights::v_weight};
    case TensorKind::kVBias: return Dense{Role::kVBias, &LayerWeights::v_bias};
    case TensorKind::kSinks: return Dense{Role::kSinks, &LayerWeights::sinks};
    case TensorKind::kOutWeight: return Dense{Role::kOutWeight, &LayerWeights::out_weight};
    case TensorKind::kOutBias: return Dense{Role::kOutBias, &LayerWeights::out_bias};
    case TensorKind::kMlpNorm: return Dense{Role::kMlpNorm, &LayerWeights::mlp_norm};
    case TensorKind::kRouterWeight: return Dense{Role::kRouterWeight, &LayerWeights::router_weight};
    case TensorKind::kRouterBias: return Dense{Role::kRouterBias, &LayerWeights::router_bias};
    case TensorKind::kGateUpBlocks: return SlabPiece::kGateUpBlocks;
    case TensorKind::kGateUpScales: return SlabPiece::kGateUpScales;
    case TensorKind::kDownBlocks: return SlabPiece::kDownBlocks;
    case TensorKind::kDownScales: return SlabPiece::kDownScales;
    case TensorKind::kGateUpWeight: return SlabPiece::kGateUpBf16;
    case TensorKind::kDownWeight: return SlabPiece::kDownBf16;
    case TensorKind::kGateUpBias: return SlabPiece::kGateUpBias;
    case TensorKind::kDownBias: return SlabPiece::kDownBias;
  }
  STRATA_CHECK(false, "tensor kind {}", static_cast<int>(kind));
  return SlabPiece::kGateUpBlocks;
}
// clang-format on

// Takes the stream's tensors one by one.
class Loader {
 public:
  Loader(const ModelConfig& config, kernels::Backend& backend, ExpertStore& experts)
      : backend_(backend), experts_(experts) {
    for (TensorSpec& spec : weights::expected_tensors(config)) {
      std::string name = spec.name;
      pending_.emplace(std::move(name), std::move(spec));
    }
    weights_.layers.resize(static_cast<std::size_t>(config.num_layers));
  }

  void take(const TensorView& view) {
    const auto found = pending_.find(view.name);
    if (found == pending_.end()) fail(view, "is not expected, or came twice");
    const TensorSpec& spec = found->second;
    if (!weights::accepts_dtype(spec, view.dtype) || view.shape != spec.shape)
      fail(view, fmt::format("is {} {}, expected {} {}", weights::dtype_name(view.dtype),
                             weights::shape_text(view.shape), weights::dtype_name(spec.dtype),
                             weights::shape_text(spec.shape)));
    const Target target = target_of(spec.kind);
    if (const auto* piece = std::get_if<SlabPiece>(&target))
      experts_.adopt(view, spec.layer, *piece);
    else adopt_dense(view, std::get<Dense>(target), spec.layer);
    pending_.erase(found);
  }

  ModelWeights finish() {
    if (!pending_.empty())
      throw StartupError(fmt::format("the checkpoint lacks {} tensors, one is \"{}\"",
                                     pending_.size(), pending_.begin()->first));
    return std::move(weights_);
  }

 private:
  [[noreturn]] static void fail(const TensorView& view, std::string_view what) {
    throw StartupError(fmt::format("{}: tensor \"{}\" at byte {}: {}", view.file, view.name,
                                   view.file_offset, what));
  }

  void adopt_dense(const TensorView& view, const Dense& dense, LayerId layer) {
    if (const auto* member = std::get_if<WeightHandle ModelWeights::*>(&dense.member)) {
      weights_.*(*member) = backend_.adopt(view, dense.role, 0, kernels::Shard{});
      return;
    }
    LayerWeights& weights = weights_.layers[static_cast<std::size_t>(layer)];
    weights.*std::get<WeightHandle LayerWeights::*>(dense.member) =
        backend_.adopt(view, dense.role, layer, kernels::Shard{});
  }

  kernels::Backend& backend_;
  ExpertStore& experts_;
  std::map<std::string, TensorSpec, std::less<>> pending_;
  ModelWeights weights_;
};

}  // namespace

ModelWeights load_checkpoint(const weights::Checkpoint& checkpoint, kernels::Backend& backend,
                             ExpertStore& experts) {
  const auto start = std::chrono::steady_clock::now();
  Loader loader(checkpoint.config(), backend, experts);
  checkpoint.stream([&](const TensorView& view) { loader.take(view); });
  ModelWeights weights = loader.finish();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  const double megabytes = static_cast<double>(checkpoint.total_bytes()) * 1e-6;
  log_info("loaded {:.1f} MB of weights in {:.2f} s ({:.1f} GB/s)", megabytes, elapsed.count(),
           megabytes * 1e-3 / elapsed.count());
  log_info("{:.1f} MB of this process are in huge pages",
           static_cast<double>(huge_page_bytes()) * 1e-6);
  return weights;
}

}  // namespace strata
