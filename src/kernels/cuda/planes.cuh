// Matrix times up to eight rows of a step by integer products, for int8 and MXFP4 weights: the
// products of decoding, bound by reading the weights.
//
// Inputs become integers of 15 bits, each 32 of a row with a float32 scale: value = scale * (128
// high + low), two planes of int8 that the four-way dot product takes as they are. The products of
// a block of weights are exact; a float32 sum per lane adds the blocks up.
//
// A warp multiplies a group of kRows rows of the matrix at a time, its groups one after the other.
// In a step a lane takes 16 bytes of each row, from memory straight to registers and kAhead steps
// ahead, across the ends of groups. Weights that do not depend on the launch before are read before
// it has ended (start_reading). A result depends on neither batch nor chunking.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/numbers.cuh"
#include "kernels/cuda/warp.cuh"

namespace strata::kernels::cuda {

inline constexpr int kPlaneBlock = 32;         // inputs that share a scale
inline constexpr int kMostPlaneValue = 16256;  // 127 * 128

// Of 32 inputs. `minus_twelve` is -12 times the sum of their integers: MXFP4 products take it.
struct PlaneScale {
  float scale;
  std::int32_t minus_twelve;
};

// A row of k inputs: its high plane, its low one, its scales, each padded to padded_k(k) values
// with zeros: steps need no check for the row's end. 16-byte chunks of a plane change places
// pairwise in every second eight, so that lanes that read 32 values each do not meet in one bank
// either.
__device__ constexpr int plane_chunk(int chunk) { return (chunk ^ (chunk / 8 % 2)) * 16; }

__device__ inline int dot4(std::uint32_t a, std::uint32_t b, int sum) {
  return __dp4a(static_cast<int>(a), static_cast<int>(b), sum);
}
__device__ inline int dot16(const uint4& a, const uint4& b, int sum) {
  return dot4(a.w, b.w, dot4(a.z, b.z, dot4(a.y, b.y, dot4(a.x, b.x, sum))));
}
__device__ inline uint4 chunk_at(const std::byte* from) {
  return *reinterpret_cast<const uint4*>(from);
}

// If `wanted`: read once, so not kept in the first-level cache.
__device__ inline void read_once(uint4& words, const std::byte* from, bool wanted) {
  asm volatile(
      "{\n\t.reg .pred wanted;\n\tsetp.ne.u32 wanted, %5, 0;\n\t"
      "@wanted ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n\t}"
      : "+r"(words.x), "+r"(words.y), "+r"(words.z), "+r"(words.w)
      : "l"(from), "r"(static_cast<unsigned>(wanted)));
}
template <class Scale>
__device__ void read_scale(std::uint32_t& scale, const std::byte* from, bool wanted) {
  if (wanted) scale = __ldg(reinterpret_cast<const Scale*>(from));
}

// Rows of weights in pieces of 16 bytes. Results of dot() are to be multiplied by kUnit and the
// scales of both sides.
struct Int8Pieces {
  static constexpr int kValues = 16;
  static constexpr float kUnit = 1.0F;
  using Scale = std::uint16_t;
  using Values = uint4;
  const std::byte* data;
  const std::byte* scales;
  int k;

  __device__ explicit Int8Pieces(const Matrix& matrix)
      : data(static_cast<const std::byte*>(matrix.data)),
        scales(reinterpret_cast<const std::byte*>(matrix.scales)),
        k(matrix.cols) {}
  __device__ static int scale_offset(int piece) { return piece / 2 * 2; }
  __device__ Values values(const uint4& piece) const { return piece; }
  __device__ static float scale(std::uint32_t bits) { return __uint_as_float(bits << 16); }

