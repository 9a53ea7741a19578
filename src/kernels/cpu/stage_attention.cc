// embed, attn_qkv, attend and attn_out of the CPU backend.
#include <algorithm>
#include <cmath>

#include "base/bf16.h"
#include "base/check.h"
#include "kernels/cpu/cpu_stages.h"

namespace strata::kernels::cpu {
void CpuBackend::embed(const StepShape&, WeightHandle embedding, Buffer x) {
  Timer timer(*this, Stage::kEmbed);
  const DenseWeight& table = weight(embedding);
  for (const std::int32_t row : live_) {
    float* out = row_of(x, row, config_.hidden);
    const std::int64_t id = step_->rows()[static_cast<std::size_t>(row)].token - table.first_row();
    if (id < 0 || id >= table.rows()) {  // another rank's
      std::fill_n(out, config_.hidden, 0.0F);
      continue;
    }
    const auto* values = reinterpret_cast<const Bf16*>(table.row(id));
    for (std::int32_t i = 0; i < config_.hidden; ++i) out[i] = to_float(values[i]);
    timer.read(static_cast<std::size_t>(config_.hidden) * sizeof(Bf16));
  }
}

NormRow CpuBackend::norm_row(Buffer x, const Deltas& deltas, WeightHandle norm,
                             std::int32_t row) const {
  const std::int32_t hidden = config_.hidden;
  return {.x = row_of(x, row, hidden),
          .delta_a = deltas.a.data == nullptr ? nullptr : row_of(deltas.a, row, hidden),
          .delta_b = deltas.b.data == nullptr ? nullptr : row_of(deltas.b, row, hidden),
          .x_out = nullptr,
          .weight = weight(norm).vector(),
          .eps = config_.rms_eps,
          .n = hidden,
          .out = nullptr};
}

void CpuBackend::multiply(const DenseWeight& matrix, std::int32_t first, std::int32_t count,
                          const Inputs& x, float* y, const Worker& worker) const {
  if (matrix.format() == WeightFormat::kI8g32) {
    const std::int64_t tile = first / kTileRows;
    primitives_.product_i8({.weights = matrix.tile(tile),
                            .scales = matrix.tile_scales(tile),
                            .k = matrix.cols(),
                            .count = count,
                            .x = x.quads.data(),
                            .num_x = static_cast<int>(x.size()),
                            .planes = planes_,
                            .y = y,
                            .y_stride = count,
                            .scratch = worker.product});
    return;
  }
  primitives_.product_bf16({.weights = matrix.row(first),
                            .k = matrix.cols(),
                            .count = count,
                            .x = x.floats.data(),
                            .num_x = static_cast<int>(x.size()),
                            .y = y,
                            .y_stride = count,
                            .scratch = worker.product});
}

void CpuBackend::attn_qkv(const StepShape&, LayerId layer, const LayerWeights& weights, Buffer x,
                          const Deltas& deltas, Buffer q) {
  Timer timer(*this, Stage::kAttnQkv);
  const int norm_grain = grain_of(std::int64_t{kNormCost} * config_.hidden);
  share_work(pool_, num_live(), norm_grain, [&](int, int begin, int end) {
    for (int i = begin; i < end; ++i) {
      const std::int32_t row = live_[static_cast<std::size_t>(i)];
      NormRow norm = norm_row(x, deltas, weights.attn_norm, row);
      norm.x_out = row_of(x, row, config_.hidden);
      norm.out = normed_.float_row(row);
      primitives_.norm(norm);
      if (dense_is_int8()) quantise(norm.out, config_.hidden, 0, normed_.quad_row(row));
    }
  });
  if (live_.empty()) return;
  STRATA_CHECK(weight(weights.q_weight).rows() == config_.q_dim() &&
                   weight(weights.k_weight).rows() == config_.kv_dim(),
               "heads of another shard");
  // Key and value heads first: they are the larger pieces.
  const std::int32_t kv_heads = config_.num_kv_heads;
  const int head_grain = grain_of(std::int64_t{config_.head_dim} * config_.hidden * num_live());
  share_work(pool_, kv_heads + config_.num_q_heads, head_grain,
             [&](int worker, int begin, int end) {
               for (int head = begin; head < end; ++head) {
                 Worker& memory = workers_[static_cast<std::size_t>(worker)];
                 if (head < kv_heads) key_value_head(layer, weights, head, memory);
                 else query_head(weights, head - kv_heads, memory, q);
               }
             });
  for (const WeightHandle read : {weights.q_weight, weights.k_weight, weights.v_weight})
    timer.multiply(weight(read), num_live());
}

// Rotates the pairs (i, i + half) of one head.
void CpuBackend::rotate(float* head, std::int32_t live) const {
  const std::int32_t half = config_.head_dim / 2;
  const float* cosine = row_of({rope_rows_}, live, config_.head_dim);
  const float* sine = cosine + half;
  for (std::int32_t i = 0; i < half; ++i) {
    const float first = head[i], second = head[i + half];
    head[i] = first * cosine[i] - second * sine[i];
    head[i + half] = second * cosine[i] + first * sine[i];
  }
}

void CpuBackend::query_head(const LayerWeights& weights, std::int32_t head, Worker& worker,
                            Buffer q) {
  const std::int32_t dim = config_.head_dim;
  const float* bias = weight(weights.q_bias).vector() + head * dim;
  multiply(weight(weights.q_weight), head * dim, dim, live_normed_, worker.y, worker);
  for (std::int32_t i = 0; i < num_live(); ++i) {
    const float* from = worker.y + static_cast<std::ptrdiff_t>(i) * dim;
    float* to = row_of(q, live_[static_cast<std::size_t>(i)], config_.q_dim()) + head * dim;
    for (std::int32_t d = 0; d < dim; ++d) to[d] = from[d] + bias[d];
    rotate(to, i);
  }
}

void CpuBackend::key_value_head(LayerId layer, const LayerWeights& weights, std::int32_t head,
                                Worker& worker) {
  const std::int32_t dim = config_.head_dim;
  const KvGroup group = kv_group_of(config_, layer);
  const float* key_bias = weight(weights.k_bias).vector() + head * dim;
  const float* value_bias = weight(weights.v_bias).vector() + head * dim;
  float* keys = worker.y;
  float* values = keys + static_cast<std::ptrdiff_t>(num_live()) * dim;
  multiply(weight(weights.k_weight), head * dim, dim, live_normed_, keys, worker);
  multiply(weight(weights.v_weight), head * dim, dim, live_normed_, values, worker);
  for (std::int32_t i = 0; i < num_live(); ++i, keys += dim, values += dim) {
    for (std::int32_t d = 0; d < dim; ++d) {
      keys[d] += key_bias[d];
      values[d] += value_bias[d];
    }
    rotate(keys, i);
    const RowInput& row =
        step_->rows()[static_cast<std::size_t>(live_[static_cast<std::size_t>(i)])];
    const SeqInput& seq = step_->seqs()[static_cast<std::size_t>(row.seq)];
    const PageId page = seq.tables[group]->page_of(row.position / kv_->page_tokens());
    kv_->write(page, layer, head, row.position % kv_->page_tokens(), keys, values);
  }
}

void CpuBackend::attend(const StepShape&, LayerId layer, const LayerWeights& weights, Buffer q,
                        Buffer attn) {
  Timer timer(*this, Stage::kAttend);
  timer.attend(attend_work(layer));
  const std::int32_t rows = num_live();
  const std::size_t value_bytes = kv_->dtype() == KvDtype::kF32 ? sizeof(float) : sizeof(Bf16);
  const AttendRow common{.q = static_cast<const float*>(q.data),
                         .heads = config_.q_per_kv(),
                         .head_dim = config_.head_dim,
                         .page_tokens = kv_->page_tokens(),
                         .value_offset = static_cast<std::ptrdiff_t>(value_bytes) *
                                         kv_->page_tokens() * config_.head_dim,
                         .sinks = weight(weights.sinks).vector(),
                         .scale = 1.0F / std::sqrt(static_cast<float>(config_.head_dim)),
                         .out = static_cast<float*>(attn.data)};
  // Rows of one KV head come one after the other: its keys and values stay in the cache.
  share_work(pool_, rows * config_.num_kv_heads, attend_grain(layer),
             [&](int worker, int begin, int end) {
               for (int unit = begin; unit < end; ++unit)
                 attend_one(layer, unit % rows, unit / rows, common,
                            workers_[static_cast<std::size_t>(worker)]);
             });
}

// By the longest context of the step: two products of every key with every query head.
int CpuBackend::attend_grain(LayerId layer) const {
  std::int32_t keys = 0;
  for (const SeqInput& seq : step_->seqs()) keys = std::max(keys, seq.first_position + seq.n_rows);
  if (kv_group_of(config_, layer) == kWindowGroup) keys = std::min(keys, config_.window);
  return grain_of(std::int64_t{2} * keys * config_.q_per_kv() * config_.head_dim);
}

// A sequence's keys and values are read once, whatever its rows; every row meets all it may see.
StageStats CpuBackend::attend_work(LayerId layer) const {
  const bool windowed = kv_group_of(config_, layer) == kWindowGroup;
  const std::int64_t window = windowed ? config_.window : config_.max_context;
  const std::int64_t value_bytes = kv_->dtype() == KvDtype::kF32 ? sizeof(float) : sizeof(Bf16);
  StageStats work;
  for (const SeqInput& seq : step_->seqs()) {
    const std::int64_t end = std::int64_t{seq.first_position} + seq.n_rows;
    work.kv_bytes += std::min(end, window + seq.n_rows - 1) * 2 * config_.kv_dim() * value_bytes;
    for (std::int64_t keys = seq.first_position + 1; keys <= end; ++keys)
      work.float_adds += std::min(keys, window) * 2 * config_.q_dim();
  }
  return work;
}

void CpuBackend::attend_one(LayerId layer, std::int32_t live, std::int32_t kv_head,
                            const AttendRow& common, Worker& worker) {
  const std::int32_t row_index = live_[static_cast<std::size_t>(live)];
  const RowInput& row = step_->rows()[static_cast<std::size_t>(row_index)];
  const KvGroup group = kv_group_of(config_, layer);
  const PageTable& table = *step_->seqs()[static_cast<std::size_t>(row.seq)].tables[group];
  const std::int32_t first_key =
      group == kWindowGroup ? std::max(0, row.position - config_.window + 1) : 0;
  const std::int32_t first_page = first_key / kv_->page_tokens();
  worker.kv_pages.clear();
  for (std::int32_t page = first_page; page <= row.position / kv_->page_tokens(); ++page)
    worker.kv_pages.push_back(kv_->keys(table.page_of(page), layer, kv_head));

  AttendRow one = common;
  const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(row_index) * config_.q_dim() +
                            kv_head * config_.q_per_kv() * config_.head_dim;
  one.q += at;
  one.out += at;
  one.pages = worker.kv_pages.data();
  one.first_page = first_page;
  one.first_key = first_key;
  one.end_key = row.position + 1;
  one.sinks += kv_head * config_.q_per_kv();
  one.scratch = worker.attend;
  if (kv_->dtype() == KvDtype::kF32) primitives_.attend_f32(one);
  else primitives_.attend_bf16(one);
}

void CpuBackend::attn_out(const StepShape&, LayerId, const LayerWeights& weights, Buffer /*attn*/,
                          Buffer delta) {
  Timer timer(*this, Stage::kAttnOut);
  if (live_.empty()) return;
  if (dense_is_int8())
    share_work(pool_, num_live(), grain_of(std::int64_t{kNormCost} * config_.q_dim()),
               [&](int, int begin, int end) {
                 for (int i = begin; i < end; ++i) {
                   const std::int32_t row = live_[static_cast<std::size_t>(i)];
                   quantise(attn_.float_row(row), config_.q_dim(), 0, attn_.quad_row(row));
                 }
               });
  const DenseWeight& matrix = weight(weights.out_weight);
  const float* bias = weight(weights.out_bias).vector();
  const std::int32_t unit = unit_rows(num_live());
  const int grain = grain_of(std::int64_t{unit} * matrix.cols() * num_live());
  share_work(pool_, (matrix.rows() + unit - 1) / unit, grain, [&](int worker, int begin, int end) {
    const Worker& memory = workers_[static_cast<std::size_t>(worker)];
    for (std::int32_t first = begin * unit; first < std::min(end * unit, matrix.rows());
         first += unit) {
      const std::int32_t count = std::min(unit, matrix.rows() - first);
      multiply(matrix, first, count, live_attn_, memory.y, memory);
      for (std::int32_t i = 0; i < num_live(); ++i) {
        const float* from = memory.y + static_cast<std::ptrdiff_t>(i) * count;
        float* to = row_of(delta, live_[static_cast<std::size_t>(i)], config_.hidden) + first;
        for (std::int32_t o = 0; o < count; ++o)
          to[o] = rank_ == 0 ? from[o] + bias[first + o] : from[o];
      }
    }
  });
  timer.multiply(matrix, num_live());
}

}  // namespace strata::kernels::cpu
