// Counter-based random numbers: a value is a function of (key, counter), so any slice of a tensor
// and any draw of a sequence can be made anywhere, in any order, on any device.
#pragma once

#include <cstdint>
#include <string_view>

namespace strata {

// Finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64-bit values.
constexpr std::uint64_t mix64(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

// Value number `counter` of the stream `key`.
constexpr std::uint64_t random_at(std::uint64_t key, std::uint64_t counter) {
  return mix64(key + (counter + 1) * 0x9e3779b97f4a7c15ULL);
}

// FNV-1a, to make a key of a name.
constexpr std::uint64_t fnv1a64(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3ULL;
  }
  return hash;
}

// Uniform in [0, 1), 53 bits.
constexpr double uniform_double(std::uint64_t bits) {
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

}  // namespace strata