  // What a lane takes of a row of inputs in a step.
  struct Inputs {
    uint4 high, low;
    float scale;
  };
  static constexpr int kStepBytes = kWarp * kValues;  // of a plane
  __device__ static int first_chunk() { return plane_chunk(lane_id()); }
  __device__ static Inputs inputs(const std::byte* chunk, int padded, const PlaneScale* scales) {
    return {chunk_at(chunk), chunk_at(chunk + padded), scales[lane_id() / 2].scale};
  }
  __device__ static int dot(const Values& weights, const Inputs& inputs) {
    return 128 * dot16(weights, inputs.high, 0) + dot16(weights, inputs.low, 0);
  }
};

// Twice an E2M1 number is an integer up to 12; with 12 added it is what the bytes of two tables add
// up to. The first is of doubled magnitudes: where a nibble's upper bit, its sign, is set, the
// permutation gives the byte's sign instead, a zero. The second is of 12 less the magnitude.
// As constants in memory they need no registers and are not made anew for each use.
static __constant__ std::uint32_t kMxfp4Tables[4] = {0x06040200U, 0x18100c08U, 0x090a0b0cU,
                                                     0x00040608U};

struct Mxfp4Pieces {
  static constexpr int kValues = 32;
  static constexpr float kUnit = 0.5F;
  using Scale = std::uint8_t;
  struct Values {
    uint4 first, second;  // sixteen each
  };
  const std::byte* data;
  const std::byte* scales;
  int k;

  __device__ Mxfp4Pieces(const std::byte* blocks, const std::byte* block_scales, int cols)
      : data(blocks), scales(block_scales), k(cols) {}
  __device__ static int scale_offset(int piece) { return piece; }
  __device__ static std::uint32_t permuted(std::uint32_t low, std::uint32_t high,
                                           std::uint32_t places) {
    std::uint32_t bytes;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(low), "r"(high), "r"(places));
    return bytes;
  }
  // The four numbers in the lower half of `nibbles`; `magnitudes` are those without signs.
  __device__ std::uint32_t raised(std::uint32_t nibbles, std::uint32_t magnitudes) const {
    return permuted(kMxfp4Tables[0], kMxfp4Tables[1], nibbles) +
           permuted(kMxfp4Tables[2], kMxfp4Tables[3], magnitudes);
  }
  __device__ uint2 raised8(std::uint32_t nibbles) const {
    const std::uint32_t magnitudes = nibbles & 0x77777777U;
    return {raised(nibbles, magnitudes), raised(nibbles >> 16, magnitudes >> 16)};
  }
  __device__ Values values(const uint4& piece) const {
    const uint2 a = raised8(piece.x);
    const uint2 b = raised8(piece.y);
    const uint2 c = raised8(piece.z);
    const uint2 d = raised8(piece.w);
    return {{a.x, a.y, b.x, b.y}, {c.x, c.y, d.x, d.y}};
  }
  // 2^-127 is no normal number; 255 becomes infinite.
  __device__ static float scale(std::uint32_t bits) {
    return __uint_as_float(max(bits << 23, 0x00400000U));
  }

  struct Inputs {
    uint4 high[2], low[2];
    float scale;
    std::int32_t minus_twelve;
  };
  static constexpr int kStepBytes = kWarp * kValues;
  __device__ static int first_chunk() { return plane_chunk(2 * lane_id()); }
  __device__ static Inputs inputs(const std::byte* chunk, int padded, const PlaneScale* scales) {
    // Neighbours in one order or the other.
    const int other = lane_id() / 4 % 2 == 0 ? 16 : -16;
    const PlaneScale both = scales[lane_id()];
    return {{chunk_at(chunk), chunk_at(chunk + other)},
            {chunk_at(chunk + padded), chunk_at(chunk + padded + other)},
            both.scale,
            both.minus_twelve};
  }
  __device__ static int dot(const Values& weights, const Inputs& inputs) {
    const int high = dot16(weights.second, inputs.high[1], dot16(weights.first, inputs.high[0], 0));
    return 128 * high + dot16(weights.second, inputs.low[1],
                              dot16(weights.first, inputs.low[0], inputs.minus_twelve));
  }
};

// A warp's rows: row r of group g is first + g * group + r * row; rows from `rows` on repeat the
// last one.
struct WarpRows {
  int first;
  int group;
  int row;
  int groups;
  int rows;

  __device__ int operator()(int g, int r) const {
    return min(first + g * group + r * row, rows - 1);
  }
};

