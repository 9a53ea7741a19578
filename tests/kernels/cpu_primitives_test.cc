// The CPU backend's inner loops: every instruction set, row count and tile gives the bits of the
// plain scalar loop, and the right numbers.
#include "kernels/cpu/primitives.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/bf16.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/result.h"
#include "kernels/cpu/cpu_backend.h"

namespace strata::kernels::cpu {
namespace {

struct Path {
  std::string name;
  const Primitives* primitives;
};

// The scalar path first, then what this processor can run.
std::vector<Path> paths() {
  std::vector<Path> all;
  for (const CpuIsa isa : supported_isas())
    all.push_back({std::string(isa_name(isa)), &primitives_of(isa)});
  return all;
}

float uniform(std::uint64_t key, std::uint64_t counter) {
  return static_cast<float>(uniform_double(random_at(key, counter)) * 2.0 - 1.0);
}

std::vector<float> random_floats(std::uint64_t key, std::size_t count, float scale = 1.0F) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = scale * uniform(key, i);
  return values;
}

std::vector<std::byte> random_bf16(std::uint64_t key, std::size_t count) {
  std::vector<std::byte> bytes(count * 2);
  for (std::size_t i = 0; i < count; ++i) {
    const Bf16 value = to_bf16(uniform(key, i));
    std::memcpy(&bytes[i * 2], &value, 2);
  }
  return bytes;
}

std::vector<float> in_paired_order(const std::vector<float>& x) {
  std::vector<float> paired(x.size());
  for (std::size_t i = 0; i < x.size(); ++i)
    paired[static_cast<std::size_t>(paired_index(static_cast<int>(i)))] = x[i];
  return paired;
}

enum class Format { kBf16, kMxfp4, kI8 };

// Weights [rows, k] of a format, with their exact values.
struct Weights {
  Format format;
  std::vector<std::byte> data;
  std::vector<std::byte> scales;
  std::vector<double> values;
};

Weights random_bf16_weights(std::size_t count) {
  Weights weights{Format::kBf16, random_bf16(7, count), {}, std::vector<double>(count)};
  for (std::size_t i = 0; i < count; ++i) {
    Bf16 value;
    std::memcpy(&value, &weights.data[i * 2], 2);
    weights.values[i] = static_cast<double>(to_float(value));
  }
  return weights;
}

// Tiles of 16 rows, the last one filled up with rows of scale 0 and any bytes.
Weights random_i8_weights(int rows, int k) {
  const int tiles = (rows + kTileRows - 1) / kTileRows, blocks = k / kBlock;
  const auto all_blocks = static_cast<std::size_t>(tiles * blocks);
  Weights weights{Format::kI8, std::vector<std::byte>(all_blocks * kTileBlockBytes),
                  random_bf16(8, all_blocks * kTileRows),
                  std::vector<double>(static_cast<std::size_t>(rows * k))};
  for (std::size_t i = 0; i < weights.data.size(); ++i)
    weights.data[i] = static_cast<std::byte>(1 + random_at(9, i) % 255);
  for (int row = 0; row < tiles * kTileRows; ++row) {
    for (int i = 0; i < k; ++i) {
      const auto block = static_cast<std::size_t>(row / kTileRows * blocks + i / kBlock);
      const std::size_t at = (block * kTileRows + static_cast<std::size_t>(row % kTileRows)) * 2;
      Bf16 scale;
      std::memcpy(&scale, &weights.scales[at], 2);
      if (row >= rows) std::memset(&weights.scales[at], 0, 2);
      const std::byte byte =
          weights.data[block * kTileBlockBytes +
                       static_cast<std::size_t>(i8_index(row % kTileRows, i % kBlock))];
      if (row < rows)
        weights.values[static_cast<std::size_t>(row * k + i)] =
            static_cast<double>(to_float(scale)) * (static_cast<int>(byte) - 128);
    }
  }
  return weights;
}

Weights random_weights(Format format, int rows, int k) {
  constexpr double kFp4[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  const auto count = static_cast<std::size_t>(rows) * static_cast<std::size_t>(k);
  if (format == Format::kBf16) return random_bf16_weights(count);
  if (format == Format::kI8) return random_i8_weights(rows, k);
  Weights weights{format, {}, {}, std::vector<double>(count)};
  weights.data.resize(count / 2);
  weights.scales.resize(count / kBlock);
  for (std::size_t i = 0; i < weights.scales.size(); ++i)
    weights.scales[i] = static_cast<std::byte>(118 + random_at(8, i) % 10);
  for (std::size_t i = 0; i < weights.data.size(); ++i)
    weights.data[i] = static_cast<std::byte>(random_at(9, i) & 0xff);
  for (std::size_t i = 0; i < count; ++i) {
    const auto byte = static_cast<unsigned>(weights.data[i / 2]);
    const unsigned code = i % 2 == 0 ? byte & 15U : byte >> 4;
    const double magnitude = kFp4[code & 7U];
    weights.values[i] = std::ldexp((code & 8U) != 0 ? -magnitude : magnitude,
                                   std::to_integer<int>(weights.scales[i / kBlock]) - 127);
  }
  return weights;
}

struct Shape {
  int count;
  int k;
  int num_x;
};

// Rows of x in paired order, quantised.
struct Quads {
  std::vector<ActivationQuad> data;
  std::vector<const ActivationQuad*> rows;
};

Quads quantised(const Primitives& primitives, const std::vector<float>& x, const Shape& shape,
                Planes planes) {
  const auto quads = static_cast<std::size_t>(quads_of(shape.k));
  Quads out{std::vector<ActivationQuad>(quads * static_cast<std::size_t>(shape.num_x)), {}};
  for (int i = 0; i < shape.num_x; ++i) {
    ActivationQuad* row = &out.data[quads * static_cast<std::size_t>(i)];
    primitives.quantise({x.data() + std::ptrdiff_t{i} * shape.k, shape.k, 0, row, planes});
    out.rows.push_back(row);
  }
  return out;
}

std::vector<float> multiply(const Primitives& primitives, const Weights& weights,
                            const std::vector<float>& x, const Shape& shape,
                            Planes planes = Planes::kTwo) {
  HostBuffer scratch("test", kProductScratch);
  std::vector<const float*> rows;
  for (int i = 0; i < shape.num_x; ++i) rows.push_back(x.data() + std::ptrdiff_t{i} * shape.k);
  std::vector<float> y(static_cast<std::size_t>(shape.num_x * shape.count),
                       std::numeric_limits<float>::quiet_NaN());
  if (weights.format == Format::kBf16) {
    primitives.product_bf16({.weights = weights.data.data(),
                             .k = shape.k,
                             .count = shape.count,
                             .x = rows.data(),
                             .num_x = shape.num_x,
                             .y = y.data(),
                             .y_stride = shape.count,
                             .scratch = scratch.data()});
    return y;
  }
  const Quads quads = quantised(primitives, x, shape, planes);
  const IntegerProduct product{.weights = weights.data.data(),
                               .scales = weights.scales.data(),
                               .k = shape.k,
                               .count = shape.count,
                               .x = quads.rows.data(),
                               .num_x = shape.num_x,
                               .planes = planes,
                               .y = y.data(),
                               .y_stride = shape.count,
                               .scratch = scratch.data()};
  if (weights.format == Format::kMxfp4) primitives.product_mxfp4(product);
  else primitives.product_i8(product);
  return y;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

struct ProductCase {
  const char* name;
  Format format;
  Planes planes;
};
void PrintTo(const ProductCase& product, std::ostream* out) { *out << product.name; }

class CpuProducts : public ::testing::TestWithParam<ProductCase> {};

TEST_P(CpuProducts, EveryPathAndRowCountGivesTheSameBits) {
  constexpr Shape kShapes[] = {{1, 32, 1},    {5, 96, 2},     {16, 160, 3},   {64, 192, 4},
                               {7, 544, 5},   {13, 2880, 6},  {3, 416, 7},    {18, 1056, 8},
                               {5, 96, 9},    {21, 800, 11},  {64, 96, 13},   {67, 160, 14},
                               {130, 64, 20}, {17, 1024, 33}, {19, 416, 125}, {9, 96, 300}};
  const auto& [name, format, planes] = GetParam();
  for (Shape shape : kShapes) {
    // Slabs have a multiple of 32 rows; int8 tiles and bf16 any number.
    if (format == Format::kMxfp4) shape.count = (shape.count + 15) / 16 * 16;
    const Weights weights = random_weights(format, shape.count, shape.k);
    const std::vector<float> x = random_floats(3, static_cast<std::size_t>(shape.num_x * shape.k));
    const std::vector<float> expected = multiply(scalar_primitives(), weights, x, shape, planes);
    for (const Path& path : paths())
      EXPECT_TRUE(same_bits(multiply(*path.primitives, weights, x, shape, planes), expected))
          << path.name << " " << shape.count << "x" << shape.k << " rows " << shape.num_x;
    // One row alone gives what it gives among others.
    const std::vector<float> last(x.end() - shape.k, x.end());
    const std::vector<float> alone =
        multiply(*paths().back().primitives, weights, last, {shape.count, shape.k, 1}, planes);
    EXPECT_TRUE(same_bits(alone, {expected.end() - shape.count, expected.end()})) << shape.num_x;
  }
}

// What activations lose: half a step of their block's scale, times every weight.
double quantisation_error(const std::vector<float>& x, std::size_t first, Planes planes,
                          const double* weights, std::size_t k) {
  const double steps = planes == Planes::kTwo ? 32639.0 : 127.0;
  double error = 0.0;
  for (std::size_t block = 0; block < k; block += kBlock) {
    double largest = 0.0, sum = 0.0;
    for (std::size_t i = block; i < block + kBlock; ++i) {
      largest = std::max(largest, std::fabs(static_cast<double>(x[first + i])));
      sum += std::fabs(weights[i]);
    }
    error += 0.5 * largest / steps * sum;
  }
  return error;
}

TEST_P(CpuProducts, AreDotProducts) {
  const Shape shape{48, 2880, 12};
  const auto& [name, format, planes] = GetParam();
  const Weights weights = random_weights(format, shape.count, shape.k);
  const std::vector<float> natural =
      random_floats(4, static_cast<std::size_t>(shape.num_x * shape.k));
  const std::vector<float> y =
      multiply(*paths().back().primitives, weights, in_paired_order(natural), shape, planes);
  const auto k = static_cast<std::size_t>(shape.k), count = static_cast<std::size_t>(shape.count);
  double worst = 0.0, worst_share = 0.0;
  for (std::size_t r = 0; r < 12; ++r) {
    for (std::size_t o = 0; o < count; ++o) {
      double exact = 0.0, norm = 0.0;
      for (std::size_t i = 0; i < k; ++i) {
        const double term = weights.values[o * k + i] * static_cast<double>(natural[r * k + i]);
        exact += term;
        norm += std::fabs(term);
      }
      // 2 * 90 additions a lane and a tree of four: rounding grows like the square root.
      double tolerance = norm * 14 * 0x1p-24;
      if (format != Format::kBf16)
        tolerance += quantisation_error(natural, r * k, planes, &weights.values[o * k], k);
      const double error = std::fabs(static_cast<double>(y[r * count + o]) - exact);
      EXPECT_LE(error, tolerance);
      worst = std::max(worst, error / norm);
      worst_share = std::max(worst_share, error / tolerance);
    }
  }
  std::printf("%s: error at most %.2g of the sum of magnitudes, %.0f %% of its bound\n", name,
              worst, 100.0 * worst_share);
}

INSTANTIATE_TEST_SUITE_P(Formats, CpuProducts,
                         ::testing::Values(ProductCase{"Bf16", Format::kBf16, Planes::kTwo},
                                           ProductCase{"Mxfp4", Format::kMxfp4, Planes::kTwo},
                                           ProductCase{"Mxfp4OnePlane", Format::kMxfp4,
                                                       Planes::kOne},
                                           ProductCase{"Int8", Format::kI8, Planes::kTwo},
                                           ProductCase{"Int8OnePlane", Format::kI8, Planes::kOne}),
                         [](const auto& product) { return product.param.name; });

TEST(CpuPrimitives, SmallestScalesAreSubnormalNotZero) {
  Weights weights = random_weights(Format::kMxfp4, 16, 32);
  std::fill(weights.data.begin(), weights.data.end(), std::byte{0x22});  // 1.0 everywhere
  // 32639 * 2^6: the activation's scale is exact.
  const std::vector<float> x(32 * 9, 32639.0F * 64.0F);
  for (const int exponent : {0, 1, 2}) {
    std::fill(weights.scales.begin(), weights.scales.end(), static_cast<std::byte>(exponent));
    for (const Path& path : paths())
      for (const int num_x : {1, 9})
        EXPECT_EQ(multiply(*path.primitives, weights, x, {16, 32, num_x})[0],
                  std::ldexp(32639.0F * 64.0F * 32.0F, exponent - 127))
            << path.name << " " << exponent;
  }
}

TEST(CpuPrimitives, QuantisedExtremesAndBlocksOfNothing) {
  const Weights weights = random_weights(Format::kMxfp4, 16, 64);
  const float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> x = random_floats(21, 64);
  for (const Planes planes : {Planes::kOne, Planes::kTwo}) {
    for (const Path& path : paths()) {
      std::vector<float> zero(64, 0.0F);
      EXPECT_EQ(multiply(*path.primitives, weights, zero, {16, 64, 1}, planes),
                std::vector<float>(16, 0.0F));
      zero[3] = 1e-38F;  // too small for a scale: counts as nothing
      EXPECT_EQ(multiply(*path.primitives, weights, zero, {16, 64, 1}, planes),
                std::vector<float>(16, 0.0F));
      for (const float bad : {kInfinity, -kInfinity, std::nanf("")}) {
        std::vector<float> poisoned = x;
        poisoned[40] = bad;
        for (const float y : multiply(*path.primitives, weights, poisoned, {16, 64, 1}, planes))
          EXPECT_TRUE(std::isnan(y)) << path.name;
      }
    }
  }
}

TEST(CpuPrimitives, NormAddsDeltasInOrderAndWritesPairedOrder) {
  constexpr int kN = 160;
  const std::vector<float> x = random_floats(1, kN), a = random_floats(2, kN),
                           b = random_floats(3, kN), weight = random_floats(4, kN);
  double squares = 0.0;
  std::vector<float> sum(kN);
  for (std::size_t i = 0; i < kN; ++i) {
    sum[i] = x[i] + a[i] + b[i];
    squares += static_cast<double>(sum[i]) * static_cast<double>(sum[i]);
  }
  const double factor = 1.0 / std::sqrt(squares / kN + 1e-5);
  std::vector<float> first;
  for (const Path& path : paths()) {
    std::vector<float> x_out(kN), out(kN);
    path.primitives->norm({.x = x.data(),
                           .delta_a = a.data(),
                           .delta_b = b.data(),
                           .x_out = x_out.data(),
                           .weight = weight.data(),
                           .eps = 1e-5F,
                           .n = kN,
                           .out = out.data()});
    EXPECT_TRUE(same_bits(x_out, sum)) << path.name;
    if (first.empty()) first = out;
    EXPECT_TRUE(same_bits(out, first)) << path.name;
    for (std::size_t i = 0; i < kN; ++i)
      EXPECT_NEAR(out[static_cast<std::size_t>(paired_index(static_cast<int>(i)))],
                  static_cast<double>(sum[i]) * factor * static_cast<double>(weight[i]), 1e-6);
  }
}

TEST(CpuPrimitives, SwigluClampsAndSurvivesExtremes) {
  constexpr int kCount = 64;
  std::vector<float> gate_up = random_floats(5, 2 * kCount, 20.0F);
  gate_up[0] = -1e6F;  // gate far below: 0, not NaN
  gate_up[2] = 1e6F;   // gate clamped to the limit
  gate_up[5] = -1e6F;  // up clamped to minus the limit
  const std::vector<std::byte> bias = random_bf16(6, 2 * kCount);
  std::vector<float> first;
  for (const Path& path : paths()) {
    std::vector<float> out(kCount);
    path.primitives->swiglu({gate_up.data(), bias.data(), kCount, 7.0F, 1.702F, out.data()});
    if (first.empty()) first = out;
    EXPECT_TRUE(same_bits(out, first)) << path.name;
    for (std::size_t i = 0; i < kCount; ++i) {
      Bf16 gate_bias, up_bias;
      std::memcpy(&gate_bias, &bias[i * 4], 2);
      std::memcpy(&up_bias, &bias[i * 4 + 2], 2);
      const double gate = std::min(static_cast<double>(gate_up[2 * i] + to_float(gate_bias)), 7.0);
      const double up =
          std::clamp(static_cast<double>(gate_up[2 * i + 1] + to_float(up_bias)), -7.0, 7.0);
      const double expected = gate / (1.0 + std::exp(-1.702 * gate)) * (up + 1.0);
      EXPECT_NEAR(out[static_cast<std::size_t>(paired_index(static_cast<int>(i)))], expected,
                  1e-6 + std::fabs(expected) * 1e-5);
    }
  }
}

// KV of one head in pages of 16 tokens, scattered.
struct Cache {
  int head_dim;
  std::vector<float> data;         // [pages][key, value][16][head_dim]
  std::vector<std::byte> rounded;  // the same in bf16
  std::vector<const std::byte*> pages, rounded_pages;

  Cache(int dim, int num_pages) : head_dim(dim) {
    const std::size_t page = static_cast<std::size_t>(2 * 16 * dim);
    rounded = random_bf16(11, page * static_cast<std::size_t>(num_pages));
    data.resize(rounded.size() / 2);
    for (std::size_t i = 0; i < data.size(); ++i) {
      Bf16 value;
      std::memcpy(&value, &rounded[i * 2], 2);
      data[i] = to_float(value);
    }
    for (int i = 0; i < num_pages; ++i) {
      const std::size_t at = page * static_cast<std::size_t>(num_pages - 1 - i);
      pages.push_back(reinterpret_cast<const std::byte*>(data.data() + at));
      rounded_pages.push_back(rounded.data() + at * 2);
    }
  }
  const float* key(int token) const {
    return reinterpret_cast<const float*>(pages[static_cast<std::size_t>(token / 16)]) +
           token % 16 * head_dim;
  }
  const float* value(int token) const { return key(token) + 16 * head_dim; }
};

std::vector<float> attend(const Primitives& primitives, const Cache& cache, AttendRow row,
                          bool bf16) {
  std::vector<float> out(static_cast<std::size_t>(row.heads * row.head_dim));
  std::vector<float> scratch(attend_scratch(row.heads));
  row.first_page = row.first_key / 16;
  row.pages = (bf16 ? cache.rounded_pages : cache.pages).data() + row.first_page;
  row.page_tokens = 16;
  row.value_offset = std::ptrdiff_t{16} * row.head_dim * (bf16 ? 2 : 4);
  row.out = out.data();
  row.scratch = scratch.data();
  if (bf16) primitives.attend_bf16(row);
  else primitives.attend_f32(row);
  return out;
}

double exact_attention(const Cache& cache, const AttendRow& row, int head, int d) {
  std::vector<double> scores;
  double best = static_cast<double>(row.sinks[head]);
  for (int token = row.first_key; token < row.end_key; ++token) {
    double dot = 0.0;
    for (int i = 0; i < row.head_dim; ++i)
      dot += static_cast<double>(row.q[head * row.head_dim + i]) *
             static_cast<double>(cache.key(token)[i]);
    scores.push_back(dot * static_cast<double>(row.scale));
    best = std::max(best, scores.back());
  }
  double total = std::exp(static_cast<double>(row.sinks[head]) - best), mix = 0.0;
  for (int token = row.first_key; token < row.end_key; ++token) {
    const double weight = std::exp(scores[static_cast<std::size_t>(token - row.first_key)] - best);
    total += weight;
    mix += weight * static_cast<double>(cache.value(token)[d]);
  }
  return mix / total;
}

TEST(CpuPrimitives, AttentionOfEverySplitEdge) {
  const int edges[][2] = {{0, 1},     {0, 3},     {0, 16},    {0, 255},   {0, 256},  {0, 257},
                          {130, 258}, {250, 256}, {256, 300}, {129, 513}, {511, 700}};
  for (const int head_dim : {32, 64, 128}) {
    const Cache cache(head_dim, 45);
    for (const int heads : {1, 3, 8}) {
      const std::vector<float> q =
          random_floats(12, static_cast<std::size_t>(heads * head_dim), 2.0F);
      const std::vector<float> sinks = random_floats(13, static_cast<std::size_t>(heads), 3.0F);
      for (const auto& [first, end] : edges) {
        const AttendRow row{.q = q.data(),
                            .heads = heads,
                            .head_dim = head_dim,
                            .first_key = first,
                            .end_key = end,
                            .sinks = sinks.data(),
                            .scale = 1.0F / std::sqrt(static_cast<float>(head_dim))};
        const std::vector<float> expected = attend(scalar_primitives(), cache, row, false);
        for (const Path& path : paths())
          for (const bool bf16 : {false, true})
            EXPECT_TRUE(same_bits(attend(*path.primitives, cache, row, bf16), expected))
                << path.name << " " << first << ".." << end << " dim " << head_dim << " heads "
                << heads << " bf16 " << bf16;
        for (const int d : {0, 1, head_dim - 1})
          EXPECT_NEAR(expected[static_cast<std::size_t>(paired_index((heads - 1) * head_dim + d))],
                      exact_attention(cache, row, heads - 1, d), 2e-6);
      }
    }
  }
}

TEST(CpuIsa, NamesParseAndUnknownOnesAreRefused) {
  const std::vector<CpuIsa> supported = supported_isas();
  for (const CpuIsa isa :
       {CpuIsa::kScalar, CpuIsa::kAvx2, CpuIsa::kAvxVnni, CpuIsa::kAvx512, CpuIsa::kAvx512Vnni}) {
    if (std::find(supported.begin(), supported.end(), isa) == supported.end())
      EXPECT_THROW(parse_isa(isa_name(isa)), StartupError);
    else EXPECT_EQ(parse_isa(isa_name(isa)), isa);
  }
  EXPECT_EQ(supported.front(), CpuIsa::kScalar);
  EXPECT_EQ(supported.back(), detect_isa());
  EXPECT_THROW(parse_isa("sse9"), StartupError);
}

}  // namespace
}  // namespace strata::kernels::cpu
