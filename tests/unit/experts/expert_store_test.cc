#include "experts/expert_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <set>

#include "base/fault.h"
#include "base/result.h"
#include "tests/support/random_checkpoint.h"

namespace strata {
namespace {

using strata::test::content_of;
using strata::test::small_config;

// A tensor of content_of(name); may fail from a given byte on.
class StringSource final : public TensorSource {
 public:
  explicit StringSource(std::string content) : content_(std::move(content)) {}
  void read(std::size_t offset, std::span<std::byte> dst) const override {
    ASSERT_LE(offset + dst.size(), content_.size());
    if (offset + dst.size() > fail_from) throw StartupError("broken at expert");
    std::memcpy(dst.data(), content_.data() + offset, dst.size());
  }
  std::size_t fail_from = SIZE_MAX;

 private:
  std::string content_;
};

SlabPiece piece_of(weights::TensorKind kind) {
  switch (kind) {
    case weights::TensorKind::kGateUpBlocks: return SlabPiece::kGateUpBlocks;
    case weights::TensorKind::kGateUpScales: return SlabPiece::kGateUpScales;
    case weights::TensorKind::kGateUpBias: return SlabPiece::kGateUpBias;
    case weights::TensorKind::kDownBlocks: return SlabPiece::kDownBlocks;
    case weights::TensorKind::kDownScales: return SlabPiece::kDownScales;
    case weights::TensorKind::kDownBias: return SlabPiece::kDownBias;
    case weights::TensorKind::kGateUpWeight: return SlabPiece::kGateUpBf16;
    default: return SlabPiece::kDownBf16;
  }
}

bool is_expert_tensor(const weights::TensorSpec& spec) {
  return spec.name.find(".mlp.experts.") != std::string::npos;
}

void adopt_all(ExpertStore& store, const ModelConfig& config) {
  for (const weights::TensorSpec& spec : weights::expected_tensors(config)) {
    if (!is_expert_tensor(spec)) continue;
    const StringSource source(content_of(spec.name, strata::test::byte_count(spec)));
    store.adopt(TensorView{spec.name, spec.dtype, spec.shape, "test", 0, &source}, spec.layer,
                piece_of(spec.kind));
  }
}

// The tensor's slice of one expert.
std::string slice_of_expert(const ModelConfig& config, LayerId layer, const char* name,
                            ExpertId expert, std::size_t bytes) {
  const std::string full = fmt::format("model.layers.{}.mlp.experts.{}", layer, name);
  const std::string content =
      content_of(full, bytes * static_cast<std::size_t>(config.num_experts));
  return content.substr(static_cast<std::size_t>(expert) * bytes, bytes);
}

std::string bytes_at(const std::byte* data, std::size_t count) {
  return {reinterpret_cast<const char*>(data), count};
}

TEST(ExpertStore, EveryPieceLandsWhereTheLayoutSays) {
  const ModelConfig config = small_config();
  for (const int threads : {0, 1, 2, 5}) {
    ThreadPool pool(std::max(threads, 1));
    ExpertStore store(config, threads == 0 ? nullptr : &pool);
    adopt_all(store, config);
    const kernels::SlabLayout& slab = store.layout();
    const auto expect_piece = [&](LayerId layer, ExpertId expert, const char* name,
                                  std::size_t offset, std::size_t bytes) {
      EXPECT_EQ(bytes_at(store.slab(layer, expert) + offset, bytes),
                slice_of_expert(config, layer, name, expert, bytes))
          << name << " layer " << layer << " expert " << expert << " threads " << threads;
    };
    for (LayerId layer = 0; layer < config.num_layers; ++layer)
      for (ExpertId expert = 0; expert < config.num_experts; ++expert) {
        expect_piece(layer, expert, "gate_up_proj_blocks", slab.gate_up_blocks, 2 * 96 * 64 / 2);
        expect_piece(layer, expert, "gate_up_proj_scales", slab.gate_up_scales, 2 * 96 * 64 / 32);
        expect_piece(layer, expert, "gate_up_proj_bias", slab.gate_up_bias, 2 * 96 * 2);
        expect_piece(layer, expert, "down_proj_blocks", slab.down_blocks, 64 * 96 / 2);
        expect_piece(layer, expert, "down_proj_scales", slab.down_scales, 64 * 96 / 32);
        expect_piece(layer, expert, "down_proj_bias", slab.down_bias, 64 * 2);
      }
  }
}

TEST(ExpertStore, SlabsAreAlignedAndDisjoint) {
  const ModelConfig config = small_config();
  const ExpertStore store(config);
  EXPECT_EQ(store.layout().bytes % 4096, 0U);
  std::set<const std::byte*> seen;
  for (LayerId layer = 0; layer < config.num_layers; ++layer)
    for (ExpertId expert = 0; expert < config.num_experts; ++expert) {
      const std::byte* slab = store.slab(layer, expert);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(slab) % 4096, 0U);
      EXPECT_TRUE(seen.insert(slab).second);
      if (expert > 0) {
        EXPECT_EQ(slab, store.slab(layer, expert - 1) + store.layout().bytes);
      }
    }
  EXPECT_EQ(store.total_bytes(), 2U * 3U * store.layout().bytes);
}

// bf16 tensors arrive as [E, K, rows]; slabs hold [rows, K].
TEST(ExpertStore, DequantisedExpertsAreTransposed) {
  ModelConfig config = small_config(ExpertFormat::kBf16);
  ThreadPool pool(2);
  ExpertStore store(config, &pool);
  adopt_all(store, config);
  const auto expect_transposed = [&](LayerId layer, ExpertId expert, const char* name,
                                     std::size_t offset, std::size_t k, std::size_t rows) {
    const std::string source = slice_of_expert(config, layer, name, expert, k * rows * 2);
    const std::string slab = bytes_at(store.slab(layer, expert) + offset, k * rows * 2);
    for (std::size_t row = 0; row < rows; ++row)
      for (std::size_t i = 0; i < k; ++i)
        ASSERT_EQ(slab.substr((row * k + i) * 2, 2), source.substr((i * rows + row) * 2, 2))
            << name << " row " << row << " k " << i;
  };
  for (LayerId layer = 0; layer < config.num_layers; ++layer)
    for (ExpertId expert = 0; expert < config.num_experts; ++expert) {
      expect_transposed(layer, expert, "gate_up_proj", store.layout().gate_up_blocks, 64, 192);
      expect_transposed(layer, expert, "down_proj", store.layout().down_blocks, 96, 64);
      EXPECT_EQ(bytes_at(store.slab(layer, expert) + store.layout().down_bias, 128),
                slice_of_expert(config, layer, "down_proj_bias", expert, 128));
    }
}

TEST(ExpertStore, AReadErrorOfAWorkerReachesTheCaller) {
  const ModelConfig config = small_config();
  ThreadPool pool(3);
  ExpertStore store(config, &pool);
  const weights::TensorSpec spec = [&] {
    for (const auto& candidate : weights::expected_tensors(config))
      if (candidate.kind == weights::TensorKind::kDownBlocks) return candidate;
    return weights::TensorSpec{};
  }();
  StringSource source(content_of(spec.name, strata::test::byte_count(spec)));
  source.fail_from = strata::test::byte_count(spec) / 3;  // experts 1 and 2
  const TensorView view{spec.name, spec.dtype, spec.shape, "test", 0, &source};
  EXPECT_THROW(store.adopt(view, 0, SlabPiece::kDownBlocks), StartupError);
  source.fail_from = SIZE_MAX;
  EXPECT_NO_THROW(store.adopt(view, 0, SlabPiece::kDownBlocks)) << "the pool is still usable";
}

TEST(ExpertStore, AllocationFailureNamesTheSite) {
  ASSERT_TRUE(fault::arm("alloc.weights.experts=oom:2").has_value());
  try {
    const ExpertStore store(small_config());
    ADD_FAILURE() << "the second layer was allocated";
  } catch (const MemoryError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("weights.experts"));
  }
  fault::disarm();
}

TEST(ExpertStoreDeathTest, WrongShapesAndIndicesAreBugs) {
  const ModelConfig config = small_config();
  ExpertStore store(config);
  const StringSource source(std::string(3 * 128, 'x'));
  const TensorView bias{"b", DType::kBf16, {3, 64}, "test", 0, &source};
  EXPECT_DEATH(store.adopt(bias, 0, SlabPiece::kDownBlocks), "check failed");
  EXPECT_DEATH(store.adopt(bias, 2, SlabPiece::kDownBias), "layer 2");
  EXPECT_DEATH(store.adopt(bias, 0, SlabPiece::kDownBf16), "check failed");
  EXPECT_DEATH(store.slab(0, 3), "expert 3");
}

}  // namespace
}  // namespace strata
