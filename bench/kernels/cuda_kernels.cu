// Times the launches of the CUDA backend at the 20b's shapes on the card at hand, stage by stage
// and as whole layers: random weights, 24 distinct layers, recorded as graphs.
//
//   bench_cuda_kernels [--rows 1,8,32] [--context 1024] [--model-len 131072] [--skew
//   uniform|zipf|one] [--only qkv,...] [--dense-dtype bf16|int8]
//
// Columns: microseconds a layer (median of the replays), GB/s of the bytes that must be read,
// TFLOP/s.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cuda_fill.cuh"
#include "cuda_options.h"
#include "kernels/cuda/card_sampler.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.cuh"

namespace strata::kernels::cuda {
namespace {

constexpr int kLayers = 24;
constexpr int kHidden = 2880;
constexpr int kIntermediate = 2880;
constexpr int kExperts = 32;
constexpr int kTopK = 4;
constexpr int kQHeads = 64;
constexpr int kKvHeads = 8;
constexpr int kHeadDim = 64;
constexpr int kVocab = 201088;
constexpr int kWindow = 128;
constexpr int kPageTokens = 16;
constexpr int kMostHeadRows = 64;
constexpr int kReplays = 9;

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        most_rows_(*std::max_element(options.rows.begin(), options.rows.end())),
        slab_(make_slab_layout(kHidden, kIntermediate, ExpertFormat::kMxfp4)),
        memory_("bench", std::size_t{most_rows_ > 128 ? 60U : 24U} << 30) {
    make_weights();
    make_buffers();
  }

  void run() {
    std::printf("context %d, routing %s\n%-6s %-10s %10s %10s %10s\n", options_.context,
                options_.skew.c_str(), "rows", "stage", "us/layer", "GB/s", "TFLOP/s");
    for (const int rows : options_.rows) run_rows(rows);
  }

 private:
  template <class T>
  T* take(std::size_t count) {
    return reinterpret_cast<T*>(memory_.take(count * sizeof(T)));
  }
  std::byte* zeros(std::size_t bytes) {
    auto* to = take<std::byte>(bytes);
    check(cudaMemsetAsync(to, 0, bytes, stream_.get()), "filling");
    return to;
  }
  template <class T>
  T* copied(const std::vector<T>& values) {
    T* to = take<T>(values.size());
    copy_and_wait(stream_, to, values.data(), values.size() * sizeof(T));
    return to;
  }
  void fill(void* to, std::size_t bytes, bool bf16) {
    launch(stream_.get(), dim3(1024), fill_kernel, static_cast<std::uint32_t*>(to), bytes / 4,
           ++seed_, bf16);
  }
  Matrix matrix(int rows, int cols) {
    return options_.int8 ? int8_matrix(rows, cols) : bf16_matrix(rows, cols);
  }
  template <class T>
  T* filled(std::size_t count, bool bf16) {
    T* to = take<T>(count);
    fill(to, count * sizeof(T), bf16);
    return to;
  }
  Matrix int8_matrix(int rows, int cols) {
    const std::size_t count = static_cast<std::size_t>(rows) * cols;
    return {filled<std::byte>(count, false), filled<std::uint16_t>(count / kInt8Group, true), rows,
            cols};
  }
  Matrix bf16_matrix(int rows, int cols) {
    return {filled<std::uint16_t>(static_cast<std::size_t>(rows) * cols, true), nullptr, rows,
            cols};
  }
  float* floats(std::size_t count) {
    float* to = take<float>(count);
    launch(stream_.get(), dim3(1024), floats_kernel, to, count, ++seed_);
    return to;
  }

