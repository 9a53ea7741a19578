// Sizes of the CUDA backend's device memory: one arena for each line of the MemoryPlan. Pure, so
// that the plan and the backend use the same numbers, also where there is no card.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/model_config.h"
#include "kernels/cuda/draw_cut.h"
#include "kernels/cuda/on_both.h"
#include "kernels/cuda/step_inputs.h"
#include "kernels/slab.h"
#include "kernels/stages.h"

namespace strata::kernels::cuda {

inline constexpr std::size_t kAlign = 256;
inline constexpr std::int32_t kSplitKeys = 256;   // keys of one attention split
inline constexpr std::int32_t kPlaneRows = 2;     // most rows of integer products of int8 weights
inline constexpr std::int32_t kTileTokens = 8;    // most rows a warp multiplies at once
inline constexpr std::int32_t kBatchTokens = 16;  // of a tile of launch_experts_batch
inline constexpr std::int32_t kRouteRows = 64;    // most rows whose router is cut between blocks
inline constexpr std::int32_t kMostArrivals = 1024;  // tiles of a product whose K is split
inline constexpr std::int32_t kMaxGroupHeads = 16;
inline constexpr std::int32_t kMostExperts = 512;
inline constexpr std::int32_t kMostChosen = 32;  // of them, of a row
inline constexpr std::int32_t kInt8Group = 32;   // weights of a row that share a scale

// A row of k inputs of integer products (planes.cuh): two planes of bytes and a scale of eight
// bytes for each 32 values, with zeros up to the end of the last step.
STRATA_ON_BOTH constexpr std::int32_t padded_k(std::int32_t k) { return (k + 1023) / 1024 * 1024; }
STRATA_ON_BOTH constexpr std::int32_t plane_bytes(std::int32_t k) { return padded_k(k) / 4 * 9; }

constexpr std::size_t aligned(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// All but the embedding: vectors are float32, matrices bfloat16, or but for the router int8 with
// scales (`format` kI8g32); room for what one rank holds.
inline std::size_t dense_weight_bytes(const ModelConfig& c, WeightFormat format) {
  const auto bf16 = [](std::int64_t rows, std::int64_t cols) {
    return aligned(static_cast<std::size_t>(rows * cols) * 2);
  };
  const auto matrix = [&](std::int64_t rows, std::int64_t cols) {
    if (format != WeightFormat::kI8g32) return bf16(rows, cols);
    const auto count = static_cast<std::size_t>(rows * cols);
    return aligned(count) + aligned(count / kInt8Group * 2);
  };
  const auto vector = [](std::int64_t n) { return aligned(static_cast<std::size_t>(n) * 4); };
  const std::size_t layer = matrix(c.q_dim(), c.hidden) + 2 * matrix(c.kv_dim(), c.hidden) +
                            matrix(c.hidden, c.q_dim()) + bf16(c.num_experts, c.hidden) +
                            vector(c.q_dim()) + 2 * vector(c.kv_dim()) + vector(c.num_q_heads) +
                            vector(c.num_experts) + 3 * vector(c.hidden);
  return layer * static_cast<std::size_t>(c.num_layers) + matrix(c.vocab, c.hidden) +
         vector(c.hidden);
}

// bfloat16, in page-locked host memory: a step reads few rows of it.
inline std::size_t embedding_bytes(const ModelConfig& c) {
  return aligned(static_cast<std::size_t>(c.vocab) * static_cast<std::size_t>(c.hidden) * 2);
}

inline std::size_t expert_weight_bytes(const ModelConfig& c) {
  const SlabLayout slab = make_slab_layout(c.hidden, c.intermediate, c.expert_format);
  return slab.bytes * static_cast<std::size_t>(c.num_experts) *
         static_cast<std::size_t>(c.num_layers);
}

// Rows of one expert that share its weights: [begin, begin + count) of the sorted pairs.
struct ExpertTile {
  std::int32_t expert;
  std::int32_t begin;
  std::int32_t count;
};

// Most rows of a tile on tensor cores: about what an expert has where rows are dealt out evenly,
// but several tiles an expert from where arithmetic takes longer than reading weights.
inline std::int32_t tensor_tile_tokens(std::int32_t rows, std::int32_t top_k,
                                       std::int32_t num_experts) {
  const std::int32_t mean = rows * top_k / num_experts;
  return mean <= 6 ? 16 : (mean <= 20 ? 32 : 128);
}

// The best id of a part of the vocabulary; id -1: none has a finite logit.
struct DrawPart {
  double score;
  std::int32_t id;
};
inline constexpr std::int32_t kDrawParts = 128;  // of the vocabulary, scanned by a block each

// What blocks of a scan of one row leave to the last of them; zeros between scans.
struct DrawScratch {
  unsigned long long bins[kCutBins];  // by digit: ids or masses
  std::uint32_t best;                 // order_of
  std::uint32_t collected;            // ids of a report
  std::int32_t arrived;               // blocks
};

// What log-probabilities of a row are made of: of raw logits.
struct DrawReport {
  double sum;  // of exp(logit - best), over all ids
  float best;
  float own;             // the token's
  std::int32_t rank;     // of the token; 1: best
  std::int32_t num_top;  // the best ids, in any order
  std::int32_t top_id[kMostTop];
  float top_logit[kMostTop];
};

// The activations arena: offsets of its buffers. A pair is (row, rank of a chosen expert).
struct ActivationLayout {
  std::int32_t split_rows = 0;  // steps of so many rows attend in parallel over splits
  std::int32_t max_splits = 0;
  std::size_t inputs = 0;                     // StepLayout
  std::size_t x = 0, q = 0, attn = 0;         // f32 [rows, hidden | q_dim | q_dim]
  std::size_t delta_attn = 0, delta_moe = 0;  // f32 [rows, hidden]
  std::size_t normed = 0;                     // f32 [rows, hidden]
  std::size_t inner = 0, outer = 0;           // f32 [pairs, intermediate | hidden]
  std::size_t planes = 0, inner_planes = 0;   // of kTileTokens rows and their pairs
  // Not there without tensor cores: their inputs, 16 bits each, and what their products share.
  std::size_t normed16 = 0, attn16 = 0, inner16 = 0;  // [rows | rows | pairs, ...]
  std::size_t rotations = 0;                          // f32 pairs [rows, head_dim / 2]
  std::size_t arrivals = 0;                           // i32 [kMostArrivals]
  std::size_t router_logits = 0;                      // f32 [kRouteRows, experts]
  std::size_t router_arrivals = 0;                    // i32 [kRouteRows + 1]
  std::size_t pair_expert = 0;                        // i32 [pairs]; -1: padding
  std::size_t pair_weight = 0;                        // f32 [pairs]
  std::size_t pair_order = 0;                         // i32 [pairs]: pairs sorted by expert
  std::size_t tiles = 0, num_tiles = 0;               // ExpertTile [max_tiles], i32
  std::size_t experts_read = 0;                // u64: experts computed since the last statistics
  std::size_t split_out = 0, split_state = 0;  // f32 [split_rows, heads, splits, head_dim | 2]
  std::size_t head_input = 0, logits = 0;      // f32 [head rows, hidden | vocab]
  std::size_t banned = 0;                      // u32 bits [vocab]: ids that are never emitted
  std::size_t draw_parts = 0, drawn = 0;       // DrawPart [head rows, kDrawParts | 1]
  std::size_t draw_scratch = 0;                // DrawScratch [head rows]
  std::size_t draw_cuts = 0;                   // DrawCut [head rows]
  std::size_t draw_reports = 0;                // DrawReport [head rows]
  std::size_t raw_logits = 0;                  // f32 [kMostChanges]: what was there before
  std::size_t slab_table = 0;                  // address of each expert's slab [layers, experts]
  std::size_t bytes = 0;
};

inline std::int32_t max_tiles(const ModelConfig& c, std::int32_t rows) {
  const std::int32_t pairs = rows * c.experts_per_token;
  return pairs / kTileTokens + std::min(pairs, c.num_experts);
}

inline ActivationLayout make_activation_layout(const ModelConfig& c,
                                               const BackendOptions& options) {
  constexpr std::int64_t kSplitBytes = std::int64_t{32} << 20;
  constexpr std::int32_t kMostSplitRows = 16;  // beyond them rows alone fill a card
  ActivationLayout layout;
  const auto place = [&layout](std::int64_t count, std::size_t element = sizeof(float)) {
    const std::size_t offset = layout.bytes;
    layout.bytes += aligned(static_cast<std::size_t>(count) * element);
    return offset;
  };
  const std::int64_t rows = options.max_rows;
  const std::int64_t pairs = rows * c.experts_per_token;
  const std::int64_t head_rows = std::min(options.max_logits_rows, kMaxHeadRows);
  const std::int64_t keys = std::int64_t{options.max_pages_per_seq} * options.page_tokens;
  layout.max_splits = static_cast<std::int32_t>((keys + kSplitKeys - 1) / kSplitKeys);
  const std::int64_t row_splits = std::int64_t{c.num_q_heads} * layout.max_splits;
  layout.split_rows = static_cast<std::int32_t>(
      std::clamp<std::int64_t>(kSplitBytes / (row_splits * (c.head_dim + 2) * 4), 1,
                               std::min(kMostSplitRows, options.max_rows)));
  layout.inputs = place(static_cast<std::int64_t>(make_step_layout(options).bytes), 1);
  layout.x = place(rows * c.hidden);
  layout.q = place(rows * c.q_dim());
  layout.attn = place(rows * c.q_dim());
  layout.delta_attn = place(rows * c.hidden);
  layout.delta_moe = place(rows * c.hidden);
  layout.normed = place(rows * c.hidden);
  layout.inner = place(pairs * c.intermediate);
  layout.outer = place(pairs * c.hidden);
  if (options.tensor_cores) {
    layout.normed16 = place(rows * c.hidden, 2);
    layout.attn16 = place(rows * c.q_dim(), 2);
    layout.inner16 = place(pairs * c.intermediate, 2);
    layout.rotations = place(rows * c.head_dim);
    layout.arrivals = place(kMostArrivals);
    layout.planes = place(std::int64_t{kTileTokens} * plane_bytes(c.hidden), 1);
    layout.inner_planes =
        place(std::int64_t{kTileTokens} * c.experts_per_token * plane_bytes(c.intermediate), 1);
  }
  layout.router_logits = place(std::int64_t{kRouteRows} * c.num_experts);
  layout.router_arrivals = place(kRouteRows + 1);
  layout.pair_expert = place(pairs);
  layout.pair_weight = place(pairs);
  layout.pair_order = place(pairs);
  layout.tiles = place(max_tiles(c, options.max_rows), sizeof(ExpertTile));
  layout.num_tiles = place(1);
  layout.experts_read = place(1, sizeof(std::uint64_t));
  layout.split_out = place(layout.split_rows * row_splits * c.head_dim);
  layout.split_state = place(layout.split_rows * row_splits * 2);
  layout.head_input = place(head_rows * c.hidden);
  layout.logits = place(head_rows * c.vocab);
  layout.banned = place((c.vocab + 31) / 32);
  layout.draw_parts = place(head_rows * kDrawParts, sizeof(DrawPart));
  layout.drawn = place(head_rows, sizeof(DrawPart));
  layout.draw_scratch = place(head_rows, sizeof(DrawScratch));
  layout.draw_cuts = place(head_rows, sizeof(DrawCut));
  layout.draw_reports = place(head_rows, sizeof(DrawReport));
  layout.raw_logits = place(kMostChanges);
  layout.slab_table = place(std::int64_t{c.num_layers} * c.num_experts, sizeof(void*));
  return layout;
}

}  // namespace strata::kernels::cuda
