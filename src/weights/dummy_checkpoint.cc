// Random weights of a known shape, made on demand: no file, no copy, any byte range at any time.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>

#include "base/check.h"
#include "base/log.h"
#include "base/result.h"
#include "weights/checkpoint.h"
#include "weights/dummy_pattern.h"
#include "weights/tensor_map.h"

namespace strata::weights {
namespace {

constexpr std::size_t kWordBytes = sizeof(std::uint64_t);

// The bytes of one dummy tensor; reads of any alignment see the same stream of words.
class DummySource final : public TensorSource {
 public:
  DummySource(const TensorSpec& spec, const ModelConfig& config, std::uint64_t seed)
      : pattern_(spec, config, seed) {}

  void read(std::size_t offset, std::span<std::byte> dst) const override {
    if (const std::size_t skip = offset % kWordBytes; skip != 0) {
      const std::size_t count = std::min(kWordBytes - skip, dst.size());
      copy_part(offset / kWordBytes, skip, dst.first(count));
      offset += count;
      dst = dst.subspan(count);
    }
    const std::size_t whole = dst.size() / kWordBytes * kWordBytes;
    fill_words(offset / kWordBytes, dst.first(whole));
    if (whole < dst.size()) copy_part((offset + whole) / kWordBytes, 0, dst.subspan(whole));
  }

 private:
  void copy_part(std::uint64_t word, std::size_t skip, std::span<std::byte> dst) const {
    std::uint64_t value = 0;
    pattern_.fill(word, {&value, 1});
    std::memcpy(dst.data(), reinterpret_cast<const std::byte*>(&value) + skip, dst.size());
  }

  // `dst` holds whole words but may lie at any address.
  void fill_words(std::uint64_t word, std::span<std::byte> dst) const {
    if (reinterpret_cast<std::uintptr_t>(dst.data()) % alignof(std::uint64_t) == 0) {
      pattern_.fill(word, {reinterpret_cast<std::uint64_t*>(dst.data()), dst.size() / kWordBytes});
      return;
    }
    std::array<std::uint64_t, 512> block;
    while (!dst.empty()) {
      const std::size_t count = std::min(block.size(), dst.size() / kWordBytes);
      pattern_.fill(word, std::span(block).first(count));
      std::memcpy(dst.data(), block.data(), count * kWordBytes);
      word += count;
      dst = dst.subspan(count * kWordBytes);
    }
  }

  DummyPattern pattern_;
};

class DummyCheckpoint final : public Checkpoint {
 public:
  DummyCheckpoint(ModelConfig config, std::uint64_t seed)
      : config_(std::move(config)), seed_(seed) {
    for (const TensorSpec& spec : expected_tensors(config_))
      total_bytes_ += view_of(spec).num_bytes();
  }

  const ModelConfig& config() const override { return config_; }
  std::uint64_t total_bytes() const override { return total_bytes_; }

  void stream(const std::function<void(const TensorView&)>& sink) const override {
    std::uint64_t offset = 0;
    for (const TensorSpec& spec : expected_tensors(config_)) {
      const DummySource source(spec, config_, seed_);
      TensorView view = view_of(spec);
      view.file_offset = offset;
      view.source = &source;
      offset += view.num_bytes();
      sink(view);
    }
  }

 private:
  static TensorView view_of(const TensorSpec& spec) {
    return {spec.name, spec.dtype, spec.shape, "dummy", 0, nullptr};
  }

  ModelConfig config_;
  std::uint64_t seed_;
  std::uint64_t total_bytes_ = 0;
};

[[noreturn]] void fail_spec(std::string_view spec) {
  throw StartupError(fmt::format("load format \"dummy{}\" is not understood", spec),
                     "Write dummy[:20b|120b|tiny][:SEED], for example dummy:20b or dummy:tiny:7.");
}

std::optional<ModelConfig> shape_named(std::string_view name) {
  if (name == "20b") return gpt_oss_20b();
  if (name == "120b") return gpt_oss_120b();
  if (name == "tiny") return strata_tiny();
  return std::nullopt;
}

std::optional<std::uint64_t> parse_seed(std::string_view text) {
  std::uint64_t seed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return seed;
}

}  // namespace

std::unique_ptr<Checkpoint> make_dummy_checkpoint(std::string_view spec,
                                                  const ModelConfig& fallback) {
  std::string_view rest = spec;
  const auto next_part = [&]() -> std::optional<std::string_view> {
    if (rest.empty()) return std::nullopt;
    if (rest.front() != ':') fail_spec(spec);
    const auto end = rest.find(':', 1);
    const std::string_view part = rest.substr(1, end - 1);
    rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end);
    return part;
  };
  ModelConfig config = fallback;
  std::uint64_t seed = 0;
  auto part = next_part();
  if (part) {
    if (auto named = shape_named(*part)) {
      config = std::move(*named);
      part = next_part();
    }
  }
  if (part) {
    const auto parsed = parse_seed(*part);
    if (!parsed || !rest.empty()) fail_spec(spec);
    seed = *parsed;
  }
  if (config.num_layers == 0)
    throw StartupError("load format \"dummy\" needs a shape",
                       "Name one, for example dummy:20b, or a MODEL whose shape to use.");
  if (config.expert_format != ExpertFormat::kMxfp4) {
    log_info("dummy weights: experts are MXFP4, not bf16 as in {}", config.name);
    config.expert_format = ExpertFormat::kMxfp4;
  }
  return std::make_unique<DummyCheckpoint>(std::move(config), seed);
}

}  // namespace strata::weights