// Adds the products of a step's pieces, one of each row, to the sums.
template <class Pieces, int kRows, int kColumns>
__device__ void add_step(const Pieces& weights, const uint4 (&pieces)[kRows],
                         const std::uint32_t (&piece_scales)[kRows], const std::byte* planes,
                         int padded, const int (&columns)[kColumns], int step,
                         float (&sums)[kRows * kColumns]) {
  const std::byte* const chunk = planes + Pieces::first_chunk() + step * Pieces::kStepBytes;
  const std::byte* const scales =
      planes + 2 * padded +
      step * (Pieces::kStepBytes / kPlaneBlock * static_cast<int>(sizeof(PlaneScale)));
  typename Pieces::Values values[kRows];
  float row_scales[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    values[r] = weights.values(pieces[r]);
    row_scales[r] = Pieces::scale(piece_scales[r]);
  }
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const auto inputs = Pieces::inputs(chunk + columns[c], padded,
                                       reinterpret_cast<const PlaneScale*>(scales + columns[c]));
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      sums[r * kColumns + c] = fmaf(static_cast<float>(Pieces::dot(values[r], inputs)),
                                    inputs.scale * row_scales[r], sums[r * kColumns + c]);
  }
}

template <class Pieces, int kRows, int kAhead>
class RowStream {
 public:
  __device__ RowStream(const Pieces& weights, const WarpRows& rows)
      : weights_(weights), rows_(rows), steps_(padded_k(weights.k) / Pieces::kStepBytes) {
    start_group();
  }

  __device__ void start_reading() {
#pragma unroll
    for (int slot = 0; slot < kAhead; ++slot) load(slot);
  }

  // Calls `done(g, value)` for each group: the lane's value is that of row r and column c where
  // r * kColumns + c == sum_of_lane<kRows * kColumns>(). Column c are the inputs at planes +
  // columns[c].
  template <int kColumns, class Done>
  __device__ void multiply(const std::byte* planes, const int (&columns)[kColumns], Done&& done) {
    const int padded = padded_k(weights_.k);
    const int total = rows_.groups * steps_;
    float sums[kRows * kColumns] = {};
    int group = 0;
    int at = 0;  // step of the group
    for (int step = 0; step < total; step += kAhead) {
#pragma unroll
      for (int slot = 0; slot < kAhead; ++slot) {
        if (step + slot >= total) break;
        add_step(weights_, ahead_[slot], scales_[slot], planes, padded, columns, at, sums);
        load(slot);
        if (++at < steps_) continue;
        at = 0;
        done(group++, sum_over_lanes(sums) * Pieces::kUnit);
#pragma unroll
        for (float& sum : sums) sum = 0.0F;
      }
    }
  }

 private:
  __device__ void start_group() {
    const int pieces = weights_.k / Pieces::kValues;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const auto row = static_cast<std::size_t>(rows_(next_group_, r));
      from_[r] = weights_.data + row * pieces * 16;
      scales_from_[r] = weights_.scales + row * (weights_.k / 32) * sizeof(typename Pieces::Scale);
    }
  }

  // The next step's pieces. The last steps may reach behind a row: lanes there repeat its last
  // piece, and the inputs there are zeros.
  __device__ void load(int slot) {
    const bool wanted = next_group_ < rows_.groups;
    const int piece = min(next_step_ * kWarp + lane_id(), weights_.k / Pieces::kValues - 1);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      read_once(ahead_[slot][r], from_[r] + piece * 16, wanted);
      read_scale<typename Pieces::Scale>(scales_[slot][r],
                                         scales_from_[r] + Pieces::scale_offset(piece), wanted);
    }
    if (++next_step_ < steps_) return;
    next_step_ = 0;
    ++next_group_;
    start_group();
  }

  const Pieces weights_;
  const WarpRows rows_;
  const int steps_;  // of a row
  int next_group_ = 0;
  int next_step_ = 0;
  const std::byte* from_[kRows];  // the next step's rows
  const std::byte* scales_from_[kRows];
  uint4 ahead_[kAhead][kRows];
  std::uint32_t scales_[kAhead][kRows];
};

// The same of rows of kK weights, all of which exist: addresses are constants but for where a group
// begins, and these products are bound by their instructions. Row r of group g is first + g * kRows
// + r * kRowStep.
template <class Pieces, int kRows, int kRowStep, int kAhead, int kK>
class FixedStream {
  static constexpr int kPieces = kK / Pieces::kValues;
  static constexpr int kSteps = (kPieces + kWarp - 1) / kWarp;
  static constexpr int kRowBytes = kPieces * 16;
  static constexpr int kRowScales = kK / 32 * static_cast<int>(sizeof(typename Pieces::Scale));
  static_assert(kSteps % kAhead == 0);

