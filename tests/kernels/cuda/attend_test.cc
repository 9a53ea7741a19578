// The attention kernels on keys and values made here, against double computations: the path of
// every card, and those of tensor cores. Skipped where there is no usable card.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>
#include <optional>

#include "base/bf16.h"
#include "base/random.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/step_inputs.h"
#include "tests/support/test_backends.h"

namespace strata::test {
namespace {

using namespace kernels::cuda;

constexpr std::int32_t kDim = 64;
constexpr float kScale = 0.125F;

// `rows` rows of one sequence from `position` on; position -1: rows of padding.
struct Span {
  std::int32_t position;
  std::int32_t rows;
};

struct Shape {
  std::int32_t q_heads = 16;
  std::int32_t kv_heads = 2;
  std::int32_t window = 0;
  std::int32_t page_tokens = 16;
  double amplitude = 1.0;  // of queries
  float sink = 0.5F;
  std::int32_t max_keys = 4096;
  std::int32_t split_rows = 16;  // of which there is scratch
};

enum class Path { kGeneric, kDecode, kPrefill };
const char* name_of(Path path) {
  return path == Path::kGeneric ? "generic" : (path == Path::kDecode ? "decode" : "prefill");
}
// Of a value, as a share of (1 + the largest score's magnitude) * the values' magnitude.
double tolerance_of(Path path) { return path == Path::kPrefill ? 4e-3 : 1e-5; }

float uniform(std::uint64_t key, std::uint64_t i) {
  return static_cast<float>(2.0 * uniform_double(random_at(key, i)) - 1.0);
}

// A step, its KV pool on the host, and the inputs of a launch.
class AttendCase {
 public:
  AttendCase(const Shape& shape, const std::vector<Span>& spans) : shape_(shape) {
    std::int32_t next_page = 1;
    for (const Span& span : spans) add(span, next_page);
    std::vector<std::int32_t> number(static_cast<std::size_t>(next_page));
    std::iota(number.begin(), number.end(), 0);
    std::sort(number.begin(), number.end(), [](std::int32_t a, std::int32_t b) {
      return mix64(static_cast<std::uint64_t>(a)) < mix64(static_cast<std::uint64_t>(b));
    });
    for (std::int32_t& page : pages_) page = number[static_cast<std::size_t>(page)];
    block_ = static_cast<std::size_t>(shape.page_tokens * kDim);
    page_ = block_ * 2 * static_cast<std::size_t>(shape.kv_heads) * kLayers;
    // What no token lies in is not a number.
    pool_.assign(page_ * number.size(), 0x7fff);
    for (std::size_t s = 0; s < seqs_.size(); ++s) fill(s);
    q_.resize(rows_.size() * q_dim());
    for (std::size_t i = 0; i < q_.size(); ++i)
      q_[i] = static_cast<float>(shape.amplitude) *
              uniform(mix64(static_cast<std::uint64_t>(rows_[i / q_dim()].position)), i % q_dim());
    for (std::int32_t h = 0; h < shape.q_heads; ++h)
      sinks_.push_back(shape.sink * static_cast<float>(h % 3 + 1));
  }

  std::size_t q_dim() const { return static_cast<std::size_t>(shape_.q_heads * kDim); }
  std::size_t rows() const { return rows_.size(); }

  // [rows, q_dim]; rows of padding stay NaN.
  std::vector<float> run(Path path) const {
    const Stream stream;
    DeviceArena memory("test", bytes());
    const auto put = [&](const auto& values) {
      using T = std::decay_t<decltype(values[0])>;
      auto* to = reinterpret_cast<T*>(memory.take(values.size() * sizeof(T)));
      copy_and_wait(stream, to, values.data(), values.size() * sizeof(T));
      return to;
    };
    const std::vector<float> nothing(q_.size(), std::numeric_limits<float>::quiet_NaN());
    const std::vector<std::int32_t> zeros(kMostArrivals, 0);
    AttendArgs args{};
    args.inputs.rows = put(rows_);
    args.inputs.seqs = put(padded_seqs());
    args.inputs.pages = put(pages_);
    args.q = put(q_);
    args.sinks = put(sinks_);
    auto* pool = reinterpret_cast<std::byte*>(put(pool_));
    args.kv = {.pages = pool + layer_offset() * 2,
               .page_bytes = page_ * 2,
               .block_bytes = block_ * 2,
               .page_tokens = shape_.page_tokens,
               .heads = shape_.kv_heads,
               .head_dim = kDim,
               .group = kWindowGroup,
               .bf16 = true};
    args.q_heads = shape_.q_heads;
    args.window = shape_.window;
    args.scale = kScale;
    args.rows = static_cast<std::int32_t>(rows_.size());
    args.seqs = static_cast<std::int32_t>(padded_seqs().size());
    args.split_rows = shape_.split_rows;
    args.max_splits = max_splits();
    args.split_out = put(std::vector<float>(scratch() * kDim, nothing[0]));
    args.split_state = put(std::vector<float>(scratch() * 2, nothing[0]));
    auto* arrived = put(zeros);
    args.out = put(nothing);
    if (path == Path::kGeneric) launch_attend(stream.get(), args);
    args.arrived = arrived;
    if (path == Path::kDecode) launch_attend_decode(stream.get(), args);
    if (path == Path::kPrefill) launch_attend_prefill(stream.get(), args);
    std::vector<float> out(q_.size());
    copy_and_wait(stream, out.data(), args.out, out.size() * sizeof(float));
    std::vector<std::int32_t> left(zeros.size());
    copy_and_wait(stream, left.data(), arrived, left.size() * sizeof(std::int32_t));
    EXPECT_EQ(left, zeros) << "arrivals are left behind";
    return out;
  }

