#include "base/sha256.h"

#include <gtest/gtest.h>

#include <string>

namespace strata {
namespace {

std::string hex(const Sha256Digest& digest) {
  static const char* digits = "0123456789abcdef";
  std::string out;
  for (const std::uint8_t byte : digest) {
    out += digits[byte >> 4];
    out += digits[byte & 15];
  }
  return out;
}

std::string hash(const std::string& text) {
  return hex(sha256(std::as_bytes(std::span(text.data(), text.size()))));
}

// Vectors of FIPS 180-4's examples, and the million a's.
TEST(Sha256, KnownVectors) {
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hash(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, AnySplitGivesTheSameDigest) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += static_cast<char>(i * 37);
  for (std::size_t size = 0; size <= text.size(); ++size) {
    const std::string part = text.substr(0, size);
    const std::string whole = hash(part);
    const std::size_t cut = size / 3;
    Sha256 pieces;
    pieces.update(std::as_bytes(std::span(part.data(), cut)));
    pieces.update(std::as_bytes(std::span(part.data() + cut, size - cut)));
    EXPECT_EQ(hex(pieces.finish()), whole) << size;
  }
}

}  // namespace
}  // namespace strata
