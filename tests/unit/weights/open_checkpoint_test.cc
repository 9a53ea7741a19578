#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/fault.h"
#include "tests/support/random_checkpoint.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/startup_error.h"
#include "tests/support/temp_dir.h"
#include "weights/checkpoint.h"

namespace strata::weights {
namespace {

using strata::test::content_of;
using strata::test::deal_tensors;
using strata::test::SafetensorsWriter;
using strata::test::small_config;
using strata::test::startup_error_of;
using strata::test::TempDir;
using strata::test::write_checkpoint;
using strata::test::write_file;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::map<std::string, std::string> read_all(const Checkpoint& checkpoint) {
  std::map<std::string, std::string> tensors;
  checkpoint.stream([&](const TensorView& view) {
    std::string bytes(view.num_bytes(), '\0');
    view.source->read(0, std::as_writable_bytes(std::span(bytes)));
    EXPECT_TRUE(tensors.emplace(view.name, std::move(bytes)).second) << view.name;
  });
  return tensors;
}

class OpenCheckpoint : public ::testing::Test {
 protected:
  void TearDown() override { fault::disarm(); }
  void write(const ModelConfig& config, std::size_t shards) {
    write_checkpoint(dir_.path(), config, deal_tensors(config, shards));
  }
  std::string open_error() {
    return startup_error_of([&] { open_checkpoint(dir_.path()); });
  }
  TempDir dir_;
};

TEST_F(OpenCheckpoint, RoundTripsAnyNumberOfShards) {
  for (const ExpertFormat format : {ExpertFormat::kMxfp4, ExpertFormat::kBf16})
    for (const std::size_t shards : {1, 2, 3, 7}) {
      TempDir dir;
      const ModelConfig config = small_config(format);
      write_checkpoint(dir.path(), config, deal_tensors(config, shards));
      const auto checkpoint = open_checkpoint(dir.path());
      EXPECT_EQ(checkpoint->config().expert_format, format);
      EXPECT_EQ(checkpoint->config().name, dir.path().filename().string());
      const auto tensors = read_all(*checkpoint);
      EXPECT_EQ(tensors.size(), expected_tensors(config).size());
      std::uint64_t total = 0;
      for (const auto& [name, bytes] : tensors) {
        EXPECT_EQ(bytes, content_of(name, bytes.size())) << name;
        total += bytes.size();
      }
      EXPECT_EQ(checkpoint->total_bytes(), total);
    }
}

TEST_F(OpenCheckpoint, StreamsInFileOrder) {
  write(small_config(), 3);
  std::vector<std::pair<std::string, std::uint64_t>> places;
  open_checkpoint(dir_.path())->stream([&](const TensorView& view) {
    places.emplace_back(view.file, view.file_offset);
  });
  EXPECT_TRUE(std::is_sorted(places.begin(), places.end()));
  EXPECT_THAT(places.front().first, HasSubstr("model-00000-of-00002.safetensors"));
}

TEST_F(OpenCheckpoint, SourcesReadAnyRange) {
  write(small_config(), 1);
  open_checkpoint(dir_.path())->stream([&](const TensorView& view) {
    const std::string whole = content_of(view.name, view.num_bytes());
    std::string part(whole.size() / 3, '\0');
    view.source->read(whole.size() / 2, std::as_writable_bytes(std::span(part)));
    EXPECT_EQ(part, whole.substr(whole.size() / 2, part.size())) << view.name;
  });
}

TEST_F(OpenCheckpoint, ShardsNeedNoIndex) {
  write(small_config(), 3);
  std::filesystem::remove(dir_ / "model.safetensors.index.json");
  EXPECT_EQ(read_all(*open_checkpoint(dir_.path())).size(),
            expected_tensors(small_config()).size());
}

TEST_F(OpenCheckpoint, FollowsLinksOfTheHubCache) {
  write(small_config(), 1);
  std::filesystem::rename(dir_ / "model.safetensors", dir_ / "blob");
  std::filesystem::create_symlink(dir_ / "blob", dir_ / "model.safetensors");
  EXPECT_NO_THROW(open_checkpoint(dir_.path()));
  std::filesystem::remove(dir_ / "blob");
  EXPECT_THAT(open_error(), HasSubstr("model.safetensors: cannot open: No such file"));
}

TEST_F(OpenCheckpoint, NamesWhatTheDirectoryLacks) {
  EXPECT_THAT(startup_error_of([&] { open_checkpoint(dir_ / "none"); }),
              HasSubstr("none: is not a directory"));
  EXPECT_THAT(open_error(), HasSubstr("config.json: is missing"));
  write_file(dir_ / "config.json", strata::test::config_json(small_config()));
  EXPECT_THAT(open_error(), HasSubstr("holds no *.safetensors file"));
  std::filesystem::create_directory(dir_ / "model.safetensors");
  EXPECT_THAT(open_error(), HasSubstr("model.safetensors: cannot read as a regular file"));
}

TEST_F(OpenCheckpoint, NamesAMissingShardAndATensorOfIt) {
  write(small_config(), 3);
  std::filesystem::remove(dir_ / "model-00001-of-00002.safetensors");
  EXPECT_THAT(
      open_error(),
      AllOf(HasSubstr("model.safetensors.index.json: tensor \"lm_head.weight\""),
            HasSubstr("its shard"), HasSubstr("model-00001-of-00002"), HasSubstr("is missing")));
  std::filesystem::remove(dir_ / "model.safetensors.index.json");
  EXPECT_THAT(open_error(), AllOf(HasSubstr("tensor \"model."), HasSubstr("missing from all 2")));
}

TEST_F(OpenCheckpoint, NamesTheTensorWhereAShardIsCut) {
  write(small_config(), 2);
  const auto path = dir_ / "model-00001-of-00001.safetensors";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  EXPECT_THAT(open_error(), AllOf(HasSubstr("model-00001-of-00001.safetensors: tensor \""),
                                  HasSubstr("at byte"), HasSubstr("end beyond the payload")));
  std::filesystem::resize_file(path, 20);
  EXPECT_THAT(open_error(), HasSubstr("but the file has only 20 bytes"));
  std::filesystem::resize_file(path, 0);
  EXPECT_THAT(open_error(), HasSubstr("the file ends inside the 8-byte header length"));
}

TEST_F(OpenCheckpoint, NamesATensorStoredTwice) {
  auto shards = deal_tensors(small_config(), 2);
  strata::test::add_tensor(shards[1], expected_tensors(small_config())[0]);
  write_checkpoint(dir_.path(), small_config(), shards);
  EXPECT_THAT(open_error(),
              AllOf(HasSubstr("00001-of-00001.safetensors: tensor \"model.embed_tokens.weight\""),
                    HasSubstr("is also in model-00000-of-00001.safetensors at byte")));
}

TEST_F(OpenCheckpoint, IndexAndShardsMustAgree) {
  const ModelConfig config = small_config();
  const auto shards = deal_tensors(config, 2);
  std::map<std::string, std::string> weight_map;
  for (std::size_t i = 0; i < 2; ++i)
    for (const std::string& name : shards[i].names())
      weight_map[name] = strata::test::shard_name(i, 2);
  write_checkpoint(dir_.path(), config, shards);
  const auto error_with = [&](const std::map<std::string, std::string>& map) {
    write_file(dir_ / "model.safetensors.index.json", strata::test::index_json(map));
    return open_error();
  };
  auto unlisted = weight_map;
  unlisted.erase("lm_head.weight");
  EXPECT_THAT(error_with(unlisted), AllOf(HasSubstr("tensor \"lm_head.weight\" at byte"),
                                          HasSubstr("is not listed in model.safetensors.index")));
  auto absent = weight_map;
  absent["model.ghost"] = strata::test::shard_name(0, 2);
  EXPECT_THAT(error_with(absent),
              HasSubstr("index.json: tensor \"model.ghost\": is not in model-"));
  auto elsewhere = weight_map;
  std::string& place = elsewhere["lm_head.weight"];
  place = strata::test::shard_name(place == strata::test::shard_name(0, 2) ? 1 : 0, 2);
  EXPECT_THAT(error_with(elsewhere),
              AllOf(HasSubstr("tensor \"lm_head.weight\" at byte"),
                    HasSubstr("model.safetensors.index.json says it is in " + place)));
}

// One tensor of an otherwise right checkpoint replaced, dropped or added.
struct Change {
  const char* name;
  const char* without;  // expected tensor to leave out, or ""
  const char* add;      // tensor to add, or ""
  DType dtype;
  std::vector<std::int64_t> shape;
  const char* expected;
};

class ChangedTensor : public OpenCheckpoint, public ::testing::WithParamInterface<Change> {};

TEST_P(ChangedTensor, IsNamedWithFileAndOffset) {
  const Change& change = GetParam();
  SafetensorsWriter shard;
  for (const TensorSpec& spec : expected_tensors(small_config()))
    if (spec.name != change.without) strata::test::add_tensor(shard, spec);
  if (*change.add != '\0') {
    TensorSpec spec{change.add, change.dtype, change.shape, TensorKind::kSinks, 0};
    strata::test::add_tensor(shard, spec);
  }
  write_checkpoint(dir_.path(), small_config(), {shard});
  const std::string message = open_error();
  EXPECT_THAT(message, HasSubstr(dir_.path().string()));
  EXPECT_THAT(message, HasSubstr(change.expected));
  if (*change.add != '\0') {
    EXPECT_THAT(message,
                HasSubstr(fmt::format("model.safetensors: tensor \"{}\" at byte ", change.add)));
  }
}

constexpr const char* kSinks = "model.layers.1.self_attn.sinks";
constexpr const char* kBias = "model.layers.0.mlp.experts.down_proj_bias";
constexpr const char* kBlocks = "model.layers.0.mlp.experts.down_proj_blocks";
INSTANTIATE_TEST_SUITE_P(
    All, ChangedTensor,
    ::testing::Values(
        Change{"missing", kSinks, "", DType::kU8, {}, "tensor \"model.layers.1.self_attn.sinks\""},
        Change{"unknown", "", "model.layers.0.mlp.extra", DType::kU8, {3}, "does not belong to"},
        Change{
            "beyond", "", "model.layers.2.self_attn.sinks", DType::kBf16, {4}, "does not belong"},
        Change{"dtype", kBias, kBias, DType::kF32, {3, 64}, "dtype is F32, expected BF16"},
        Change{"half", kSinks, kSinks, DType::kF16, {4}, "dtype is F16, expected BF16"},
        Change{"signed", kBlocks, kBlocks, DType::kI8, {3, 64, 3, 16}, "dtype is I8, expected U8"},
        Change{
            "shape", kSinks, kSinks, DType::kBf16, {5}, "shape is [5], but config.json gives [4]"},
        Change{"rank", kSinks, kSinks, DType::kBf16, {4, 1}, "shape is [4, 1], but"},
        Change{"experts",
               kBlocks,
               kBlocks,
               DType::kU8,
               {4, 64, 3, 16},
               "shape is [4, 64, 3, 16], but config.json gives [3, 64, 3, 16]"},
        Change{
            "transposed", kBlocks, kBlocks, DType::kU8, {3, 96, 2, 16}, "shape is [3, 96, 2, 16]"},
        Change{"original", "", "block.0.attn.sinks", DType::kBf16, {4}, "does not belong"}),
    [](const auto& change) { return std::string(change.param.name); });

TEST_F(OpenCheckpoint, DenseTensorsMayBeFloat32) {
  SafetensorsWriter shard;
  for (TensorSpec spec : expected_tensors(small_config())) {
    if (spec.kind < TensorKind::kGateUpBlocks) spec.dtype = DType::kF32;
    test::add_tensor(shard, spec);
  }
  write_checkpoint(dir_.path(), small_config(), {shard});
  std::size_t floats = 0;
  open_checkpoint(dir_.path())->stream([&](const TensorView& view) {
    floats += view.dtype == DType::kF32 ? 1 : 0;
  });
  EXPECT_EQ(floats, 3U + 2U * 13U);
}

TEST_F(OpenCheckpoint, SaysWhenExpertFormatAndConfigDisagree) {
  write_checkpoint(dir_.path(), small_config(ExpertFormat::kBf16),
                   deal_tensors(small_config(ExpertFormat::kMxfp4), 1));
  try {
    open_checkpoint(dir_.path());
    FAIL() << "opened";
  } catch (const StartupError& error) {
    EXPECT_THAT(error.what(), HasSubstr("gate_up_proj_blocks\" at byte"));
    EXPECT_THAT(error.hint(), HasSubstr("config.json has no quantization_config"));
  }
}

TEST_F(OpenCheckpoint, ReadErrorsNameThePlace) {
  write(small_config(), 1);
  const auto checkpoint = open_checkpoint(dir_.path());
  const auto read_error = [&](const char* faults) {
    EXPECT_TRUE(fault::arm(faults).has_value());
    return startup_error_of([&] { read_all(*checkpoint); });
  };
  EXPECT_THAT(read_error("weights.read=error:3"),
              AllOf(HasSubstr("model.safetensors: tensor \"model.layers.0.self_attn.sinks\""),
                    HasSubstr("at byte"), HasSubstr("read: Input/output error")));
  EXPECT_THAT(read_error("weights.short_read=error:1"),
              AllOf(HasSubstr("tensor \"model.embed_tokens.weight\" at byte"),
                    HasSubstr("the file ends 5120 bytes too early")));
  fault::disarm();
  EXPECT_NO_THROW(read_all(*checkpoint)) << "a failed stream leaves the checkpoint usable";
}

// Fails the n-th read for n = 1, 2, ... until opening and reading get through.
TEST_F(OpenCheckpoint, EveryReadMayFail) {
  write(small_config(), 2);
  int failures = 0;
  for (int nth = 1;; ++nth) {
    ASSERT_TRUE(fault::arm(fmt::format("weights.read=error:{}", nth)).has_value());
    try {
      read_all(*open_checkpoint(dir_.path()));
      break;
    } catch (const StartupError& error) {
      ++failures;
      EXPECT_THAT(error.what(), HasSubstr("read: Input/output error"));
    }
  }
  // config, index, two reads of each of two headers, one of each tensor
  EXPECT_EQ(failures, 2 + 4 + static_cast<int>(expected_tensors(small_config()).size()));
}

TEST_F(OpenCheckpoint, NoticesAFileThatChangedAfterOpening) {
  write(small_config(), 1);
  const auto checkpoint = open_checkpoint(dir_.path());
  const auto path = dir_ / "model.safetensors";
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 7);
  EXPECT_THAT(startup_error_of([&] { read_all(*checkpoint); }), HasSubstr("the size changed from"));
}

TEST(TensorMap, CountsTheTensorsAndBytesOfThePublishedModels) {
  const auto sum = [](const std::vector<TensorSpec>& specs) {
    std::uint64_t bytes = 0;
    for (const TensorSpec& spec : specs) bytes += strata::test::byte_count(spec);
    return bytes;
  };
  EXPECT_EQ(expected_tensors(gpt_oss_20b()).size(), 459U);
  EXPECT_EQ(sum(expected_tensors(gpt_oss_20b())), 13'761'264'768U);
  EXPECT_EQ(expected_tensors(gpt_oss_120b()).size(), 687U);
  EXPECT_EQ(sum(expected_tensors(gpt_oss_120b())), 65'248'815'744U);
  EXPECT_EQ(sum(expected_tensors(strata_tiny())), 20'052'672U);
}

}  // namespace
}  // namespace strata::weights