  // Every `stride`-th row and the last, every `head_stride`-th head and the last.
  void check(Path path, std::size_t stride = 1, std::int32_t head_stride = 1) const {
    const std::vector<float> out = run(path);
    double worst = 0.0;
    for (std::size_t row = 0; row < rows_.size(); ++row) {
      const float* of_row = out.data() + row * q_dim();
      if (rows_[row].seq < 0) {
        ASSERT_TRUE(std::all_of(of_row, of_row + q_dim(), [](float v) { return std::isnan(v); }))
            << "padding row " << row << " was written";
        continue;
      }
      if (row % stride != 0 && row + 1 != rows_.size()) continue;
      for (std::int32_t head = 0; head < shape_.q_heads; ++head) {
        if (head % head_stride != 0 && head + 1 != shape_.q_heads) continue;
        const std::vector<double> shares = errors(row, head, of_row + head * kDim);
        for (std::size_t i = 0; i < shares.size(); ++i) {
          worst = std::max(worst, shares[i]);
          ASSERT_LE(shares[i], tolerance_of(path))
              << name_of(path) << ", row " << row << ", position " << rows_[row].position
              << ", head " << head << ", i " << i << ", window " << shape_.window << ", pages of "
              << shape_.page_tokens << ": " << of_row[head * kDim + static_cast<std::int32_t>(i)];
        }
      }
    }
    std::printf("%s: error %.1e of %.0e\n", name_of(path), worst, tolerance_of(path));
  }

 private:
  static constexpr std::size_t kLayers = 2;  // of which the second is this one

  void add(const Span& span, std::int32_t& next_page) {
    const auto first_row = static_cast<std::int32_t>(rows_.size());
    if (span.position < 0) {
      rows_.insert(rows_.end(), static_cast<std::size_t>(span.rows), StepRow{0, 0, -1});
      return;
    }
    const auto seq = static_cast<std::int32_t>(seqs_.size());
    const std::int32_t tokens = shape_.page_tokens;
    const std::int32_t end = span.position + span.rows;
    StepSeq entry{};
    entry.table[kWindowGroup] = static_cast<std::int32_t>(pages_.size());
    if (shape_.window > 0)
      entry.first_page[kWindowGroup] = std::max(0, span.position - shape_.window + 1) / tokens;
    entry.first_row = first_row;
    entry.num_rows = span.rows;
    for (std::int32_t page = entry.first_page[kWindowGroup]; page * tokens < end; ++page)
      pages_.push_back(next_page++);
    for (std::int32_t i = 0; i < span.rows; ++i) rows_.push_back({0, span.position + i, seq});
    seqs_.push_back(entry);
    ends_.push_back(end);
  }

  std::size_t layer_offset() const {
    return block_ * 2 * static_cast<std::size_t>(shape_.kv_heads);
  }
  const std::uint16_t* token(std::size_t seq, std::int32_t position, std::int32_t kv_head,
                             bool value) const {
    const StepSeq& entry = seqs_[seq];
    const std::int32_t logical = position / shape_.page_tokens - entry.first_page[kWindowGroup];
    const auto page = static_cast<std::size_t>(
        pages_[static_cast<std::size_t>(entry.table[kWindowGroup] + logical)]);
    return pool_.data() + page * page_ + layer_offset() +
           (static_cast<std::size_t>(kv_head) * 2 + (value ? 1 : 0)) * block_ +
           static_cast<std::size_t>(position % shape_.page_tokens * kDim);
  }
  void fill(std::size_t seq) {
    const std::int32_t first = seqs_[seq].first_page[kWindowGroup] * shape_.page_tokens;
    for (std::int32_t position = first; position < ends_[seq]; ++position)
      for (std::int32_t head = 0; head < shape_.kv_heads; ++head)
        for (const bool value : {false, true}) {
          auto* to = const_cast<std::uint16_t*>(token(seq, position, head, value));
          const std::uint64_t key = mix64(static_cast<std::uint64_t>(position) * 64 +
                                          static_cast<std::uint64_t>(head) * 2 + (value ? 1U : 0U));
          for (std::uint64_t i = 0; i < kDim; ++i) to[i] = to_bf16(uniform(key, i)).bits;
        }
  }

