// What the stages launch. Each function puts its kernels on `stream` and returns; arguments hold
// device addresses and sizes that depend on the configuration and the step's shape alone.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/cuda_layout.h"
#include "kernels/cuda/step_inputs.h"

namespace strata::kernels::cuda {

// Row-major [rows, cols]: bfloat16, or int8 with a bfloat16 scale for each 32 values of a row.
struct Matrix {
  const void* data = nullptr;
  const std::uint16_t* scales = nullptr;  // [rows, cols / 32]; null: data is bfloat16
  std::int32_t rows = 0;
  std::int32_t cols = 0;
};

// One layer of the KV pool (layout: kernels/host/kv_pool.h).
struct KvLayer {
  std::byte* pages = nullptr;  // the layer's part of page 0
  std::size_t page_bytes = 0;
  std::size_t block_bytes = 0;  // of one head's keys in one page
  std::int32_t page_tokens = 0;
  std::int32_t heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t group = 0;  // KvGroup
  bool bf16 = false;
};

// `count` bfloat16 values to int8 and a scale for each 32 of them; count is a multiple of 32.
void launch_quantise(cudaStream_t stream, const std::uint16_t* from, std::int8_t* to,
                     std::uint16_t* scales, std::int64_t count);

struct EmbedArgs {
  StepInputs inputs;
  Matrix table;            // in page-locked host memory
  std::int64_t first_row;  // of the whole table: other rows are other ranks' and give zeros
  float* x;
};
void launch_embed(cudaStream_t stream, std::int32_t rows, const EmbedArgs& args);

// How inputs of tensor-core products lie in a row.
enum class InputOrder : std::uint8_t {
  kPlain,
  kFourApart  // of each eight: 0 4 1 5 2 6 3 7
};

// x += deltas; out = norm(x).
struct NormArgs {
  StepInputs inputs;
  float* x;
  const float* delta_a;  // may be null
  const float* delta_b;
  const float* weight;
  float eps;
  std::int32_t hidden;
  float* out;
  std::uint16_t* out16 = nullptr;  // if there, takes it as operands: `norm` writes no `out` then
  InputOrder order16 = InputOrder::kPlain;
};
void launch_norm(cudaStream_t stream, std::int32_t rows, const NormArgs& args);
// The same for logits rows [first, first + count) of the step; x is not written, out is dense.
void launch_head_norm(cudaStream_t stream, std::int32_t first, std::int32_t count,
                      const NormArgs& args);

// Scratch of tensor-core products whose K is split among blocks.
struct Partials {
  float* sums = nullptr;
  std::int64_t size = 0;
  std::int32_t* arrived = nullptr;  // [kMostArrivals], zeros between products
};

// Whether this program's code for the card multiplies rows of k bfloat16 weights by so many rows of
// a step by kStream: rings and inputs must fit in shared memory, of which blocks have 227 KiB on
// compute capability 9.0, 99 on 8.6, 8.9 and 12.0. Code of 7.5 has no streams.
bool has_streams(std::int32_t rows, std::int32_t k);

// How a step's products are computed.
enum class Products : std::uint8_t {
  kFloat,   // float32
  kStream,  // at most kTileTokens rows, of int8 weights kPlaneRows: bound by reading weights
  kGemm,    // tensor cores, many rows; takes scratch x16
};

// Of dense products where the others of a step are `products`: int8 weights of more rows than
// integer products take are faster as tiles, and so are bfloat16 weights where streams have no
// room.
inline Products dense_products(Products products, const Matrix& weight, std::int32_t rows) {
  const bool tiles = weight.scales != nullptr ? rows > kPlaneRows : !has_streams(rows, weight.cols);
  return products == Products::kStream && tiles ? Products::kGemm : products;
}

// out = W x + bias.
struct DenseArgs {
  Matrix weight;
  const float* bias;  // may be null
  const float* x;     // [count, weight.cols]
  Products products;
  std::uint16_t* x16;  // scratch of the shape of x, of kGemm
  Partials partials;   // of kGemm
  float* out;          // [count, weight.rows]
  std::int32_t count;
};
void launch_dense(cudaStream_t stream, const DenseArgs& args);
// out = W norm(x + deltas) + bias for logits rows [first, first + count) of the step, by kStream;
// norm.x is not written and norm.out not used.
void launch_normed_head(cudaStream_t stream, std::int32_t first, const NormArgs& norm,
                        const DenseArgs& args);
void launch_dense_stream(cudaStream_t stream, const DenseArgs& args);
void launch_dense_planes(cudaStream_t stream, const DenseArgs& args);  // int8, up to kPlaneRows
void launch_normed_head_stream(cudaStream_t stream, std::int32_t first, const NormArgs& norm,
                               const DenseArgs& args);
void launch_normed_head_planes(cudaStream_t stream, std::int32_t first, const NormArgs& norm,
                               const DenseArgs& args);
void launch_dense_gemm(cudaStream_t stream, const DenseArgs& args);

struct QkvArgs {
  StepInputs inputs;
  const float* x;  // [rows, hidden], normed; null: by kStream the norm's rows, normed on the way
  NormArgs norm;   // its x is not written, its out not used
  Products products;
  const std::uint16_t* x16;  // [rows, hidden], normed: of kGemm
  Partials partials;         // of kGemm
  std::int32_t rows;
  Matrix weight[3];  // q, k, v
  const float* bias[3];
  const float* inv_freq;  // [head_dim / 2]
  float concentration;
  float2* rotations;  // [rows, head_dim / 2], of kGemm: as launch_rotations left them
  std::int32_t q_heads;
  KvLayer kv;
  float* q;  // [rows, q_dim]
};
void launch_qkv(cudaStream_t stream, const QkvArgs& args);
// Cosines and sines of the rows' angles, times the concentration: all layers share them.
void launch_rotations(cudaStream_t stream, const QkvArgs& args);
void launch_qkv_stream(cudaStream_t stream, const QkvArgs& args);
void launch_qkv_planes(cudaStream_t stream, const QkvArgs& args);  // int8, up to kPlaneRows
void launch_qkv_gemm(cudaStream_t stream, const QkvArgs& args);

struct AttendArgs {
  StepInputs inputs;
  const float* q;
  const float* sinks;
  KvLayer kv;
  std::int32_t q_heads;
  std::int32_t window;  // 0: all keys
  float scale;
  std::int32_t rows;
  std::int32_t seqs;  // at least the step's
  std::int32_t split_rows;
  std::int32_t max_splits;
  float* split_out;
  float* split_state;
  std::int32_t* arrived;  // as Partials'; null: not on tensor cores
  float* out;             // [rows, q_dim]
};
// Heads that share a KV head: at most kMaxGroupHeads; head_dim 32, 64 or 128.
void launch_attend(cudaStream_t stream, const AttendArgs& args);
// On tensor cores: bfloat16 keys and values, head_dim 64, up to 8 heads that share a KV head.
void launch_attend_decode(cudaStream_t stream, const AttendArgs& args);
void launch_attend_prefill(cudaStream_t stream, const AttendArgs& args);

// Logits rows [first, first + count), which are the card's to draw from.
struct DrawArgs {
  StepInputs inputs;
  std::int32_t first;
  std::int32_t count;
  float* logits;                // [count, vocab]
  const std::uint32_t* banned;  // bits [vocab]
  std::int32_t vocab;
  DrawPart* parts;       // scratch [count, kDrawParts]
  DrawScratch* scratch;  // [count], zeros between launches
  DrawCut* cuts;         // [count]: what select found
  float* raw_logits;     // [kMostChanges]: what changes replaced
  DrawPart* out;         // [count]
  DrawReport* reports;   // [count]
};
// logit_bias and penalties, in place; `back`: the logits as they were.
void launch_changes(cudaStream_t stream, const DrawArgs& args, bool back);
// One scan of rows that keep a part of their candidates or, `report`, of those that report their
// best ids; the scans of a row go from count to mass and from the first digit to the last.
void launch_select(cudaStream_t stream, const DrawArgs& args, bool report, const CutScan& scan);
void launch_draw(cudaStream_t stream, const DrawArgs& args);
// After the draw and the select of reports.
void launch_report(cudaStream_t stream, const DrawArgs& args);

// Where a step's rows go; on the device from `route` on.
struct Routing {
  std::int32_t* expert;  // [rows, top_k], best first; -1: padding
  float* weight;         // [rows, top_k]: softmax over the chosen
  std::int32_t* order;   // pairs sorted by expert
  ExpertTile* tiles;
  std::int32_t* num_tiles;
  unsigned long long* experts_read;  // total of experts that were computed
  std::int32_t num_experts;
  std::int32_t top_k;
  std::int32_t tile_tokens;  // most rows of a tile
};

struct RouteArgs {
  NormArgs norm;
  Matrix weight;
  const float* bias;
  Routing routing;
  std::byte* planes;  // [rows, plane_bytes(hidden)]: if there, takes the norm instead of its out
  const std::byte* const* slabs;  // this layer's: the experts will ask for them
  float* logits;                  // scratch [kRouteRows, num_experts]
  std::int32_t* arrived;          // [kRouteRows + 1], zeros between launches
  bool one_row;                   // leaves the choice to launch_experts: see is_one_row
};
void launch_route(cudaStream_t stream, std::int32_t rows, const RouteArgs& args);
void launch_route_one_row(cudaStream_t stream, const RouteArgs& args);

struct ExpertsArgs {
  Routing routing;
  const std::byte* const* slabs;  // this layer's entries of the slot table
  SlabLayout slab;
  const float* x;  // [rows, hidden], normed
  Products products;
  std::int32_t rows;
  float limit;
  float alpha;
  bool add_bias;             // the down bias is rank 0's
  const std::uint16_t* x16;  // [rows, hidden], normed, in experts_input_order: of kGemm
  std::uint16_t* inner16;    // scratch [pairs, intermediate], of kGemm
  float* inner;              // scratch [pairs, intermediate], of the others
  const float* logits;       // of route's `one_row`, else null
  const std::byte* planes;   // [rows, plane_bytes(hidden)]: x as route made it; null: use x
  std::byte* inner_planes;   // scratch [pairs, plane_bytes(intermediate)], zeros behind each row's
  float* outer;              // scratch [pairs, hidden]
  float* out;                // [rows, hidden]
};
void launch_experts(cudaStream_t stream, const ExpertsArgs& args);
// Of its inputs by kGemm.
inline InputOrder experts_input_order(ExpertFormat format) {
  return format == ExpertFormat::kMxfp4 ? InputOrder::kFourApart : InputOrder::kPlain;
}
void launch_expert_sum(cudaStream_t stream, const ExpertsArgs& args);      // outer to out
void launch_experts_stream(cudaStream_t stream, const ExpertsArgs& args);  // bfloat16 weights
void launch_experts_planes(cudaStream_t stream, const ExpertsArgs& args);  // MXFP4 weights
void launch_experts_one_row(cudaStream_t stream, const ExpertsArgs& args);
void launch_experts_gemm(cudaStream_t stream, const ExpertsArgs& args);
void launch_experts_batch(cudaStream_t stream, const ExpertsArgs& args);

// Whether the experts of this step, not kFloat, are launch_experts_batch's: they take x16 in
// kFourApart, and tiles of kBatchTokens.
bool is_batch(std::int32_t rows, const SlabLayout& slab);
// Whether route and experts have kernels for this step, kStream, alone: one row of gpt-oss.
bool is_one_row(std::int32_t rows, const SlabLayout& slab, std::int32_t num_experts,
                std::int32_t top_k);

}  // namespace strata::kernels::cuda