  void make_weights() {
    std::vector<const std::byte*> table;
    for (int layer = 0; layer < kLayers; ++layer) {
      qkv_.push_back({matrix(kQHeads * kHeadDim, kHidden), matrix(kKvHeads * kHeadDim, kHidden),
                      matrix(kKvHeads * kHeadDim, kHidden)});
      out_.push_back(matrix(kHidden, kQHeads * kHeadDim));
      router_.push_back(bf16_matrix(kExperts, kHidden));
      for (int expert = 0; expert < kExperts; ++expert) {
        auto* slab = take<std::byte>(slab_.bytes);
        fill(slab, slab_.bytes, false);
        for (const auto& [offset, bytes] :
             {std::pair{slab_.gate_up_scales, slab_.gate_up_scale_bytes()},
              std::pair{slab_.down_scales, slab_.down_scale_bytes()}})
          check(cudaMemsetAsync(slab + offset, 119, bytes, stream_.get()), "filling");
        for (const auto& [offset, bytes] :
             {std::pair{slab_.gate_up_bias, slab_.gate_up_bias_bytes()},
              std::pair{slab_.down_bias, slab_.down_bias_bytes()}})
          fill(slab + offset, bytes, true);
        table.push_back(slab);
      }
    }
    head_ = matrix(kVocab, kHidden);
    table_ = copied(table);
    bias_ = floats(kVocab);
    no_bias_ = reinterpret_cast<float*>(zeros(kExperts * sizeof(float)));
  }

  void make_buffers() {
    const std::size_t rows = most_rows_;
    const std::size_t pairs = rows * kTopK;
    x_ = floats(rows * kHidden);
    normed_ = floats(rows * kHidden);
    q_ = floats(rows * kQHeads * kHeadDim);
    attn_ = floats(rows * kQHeads * kHeadDim);
    delta_ = floats(rows * kHidden);
    x16_ = take<std::uint16_t>(rows * kQHeads * kHeadDim);
    inner16_ = take<std::uint16_t>(pairs * kIntermediate);
    inner_ = floats(pairs * kIntermediate);
    outer_ = floats(pairs * kHidden);
    logits_ = floats(std::size_t{kMostHeadRows} * kVocab);
    routing_ = {take<std::int32_t>(pairs),
                take<float>(pairs),
                take<std::int32_t>(pairs),
                take<ExpertTile>(pairs + kExperts),
                take<std::int32_t>(1),
                reinterpret_cast<unsigned long long*>(zeros(8)),
                kExperts,
                kTopK,
                0};
    constexpr std::int64_t kPartials = std::int64_t{8} << 20;  // as of 2048 rows
    partials_ = {take<float>(kPartials), kPartials,
                 reinterpret_cast<std::int32_t*>(zeros(kMostArrivals * 4))};
    router_logits_ = take<float>(std::size_t{kRouteRows} * kExperts);
    planes_ = zeros(std::size_t{kTileTokens} * plane_bytes(kHidden));
    inner_planes_ = zeros(std::size_t{kTileTokens} * kTopK * plane_bytes(kIntermediate));
    arrived_ = reinterpret_cast<std::int32_t*>(zeros((kRouteRows + 1) * 4));
    draw_.logits = logits_;
    draw_.banned = reinterpret_cast<std::uint32_t*>(zeros((kVocab + 31) / 32 * 4));
    draw_.vocab = kVocab;
    draw_.parts = take<DrawPart>(std::size_t{kMostHeadRows} * kDrawParts);
    draw_.scratch = reinterpret_cast<DrawScratch*>(zeros(kMostHeadRows * sizeof(DrawScratch)));
    draw_.cuts = take<DrawCut>(kMostHeadRows);
    draw_.out = take<DrawPart>(kMostHeadRows);
    draw_.reports = take<DrawReport>(kMostHeadRows);
    std::vector<float> inv_freq(kHeadDim / 2);
    for (std::size_t i = 0; i < inv_freq.size(); ++i)
      inv_freq[i] = std::pow(150000.0F, -2.0F * static_cast<float>(i) / kHeadDim);
    inv_freq_ = copied(inv_freq);
    rotations_ = take<float2>(rows * kHeadDim / 2);
    const int keys = std::max(options_.model_len, options_.context + most_rows_);
    max_splits_ = (keys + kSplitKeys - 1) / kSplitKeys;
    split_out_ = take<float>(std::size_t{16} * kQHeads * max_splits_ * kHeadDim);
    split_state_ = take<float>(std::size_t{16} * kQHeads * max_splits_ * 2);
  }