  std::vector<double> errors(std::size_t row, std::int32_t head, const float* out) const {
    const std::int32_t position = rows_[row].position;
    const auto seq = static_cast<std::size_t>(rows_[row].seq);
    const std::int32_t kv_head = head / (shape_.q_heads / shape_.kv_heads);
    const std::int32_t first = shape_.window > 0 ? std::max(0, position - shape_.window + 1) : 0;
    const float* q = q_.data() + row * q_dim() + head * kDim;
    const double sink = static_cast<double>(sinks_[static_cast<std::size_t>(head)]);
    std::vector<double> scores;
    double best = sink;
    double largest = 0.0;
    for (std::int32_t t = first; t <= position; ++t) {
      const std::uint16_t* key = token(seq, t, kv_head, false);
      double score = 0.0;
      double magnitude = 0.0;
      for (int i = 0; i < kDim; ++i) {
        const double product =
            static_cast<double>(q[i]) * static_cast<double>(to_float(Bf16{key[i]}));
        score += product;
        magnitude += std::abs(product);
      }
      scores.push_back(score * static_cast<double>(kScale));
      best = std::max(best, scores.back());
      largest = std::max(largest, magnitude * static_cast<double>(kScale));
    }
    double total = std::exp(sink - best);
    std::vector<double> sums(kDim);
    std::vector<double> magnitudes(kDim);
    for (std::int32_t t = first; t <= position; ++t) {
      const double weight = std::exp(scores[static_cast<std::size_t>(t - first)] - best);
      total += weight;
      const std::uint16_t* value = token(seq, t, kv_head, true);
      for (std::size_t i = 0; i < kDim; ++i) {
        const double product = weight * static_cast<double>(to_float(Bf16{value[i]}));
        sums[i] += product;
        magnitudes[i] += std::abs(product);
      }
    }
    for (std::size_t i = 0; i < kDim; ++i) {
      const double error = std::abs(static_cast<double>(out[i]) - sums[i] / total);
      sums[i] = std::isnan(error) ? std::numeric_limits<double>::infinity()
                                  : error / ((1.0 + largest) * magnitudes[i] / total + 1e-30);
    }
    return sums;
  }

  // The table is longer than the step; entries behind it are of an earlier one.
  std::vector<StepSeq> padded_seqs() const {
    std::vector<StepSeq> seqs = seqs_;
    for (const std::int32_t first_row : {1, 5, 1 << 30, -7})
      seqs.push_back({{0, 0}, {0, 0}, first_row, 3});
    return seqs;
  }
  std::int32_t max_splits() const { return (shape_.max_keys + kSplitKeys - 1) / kSplitKeys; }
  std::size_t scratch() const {
    return static_cast<std::size_t>(shape_.split_rows * shape_.q_heads * max_splits());
  }
  std::size_t bytes() const {
    return pool_.size() * 2 + q_.size() * 8 + scratch() * (kDim + 2) * 4 + pages_.size() * 4 +
           rows_.size() * sizeof(StepRow) + padded_seqs().size() * sizeof(StepSeq) + (1U << 16);
  }

  const Shape shape_;
  std::vector<StepRow> rows_;
  std::vector<StepSeq> seqs_;
  std::vector<std::int32_t> ends_;  // of each sequence's tokens
  std::vector<std::int32_t> pages_;
  std::size_t block_ = 0;  // values of one head's keys in one page
  std::size_t page_ = 0;
  std::vector<std::uint16_t> pool_;
  std::vector<float> q_;
  std::vector<float> sinks_;
};

class CudaAttention : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_cuda_backend()) GTEST_SKIP() << "no usable card";
    tensor_cores_ = kernels::cuda_tensor_cores(ExpertFormat::kMxfp4);
  }
  std::vector<Path> paths() const {
    return tensor_cores_ ? std::vector{Path::kGeneric, Path::kDecode, Path::kPrefill}
                         : std::vector{Path::kGeneric};
  }
  bool tensor_cores_ = false;
};

TEST_F(CudaAttention, EdgesOfWindowsAndSplits) {
  std::vector<Span> spans;
  for (const std::int32_t position : {0,   1,   15,  16,  31,  32,  63,  64,  126,  127,  128, 129,
                                      254, 255, 256, 257, 383, 511, 512, 513, 2047, 2048, 2049})
    spans.push_back({position, 1});
  spans.insert(spans.begin() + 5, {-1, 2});
  for (const std::int32_t window : {0, 1, 7, 128, 300}) {
    const AttendCase step({.window = window}, spans);
    for (const Path path : paths()) step.check(path);
  }
}

