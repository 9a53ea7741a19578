// SHA-256 (FIPS 180-4), for cache keys that must not collide by intent. Portable, no allocation.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace strata {

using Sha256Digest = std::array<std::uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  void update(std::span<const std::byte> data);
  Sha256Digest finish();  // the object is used up

 private:
  void compress(const std::uint8_t* block);

  std::array<std::uint32_t, 8> state_;
  std::array<std::uint8_t, 64> buffer_{};
  std::size_t buffered_ = 0;  // bytes in buffer_
  std::uint64_t total_bytes_ = 0;
};

Sha256Digest sha256(std::span<const std::byte> data);

}  // namespace strata