 public:
  __device__ FixedStream(const Pieces& weights, int first, int groups)
      : weights_(weights), left_(groups) {
    const int last = min((kSteps - 1) * kWarp + lane_id(), kPieces - 1);
    const auto row = static_cast<std::size_t>(first);
    from_ = weights.data + row * kRowBytes + lane_id() * 16;
    last_from_ = weights.data + row * kRowBytes + last * 16;
    scales_from_ = weights.scales + row * kRowScales + Pieces::scale_offset(lane_id());
    last_scales_from_ = weights.scales + row * kRowScales + Pieces::scale_offset(last);
  }

  __device__ void start_reading() {
#pragma unroll
    for (int step = 0; step < kAhead; ++step) load(step);
  }

  template <int kColumns, class Done>
  __device__ void multiply(const std::byte* planes, const int (&columns)[kColumns], int groups,
                           Done&& done) {
#pragma unroll 1
    for (int group = 0; group < groups; ++group) {
      float sums[kRows * kColumns] = {};
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        add_step(weights_, ahead_[step % kAhead], scales_[step % kAhead], planes, padded_k(kK),
                 columns, step, sums);
        load((step + kAhead) % kSteps);
      }
      done(group, sum_over_lanes(sums) * Pieces::kUnit);
    }
  }

 private:
  __device__ void load(int step) {
    const bool last = step == kSteps - 1;
    const int slot = step % kAhead;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      read_once(ahead_[slot][r],
                (last ? last_from_ : from_ + step * kWarp * 16) + r * kRowStep * kRowBytes,
                left_ > 0);
      read_scale<typename Pieces::Scale>(
          scales_[slot][r],
          (last ? last_scales_from_ : scales_from_ + Pieces::scale_offset(step * kWarp)) +
              r * kRowStep * kRowScales,
          left_ > 0);
    }
    if (!last) return;
    --left_;
    from_ += kRows * kRowBytes;
    last_from_ += kRows * kRowBytes;
    scales_from_ += kRows * kRowScales;
    last_scales_from_ += kRows * kRowScales;
  }

  const Pieces weights_;
  int left_;  // groups that are not read
  const std::byte *from_, *last_from_, *scales_from_, *last_scales_from_;  // the next group's
  uint4 ahead_[kAhead][kRows];
  std::uint32_t scales_[kAhead][kRows];
};

// Calls `fn` with how many columns, at most kTileTokens, are to be multiplied at once.
template <class Fn>
__device__ void with_columns(int columns, Fn&& fn) {
  if (columns <= 1) fn(std::integral_constant<int, 1>{});
  else if (columns <= 2) fn(std::integral_constant<int, 2>{});
  else if (columns <= 4) fn(std::integral_constant<int, 4>{});
  else fn(std::integral_constant<int, 8>{});
}

// Scale, integers and their sum of a block of inputs, the lane's of kLanes neighbours that hold it.
// What is not a number stays so through the scale.
template <int kCount, int kLanes>
__device__ PlaneScale to_planes(const float (&values)[kCount], int (&integers)[kCount]) {
  std::uint32_t most = 0;
#pragma unroll
  for (const float value : values) most = max(most, __float_as_uint(value) & 0x7fffffffU);
#pragma unroll
  for (int distance = 1; distance < kLanes; distance *= 2)
    most = max(most, from_lane_xor(most, distance));
  const float scale = __uint_as_float(most) * (1.0F / kMostPlaneValue);
  const float inverse = scale > 0x1p-120F ? 1.0F / scale : 0.0F;
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    integers[i] = __float2int_rn(values[i] * inverse);
    sum += integers[i];
  }