TEST_F(CudaAttention, EdgesOfPages) {
  for (const std::int32_t page_tokens : {1, 3, 16, 64}) {
    const AttendCase step({.window = 40, .page_tokens = page_tokens},
                          {{0, 1}, {15, 3}, {47, 18}, {-1, 3}, {300, 2}});
    for (const Path path : paths()) step.check(path);
  }
}

TEST_F(CudaAttention, GroupsOfHeads) {
  struct Heads {
    std::int32_t q, kv;
  };
  for (const Heads heads : {Heads{3, 3}, Heads{6, 2}, Heads{5, 1}, Heads{64, 8}}) {
    const AttendCase step({.q_heads = heads.q, .kv_heads = heads.kv, .amplitude = 2.0},
                          {{600, 1}, {200, 30}, {0, 5}});
    for (const Path path : paths()) step.check(path, 5);
  }
}

TEST_F(CudaAttention, ChunksOfSeveralSequences) {
  for (const std::int32_t window : {0, 128}) {
    const AttendCase step({.window = window, .amplitude = 2.0}, {{77, 33},
                                                                 {0, 1},
                                                                 {5, 1},
                                                                 {300, 40},
                                                                 {-1, 7},
                                                                 {1000, 9},
                                                                 {126, 4},
                                                                 {0, 150},
                                                                 {700, 1},
                                                                 {-1, 20}});
    for (const Path path : paths()) step.check(path);
  }
}

TEST_F(CudaAttention, LongChunkBehindAPrefix) {
  for (const std::int32_t window : {0, 128}) {
    const AttendCase step({.window = window}, {{1500, 1024}});
    for (const Path path : paths()) step.check(path, 97, 5);
  }
}

TEST_F(CudaAttention, SharpScoresAndSinks) {
  for (const float sink : {-5000.0F, 0.0F, 60.0F})
    for (const double amplitude : {0.0, 1.0, 60.0}) {
      const AttendCase step({.amplitude = amplitude, .sink = sink}, {{0, 1}, {70, 20}, {400, 2}});
      for (const Path path : paths()) step.check(path);
    }
}

TEST_F(CudaAttention, LongContexts) {
  const Shape shape{.q_heads = 16, .kv_heads = 2, .max_keys = 131072, .split_rows = 3};
  for (const auto& spans : {std::vector<Span>{{131071, 1}}, std::vector<Span>{{33000, 1}, {9, 1}},
                            std::vector<Span>{{131070, 2}, {5000, 1}, {70000, 1}}}) {
    const AttendCase step(shape, spans);
    for (const Path path : paths()) step.check(path, 1, 7);
  }
}

// However a row's splits are shared among blocks, and whatever rows are beside it.
TEST_F(CudaAttention, DecodeDoesNotDependOnOtherRows) {
  if (!tensor_cores_) GTEST_SKIP() << "no code for tensor cores";
  for (const std::int32_t position : {255, 256, 2047, 2048, 5000, 20000}) {
    std::optional<std::vector<float>> expected;
    for (const std::int32_t others : {0, 3, 15, 30, 40}) {
      std::vector<Span> spans(static_cast<std::size_t>(others), {40, 1});
      spans.push_back({position, 1});
      for (const std::int32_t split_rows : {0, 16}) {
        const AttendCase step({.max_keys = 32768, .split_rows = split_rows}, spans);
        std::vector<float> out = step.run(Path::kDecode);
        out.erase(out.begin(), out.end() - static_cast<std::ptrdiff_t>(step.q_dim()));
        if (!expected) expected = out;
        ASSERT_EQ(out, *expected) << position << " beside " << others;
      }
    }
  }
}

TEST_F(CudaAttention, PromptsDoNotDependOnChunks) {
  if (!tensor_cores_) GTEST_SKIP() << "no code for tensor cores";
  for (const std::int32_t window : {0, 128}) {
    const AttendCase whole({.window = window}, {{0, 300}});
    const std::vector<float> expected = whole.run(Path::kPrefill);
    for (const std::int32_t cut : {1, 64, 129, 250}) {
      const AttendCase part({.window = window}, {{20, 3}, {cut, 300 - cut}});
      const std::vector<float> out = part.run(Path::kPrefill);
      const auto same =
          static_cast<std::ptrdiff_t>(static_cast<std::size_t>(300 - cut) * whole.q_dim());
      EXPECT_TRUE(std::equal(out.end() - same, out.end(), expected.end() - same))
          << "cut at " << cut << ", window " << window;
    }
  }
}

}  // namespace
}  // namespace strata::test