  // Steps of up to 128 rows are decodes of that many sequences, larger ones a prompt's chunk.
  void make_step(int rows) {
    const bool prompt = rows > 128;
    const int seqs = prompt ? 1 : rows;
    const int keys = options_.context + (prompt ? rows : 1);
    const int pages_a_seq = (keys + kPageTokens - 1) / kPageTokens;
    std::vector<StepRow> step(static_cast<std::size_t>(rows));
    for (int i = 0; i < rows; ++i)
      step[static_cast<std::size_t>(i)] = {0, options_.context + (prompt ? i : 0), prompt ? 0 : i};
    std::vector<StepSeq> seq(static_cast<std::size_t>(seqs));
    for (int s = 0; s < seqs; ++s)
      seq[static_cast<std::size_t>(s)] = {
          {s * pages_a_seq, s * pages_a_seq}, {0, 0}, s, prompt ? rows : 1};
    std::vector<std::int32_t> pages(static_cast<std::size_t>(seqs * pages_a_seq));
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), random_);
    std::vector<StepLogits> logits(kMostHeadRows);
    for (int i = 0; i < kMostHeadRows; ++i)
      logits[static_cast<std::size_t>(i)] = {std::min(i, rows - 1), DrawKind::kGreedy};
    inputs_ = {copied(step), copied(logits), copied(seq), copied(pages), nullptr};
    const std::size_t block = std::size_t{kPageTokens} * kHeadDim * 2;
    kv_ = {.pages = nullptr,
           .page_bytes = block * 2 * kKvHeads * (kLayers / 2),
           .block_bytes = block,
           .page_tokens = kPageTokens,
           .heads = kKvHeads,
           .head_dim = kHeadDim,
           .group = 0,
           .bf16 = true};
    auto* pool = take<std::byte>(kv_.page_bytes * pages.size() * 2);
    fill(pool, kv_.page_bytes * pages.size() * 2, true);
    for (int group = 0; group < 2; ++group)
      pools_[group] = pool + static_cast<std::size_t>(group) * kv_.page_bytes * pages.size();
  }

  // The experts of each row, sorted as route does; returns how many are read.
  int make_routing(int rows, int tile_tokens) {
    std::vector<double> weights(kExperts, 1.0);
    if (options_.skew == "zipf")
      for (int e = 0; e < kExperts; ++e) weights[static_cast<std::size_t>(e)] = 1.0 / (e + 1);
    std::vector<std::int32_t> expert;
    for (int row = 0; row < rows; ++row) {
      std::vector<std::int32_t> chosen;
      if (options_.skew == "one") chosen = {0, 1, 2, 3};
      while (static_cast<int>(chosen.size()) < kTopK) {
        const int e = std::discrete_distribution<int>(weights.begin(), weights.end())(random_);
        if (std::find(chosen.begin(), chosen.end(), e) == chosen.end()) chosen.push_back(e);
      }
      expert.insert(expert.end(), chosen.begin(), chosen.end());
    }
    std::vector<std::int32_t> order;
    std::vector<ExpertTile> tiles;
    int read = 0;
    for (int e = 0; e < kExperts; ++e) {
      const auto begin = static_cast<std::int32_t>(order.size());
      for (std::size_t pair = 0; pair < expert.size(); ++pair)
        if (expert[pair] == e) order.push_back(static_cast<std::int32_t>(pair));
      const auto count = static_cast<std::int32_t>(order.size()) - begin;
      read += count > 0 ? 1 : 0;
      for (int done = 0; done < count; done += tile_tokens)
        tiles.push_back({e, begin + done, std::min(tile_tokens, count - done)});
    }
    const std::vector<float> even(expert.size(), 0.25F);
    const auto num_tiles = static_cast<std::int32_t>(tiles.size());
    const auto put = [&](void* to, const void* from, std::size_t bytes) {
      copy_and_wait(stream_, to, from, bytes);
    };
    put(routing_.expert, expert.data(), expert.size() * 4);
    put(routing_.weight, even.data(), even.size() * 4);
    put(routing_.order, order.data(), order.size() * 4);
    put(routing_.tiles, tiles.data(), tiles.size() * sizeof(ExpertTile));
    put(routing_.num_tiles, &num_tiles, 4);
    routing_.tile_tokens = tile_tokens;
    return read;
  }

  // Median microseconds of a replay of what `record` launches.
  double time(const std::function<void()>& record) {
    record();  // loads the modules
    stream_.synchronize();
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    check(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal), "recording");
    record();
    check(cudaStreamEndCapture(stream_.get(), &graph), "recording");
    check(cudaGraphInstantiate(&exec, graph, 0), "recording");
    std::vector<double> micros;
    for (int i = 0; i < kReplays; ++i) {
      begin_.record(stream_);
      check(cudaGraphLaunch(exec, stream_.get()), "a replay");
      end_.record(stream_);
      stream_.synchronize();
      micros.push_back(static_cast<double>(end_.milliseconds_since(begin_)) * 1e3);
    }
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    std::nth_element(micros.begin(), micros.begin() + kReplays / 2, micros.end());
    return micros[kReplays / 2];
  }

  void cell(int rows, const char* stage, int calls, double bytes, double flops,
            const std::function<void(int)>& launch_one) {
    if (!options_.only.empty() && options_.only.find(stage) == std::string::npos) return;
    const double micros = time([&] {
                            for (int i = 0; i < calls; ++i) launch_one(i);
                          }) /
                          calls;
    std::printf("%-6d %-10s %10.2f %10.1f %10.2f\n", rows, stage, micros, bytes / micros / 1e3,
                flops / micros / 1e6);
    std::fflush(stdout);
  }

  static Products products(int rows) {
    return rows <= kTileTokens ? Products::kStream : Products::kGemm;
  }
  Products of_dense(int rows) const { return dense_products(products(rows), head_, rows); }
  Products of_experts(int rows) const {
    return is_batch(rows, slab_) ? Products::kGemm : products(rows);
  }
  int tile_tokens(int rows) const {
    if (of_experts(rows) != Products::kGemm) return kTileTokens;
    return is_batch(rows, slab_) ? kBatchTokens : tensor_tile_tokens(rows, kTopK, kExperts);
  }

  // Of a product of so many rows; in the order of MXFP4 experts' inputs if it is for those.
  NormArgs norm(int rows, bool for_experts) const {
    NormArgs args = norm(normed_);
    if ((for_experts ? of_experts(rows) : of_dense(rows)) == Products::kGemm) args.out16 = x16_;
    if (for_experts) args.order16 = experts_input_order(slab_.format);
    return args;
  }
  NormArgs norm(float* out) const {
    return {inputs_, x_, delta_, nullptr, bias_, 1e-5F, kHidden, out};
  }
  QkvArgs qkv(int rows, int layer) const {
    QkvArgs args{.inputs = inputs_,
                 .x = rows <= 2 ? nullptr : normed_,
                 .norm = norm(normed_),
                 .products = of_dense(rows),
                 .x16 = x16_,
                 .partials = partials_,
                 .rows = rows,
                 .weight = {qkv_[layer][0], qkv_[layer][1], qkv_[layer][2]},
                 .bias = {bias_, bias_, bias_},
                 .inv_freq = inv_freq_,
                 .concentration = 1.0F,
                 .rotations = rotations_,
                 .q_heads = kQHeads,
                 .kv = layer_kv(layer),
                 .q = q_};
    return args;
  }
  KvLayer layer_kv(int layer) const {
    KvLayer kv = kv_;
    kv.group = layer % 2;
    kv.pages =
        pools_[layer % 2] + static_cast<std::size_t>(layer / 2) * kKvHeads * 2 * kv.block_bytes;
    return kv;
  }
  AttendArgs attend(int rows, int layer, bool window) const {
    return {.inputs = inputs_,
            .q = q_,
            .sinks = bias_,
            .kv = layer_kv(layer),
            .q_heads = kQHeads,
            .window = window ? kWindow : 0,
            .scale = 0.125F,
            .rows = rows,
            .seqs = rows > 128 ? 1 : rows,
            .split_rows = 16,
            .max_splits = max_splits_,
            .split_out = split_out_,
            .split_state = split_state_,
            .arrived = partials_.arrived,
            .out = attn_};
  }
  DenseArgs dense(int rows, const Matrix& weight, const float* x, float* out) const {
    return {weight, bias_, x, of_dense(rows), x16_, partials_, out, rows};
  }
  RouteArgs route(int rows, int layer) const {
    std::byte* const planes = of_experts(rows) == Products::kStream ? planes_ : nullptr;
    return {norm(rows, true), router_[layer], no_bias_,
            routing_,         planes,         table_ + layer * kExperts,
            router_logits_,   arrived_,       is_one_row(rows, slab_, kExperts, kTopK)};
  }
  ExpertsArgs experts(int rows, int layer) const {
    return {.routing = routing_,
            .slabs = table_ + layer * kExperts,
            .slab = slab_,
            .x = normed_,
            .products = of_experts(rows),
            .rows = rows,
            .limit = 7.0F,
            .alpha = 1.702F,
            .add_bias = true,
            .x16 = x16_,
            .inner16 = inner16_,
            .inner = inner_,
            .logits = is_one_row(rows, slab_, kExperts, kTopK) ? router_logits_ : nullptr,
            .planes = of_experts(rows) == Products::kStream ? planes_ : nullptr,
            .inner_planes = inner_planes_,
            .outer = outer_,
            .out = delta_};
  }

  void run_rows(int rows) {
    make_step(rows);
    const int read = make_routing(rows, tile_tokens(rows));
    const double weight_bytes = options_.int8 ? 1.0 + 2.0 / kInt8Group : 2.0;
    const auto dense_cost = [&](double m, double k) {
      return std::pair{m * k * weight_bytes, 2.0 * m * k * rows};
    };
    const auto [qkv_bytes, qkv_flops] = dense_cost(5120, kHidden);
    const auto [out_bytes, out_flops] = dense_cost(kHidden, 4096);
    const double moe_bytes = static_cast<double>(read) * static_cast<double>(slab_.bytes);
    const double moe_flops = 2.0 * rows * kTopK * 3.0 * kHidden * kIntermediate;
    const double keys = rows > 128 ? options_.context + rows / 2.0 : options_.context + 1.0;
    const double kv_bytes = (rows > 128 ? options_.context + rows : keys * rows) * 2048.0;
    const double window_keys = std::min<double>(keys, kWindow);
    std::printf("%d experts read\n", read);
    cell(rows, "norm", kLayers, 0, 0,
         [&](int) { launch_norm(stream_.get(), rows, norm(rows, false)); });
    cell(rows, "qkv", kLayers, qkv_bytes, qkv_flops,
         [&](int layer) { launch_qkv(stream_.get(), qkv(rows, layer)); });
    cell(rows, "full", kLayers, kv_bytes, 4.0 * rows * keys * 4096,
         [&](int layer) { launch_attend(stream_.get(), attend(rows, layer, false)); });
    cell(rows, "window", kLayers, kv_bytes / keys * window_keys, 4.0 * rows * window_keys * 4096,
         [&](int layer) { launch_attend(stream_.get(), attend(rows, layer, true)); });
    cell(rows, "out", kLayers, out_bytes, out_flops,
         [&](int layer) { launch_dense(stream_.get(), dense(rows, out_[layer], attn_, delta_)); });
    cell(rows, "experts", kLayers, moe_bytes, moe_flops,
         [&](int layer) { launch_experts(stream_.get(), experts(rows, layer)); });
    cell(rows, "route", kLayers, 2.0 * kExperts * kHidden, 0,
         [&](int layer) { launch_route(stream_.get(), rows, route(rows, layer)); });
    const int head_rows = std::min(rows > 128 ? 1 : rows, kMostHeadRows);
    cell(head_rows, "head", 4, weight_bytes * kVocab * kHidden, 2.0 * kVocab * kHidden * head_rows,
         [&](int) { launch_dense(stream_.get(), dense(head_rows, head_, normed_, logits_)); });
    draw_cell(head_rows, "draw", {0, DrawKind::kGreedy});
    draw_cell(head_rows, "report", {.row = 0, .draw = DrawKind::kGumbel, .top_n = 20});
    StepLogits how = {
        .row = 0, .draw = DrawKind::kGumbel, .filtered = true, .top_p = 0.95, .reach = -40.0};
    draw_cell(head_rows, "top-p", how);
    how.top_k = 40;
    draw_cell(head_rows, "both", how);
    make_routing(rows, tile_tokens(rows));
    check(cudaMemsetAsync(routing_.experts_read, 0, sizeof(std::uint64_t), stream_.get()),
          "clearing");
    cell(rows, "layers", 1, kLayers * (qkv_bytes + out_bytes + moe_bytes),
         kLayers * (qkv_flops + out_flops + moe_flops), [&](int) {
           if (of_dense(rows) == Products::kGemm) launch_rotations(stream_.get(), qkv(rows, 0));
           for (int layer = 0; layer < kLayers; ++layer) {
             if (rows > 2) launch_norm(stream_.get(), rows, norm(rows, false));
             launch_qkv(stream_.get(), qkv(rows, layer));
             launch_attend(stream_.get(), attend(rows, layer, layer % 2 == 0));
             launch_dense(stream_.get(), dense(rows, out_[layer], attn_, delta_));
             launch_route(stream_.get(), rows, route(rows, layer));
             launch_experts(stream_.get(), experts(rows, layer));
           }
         });
    std::uint64_t chosen = 0;
    copy_and_wait(stream_, &chosen, routing_.experts_read, sizeof chosen);
    const double layers = kLayers * (kReplays + 1.0);
    if (chosen > 0) std::printf("%.1f experts read a layer\n", chosen / layers);
  }

  void draw_cell(int rows, const char* name, const StepLogits& how) {
    DrawArgs args = draw_;
    args.inputs.logits = copied(std::vector<StepLogits>(kMostHeadRows, how));
    args.count = rows;
    DrawsAsked asked;
    asked.add(how);
    cell(rows, name, 4, 4.0 * kVocab * rows, 0,
         [&](int) { launch_draws(stream_.get(), asked, args); });
  }

  const Options options_;
  const int most_rows_;
  const SlabLayout slab_;
  Stream stream_;
  Event begin_, end_;
  DeviceArena memory_;
  std::uint64_t seed_ = 0;
  std::mt19937_64 random_{1};

  std::vector<std::array<Matrix, 3>> qkv_;
  std::vector<Matrix> out_, router_;
  Matrix head_;
  const std::byte* const* table_ = nullptr;
  float *bias_ = nullptr, *no_bias_ = nullptr;  // of routers none: rows would choose alike
  float *x_ = nullptr, *normed_ = nullptr, *q_ = nullptr, *attn_ = nullptr, *delta_ = nullptr;
  std::uint16_t *x16_ = nullptr, *inner16_ = nullptr;
  float *inner_ = nullptr, *outer_ = nullptr, *logits_ = nullptr, *router_logits_ = nullptr;
  std::int32_t* arrived_ = nullptr;
  std::byte *planes_ = nullptr, *inner_planes_ = nullptr;
  float *split_out_ = nullptr, *split_state_ = nullptr;
  Partials partials_;
  std::int32_t max_splits_ = 0;
  const float* inv_freq_ = nullptr;
  float2* rotations_ = nullptr;
  Routing routing_{};
  StepInputs inputs_{};
  KvLayer kv_{};
  std::byte* pools_[2] = {};
  DrawArgs draw_{};
};

}  // namespace
}  // namespace strata::kernels::cuda

int main(int argc, char** argv) {
  const auto options = strata::kernels::cuda::parse_options(argc, argv);
  if (!options) return 2;
  try {
    strata::kernels::cuda::Bench(*options).run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