#pragma unroll
  for (int distance = 1; distance < kLanes; distance *= 2) sum += from_lane_xor(sum, distance);
  return {scale, -12 * sum};
}
__device__ inline int high_plane(int integer) { return (integer + 64) >> 7; }
__device__ inline int low_plane(int integer) { return integer - 128 * high_plane(integer); }
__device__ inline std::uint32_t four_bytes(int a, int b, int c, int d) {
  return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

// The planes of the K values whose eights `values(at, out)` gives, by the warps [first, first +
// count) of a block. What is behind K is left as it is.
template <class Values>
__device__ void write_planes(std::byte* planes, int k, int first, int count, Values&& values) {
  constexpr int kEight = 8;
  const int padded = padded_k(k);
  for (int base = (warp_id() - first) * kWarp; base * kEight < k; base += count * kWarp) {
    const int at = (base + lane_id()) * kEight;
    float eight[kEight] = {};
    if (at < k) values(at, eight);
    int integers[kEight];
    const PlaneScale scale = to_planes<kEight, kPlaneBlock / kEight>(eight, integers);
    if (at >= k) continue;
    int high[kEight];
    int low[kEight];
#pragma unroll
    for (int i = 0; i < kEight; ++i) {
      high[i] = high_plane(integers[i]);
      low[i] = low_plane(integers[i]);
    }
    std::byte* chunk = planes + plane_chunk(at / 16) + at % 16;
    *reinterpret_cast<uint2*>(chunk) = {four_bytes(high[0], high[1], high[2], high[3]),
                                        four_bytes(high[4], high[5], high[6], high[7])};
    *reinterpret_cast<uint2*>(chunk + padded) = {four_bytes(low[0], low[1], low[2], low[3]),
                                                 four_bytes(low[4], low[5], low[6], low[7])};
    if (at % kPlaneBlock == 0)
      reinterpret_cast<PlaneScale*>(planes + 2 * padded)[at / kPlaneBlock] = scale;
  }
}

// Zeros behind K, by a block of kWarps.
template <int kWarps>
__device__ void pad_planes(std::byte* planes, int k) {
  const int padded = padded_k(k);
#pragma unroll 1
  for (int at = k + static_cast<int>(threadIdx.x) * 16; at < padded; at += kWarps * kWarp * 16) {
    for (int plane = 0; plane < 2; ++plane)
      *reinterpret_cast<uint4*>(planes + plane * padded + plane_chunk(at / 16)) = uint4{};
    if (at % kPlaneBlock == 0)
      reinterpret_cast<PlaneScale*>(planes + 2 * padded)[at / kPlaneBlock] = {};
  }
}

// Fills the planes of a block's columns: column c is the K values whose eights `values(c, at, out)`
// gives.
template <int kWarps, class Values>
__device__ void stage_planes(std::byte* planes, int columns, int k, Values&& values) {
  for (int c = 0; c < columns; ++c) {
    std::byte* const to = planes + c * plane_bytes(k);
    write_planes(to, k, 0, kWarps, [&](int at, float(&out)[8]) { values(c, at, out); });
    pad_planes<kWarps>(to, k);
  }
}

// The same of rows that are normed on the way: column c is (x + deltas) * weight of row index(c);
// its factor 1 / sqrt(mean square + eps), which the results are to be multiplied by, goes to
// factors[c]. Ends with a barrier.
template <int kWarps, class Index>
__device__ void stage_normed_planes(std::byte* planes, float* factors, int columns,
                                    const NormArgs& norm, Index&& index) {
  __shared__ float scratch[kWarps];
  for (int c = 0; c < columns; ++c) {
    const std::size_t first = static_cast<std::size_t>(max(index(c), 0)) * norm.hidden;
    float squares = 0.0F;
    stage_planes<kWarps>(planes + c * plane_bytes(norm.hidden), 1, norm.hidden,
                         [&](int, int at, float(&values)[8]) {
                           float weight[8];
                           load_with_deltas(norm, first + at, values);
                           load8(norm.weight + at, weight);
#pragma unroll
                           for (int i = 0; i < 8; ++i) {
                             squares = fmaf(values[i], values[i], squares);
                             values[i] *= weight[i];
                           }
                         });
    const float mean = block_sum<kWarps>(squares, scratch) / static_cast<float>(norm.hidden);
    if (threadIdx.x == 0) factors[c] = 1.0F / sqrtf(mean + norm.eps);
    __syncthreads();
  }
}

// Where the columns of a block's planes begin; what is behind `columns` repeats the last one.
template <int kColumns>
__device__ void place_columns(int (&places)[kColumns], int columns, int k) {
#pragma unroll
  for (int c = 0; c < kColumns; ++c) places[c] = min(c, columns - 1) * plane_bytes(k);
}

}  // namespace strata::kernels::cuda
