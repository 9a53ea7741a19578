#include "weights/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/safetensors_writer.h"
#include "tests/support/startup_error.h"

namespace strata::weights {
namespace {

using strata::test::raw_safetensors;
using strata::test::SafetensorsWriter;
using strata::test::startup_error_of;
using ::testing::HasSubstr;

std::vector<TensorEntry> parse(std::string_view file) {
  const std::uint64_t length = parse_header_length(file.substr(0, 8), file.size(), "w.safetensors");
  return parse_header(file.substr(8, length), file.size(), "w.safetensors");
}

TEST(Safetensors, EntriesComeByOffsetWithPlacesInTheFile) {
  // Named in another order than stored, as the published files are.
  const std::string header = R"({"b":{"dtype":"U8","shape":[2,2],"data_offsets":[6,10]},)"
                             R"("a":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]},)"
                             R"("__metadata__":{"format":"pt"}})";
  const auto entries = parse(raw_safetensors(header, "0123456789"));
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].name, "a");
  EXPECT_EQ(entries[0].dtype, DType::kBf16);
  EXPECT_EQ(entries[0].shape, (std::vector<std::int64_t>{3}));
  EXPECT_EQ(entries[0].begin, 8 + header.size());
  EXPECT_EQ(entries[0].bytes, 6U);
  EXPECT_EQ(entries[1].name, "b");
  EXPECT_EQ(entries[1].begin, 8 + header.size() + 6);
}

TEST(Safetensors, ReadsPaddingScalarsAndEmptyFiles) {
  EXPECT_EQ(parse(raw_safetensors("{}      ", "")).size(), 0U);
  const auto scalar =
      parse(raw_safetensors(R"({"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", "0123"));
  ASSERT_EQ(scalar.size(), 1U);
  EXPECT_TRUE(scalar[0].shape.empty());
}

TEST(Safetensors, ReadsWhatTheWriterWrites) {
  SafetensorsWriter writer;
  writer.add("x", DType::kF16, {1, 2}, "abcd");
  writer.add("y", DType::kI8, {3}, "efg");
  const auto entries = parse(writer.bytes());
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(writer.bytes().substr(entries[1].begin, entries[1].bytes), "efg");
}

struct Broken {
  const char* header;
  std::size_t payload;
  const char* expected;  // after "w.safetensors: "
};

class BrokenHeader : public ::testing::TestWithParam<Broken> {};

TEST_P(BrokenHeader, NamesFileTensorAndOffset) {
  const Broken& broken = GetParam();
  const std::string file = raw_safetensors(broken.header, std::string(broken.payload, 'p'));
  const std::string message = startup_error_of([&] { parse(file); });
  EXPECT_THAT(message, HasSubstr("w.safetensors: "));
  EXPECT_THAT(message, HasSubstr(broken.expected));
}

#define ENTRY(dtype, shape, offsets) \
  R"({"t":{"dtype":)" dtype R"(,"shape":)" shape R"(,"data_offsets":)" offsets "}}"
constexpr const char* kHole = R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                              R"("b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}})";
constexpr const char* kOverlap = R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                                 R"("b":{"dtype":"U8","shape":[3],"data_offsets":[2,5]}})";
constexpr const char* kAlias = R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                               R"("b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})";
constexpr const char* kTwice = R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                               R"("a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})";

INSTANTIATE_TEST_SUITE_P(
    All, BrokenHeader,
    ::testing::Values(
        Broken{"", 4, "byte 8: the header does not start with '{'"},
        Broken{" {}", 0, "byte 8: the header does not start with '{'"},
        Broken{"[]", 0, "byte 8: the header does not start with '{'"},
        Broken{"{\"t\":", 0, "header (starts at byte 8) is not valid JSON at byte"},
        Broken{"{} x", 0, "header (starts at byte 8) is not valid JSON at byte"},
        Broken{"{\"\xff\":1}", 0, "header (starts at byte 8) is not valid JSON at byte"},
        Broken{R"({"t":[[[[[1]]]]]})", 0, "nested too deeply"},
        Broken{kTwice, 4, R"(duplicate key "a")"},
        Broken{R"({"t":7})", 0, R"(tensor "t" at byte 9: the entry is not an object)"},
        Broken{R"({"t":{"dtype":"U8","shape":[1]}})", 1,
               R"(tensor "t" at byte 9: has no data_off)"},
        Broken{R"({"t":{"dtype":"U8","data_offsets":[0,1]}})", 1, "has no shape"},
        Broken{R"({"t":{"shape":[1],"data_offsets":[0,1]}})", 1, "has no dtype"},
        Broken{R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})", 1,
               R"(tensor "t" at byte 9: unknown key "x")"},
        Broken{ENTRY("8", "[1]", "[0,1]"), 1, R"(tensor "t" at byte 9: dtype is not a string)"},
        Broken{ENTRY(R"("F64")", "[1]", "[0,8]"), 8, "is not supported"},
        Broken{ENTRY(R"("U8")", "4", "[0,4]"), 4, R"(tensor "t" at byte 9: shape is not an array)"},
        Broken{ENTRY(R"("U8")", "[-4]", "[0,4]"), 4, "not a whole number"},
        Broken{ENTRY(R"("U8")", "[4.0]", "[0,4]"), 4, "not a whole number"},
        Broken{ENTRY(R"("U8")", "[true]", "[0,1]"), 1, "not a whole number"},
        Broken{ENTRY(R"("U8")", "[99999999999999999999]", "[0,1]"), 1, "not a whole number"},
        Broken{ENTRY(R"("U8")", "[4,0]", "[0,0]"), 0, R"(tensor "t" at byte 9: a dimension is 0)"},
        Broken{ENTRY(R"("U8")", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1, "has 9 dimensions"},
        Broken{ENTRY(R"("U8")", "[4294967296,4294967296]", "[0,0]"), 0, "overflows 64 bits"},
        Broken{ENTRY(R"("F32")", "[4611686018427387905]", "[0,4]"), 4, "overflows 64 bits"},
        Broken{ENTRY(R"("BF16")", "[4611686018427387904]", "[0,4]"), 4, "overflows 64 bits"},
        Broken{ENTRY(R"("U8")", "[1]", "[0]"), 1, "data_offsets is not a pair of whole numbers"},
        Broken{ENTRY(R"("U8")", "[1]", "[0,1,2]"), 1, "data_offsets is not a pair"},
        Broken{ENTRY(R"("U8")", "[1]", "[-1,0]"), 1, "data_offsets is not a pair"},
        Broken{ENTRY(R"("U8")", "[1]", "[0,1.0]"), 1, "data_offsets is not a pair"},
        Broken{ENTRY(R"("U8")", "[1]", R"("0,1")"), 1, "data_offsets is not a pair"},
        Broken{ENTRY(R"("U8")", "[2]", "[3,1]"), 4, "data_offsets [3, 1] run backwards"},
        Broken{ENTRY(R"("U8")", "[4]", "[0,4]"), 3,
               R"(tensor "t" at byte 61: data_offsets [0, 4] )"},
        Broken{ENTRY(R"("U8")", "[1]", "[18446744073709551614,18446744073709551615]"), 1,
               "end beyond the payload of 1 bytes"},
        Broken{ENTRY(R"("BF16")", "[2]", "[0,2]"), 2,
               R"(tensor "t" at byte 63: data_offsets span 2 bytes, but BF16 [2] takes 4)"},
        Broken{ENTRY(R"("U8")", "[1]", "[0,2]"), 2, "span 2 bytes, but U8 [1] takes 1"},
        Broken{ENTRY(R"("U8")", "[2]", "[1,3]"), 3, R"(tensor "t" at byte 62: 1 bytes before it)"},
        Broken{ENTRY(R"("U8")", "[2]", "[0,2]"), 5,
               R"(tensor "t" at byte 63: 3 bytes after the last tensor belong to no tensor)"},
        Broken{"{}", 3, "byte 10: 3 bytes after the last tensor"},
        Broken{kHole, 5, R"(tensor "b" at byte 116: 1 bytes before it (from byte 115))"},
        Broken{kOverlap, 5,
               R"(tensor "b" at byte 115: overlaps tensor "a", which ends at byte 116)"},
        Broken{kAlias, 2, "overlaps tensor"},
        Broken{R"({"__metadata__":[]})", 0, R"(tensor "__metadata__" at byte 9: is not an object)"},
        Broken{R"({"__metadata__":{"format":1}})", 0, R"(the value of "format" is not a string)"}));

TEST(Safetensors, ChecksTheHeaderLength) {
  const auto message = [](const std::string& prefix, std::uint64_t file_bytes) {
    return startup_error_of([&] { parse_header_length(prefix, file_bytes, "w.safetensors"); });
  };
  EXPECT_THAT(message("", 0), HasSubstr("w.safetensors: byte 0: the file ends inside the 8-byte"));
  EXPECT_THAT(message("1234567", 7), HasSubstr("byte 7: the file ends inside the 8-byte"));
  EXPECT_THAT(message(std::string(8, '\xff'), 1000),
              HasSubstr("byte 0: the header length is 18446744073709551615, more than"));
  EXPECT_THAT(message(strata::test::length_field(100'000'001), 1 << 30),
              HasSubstr("more than the format's limit of 100000000"));
  EXPECT_THAT(message(strata::test::length_field(93), 100),
              HasSubstr("the header length is 93, but the file has only 100 bytes"));
  EXPECT_EQ(parse_header_length(strata::test::length_field(92), 100, "w"), 92U);
}

TEST(Safetensors, LongAndHostileNamesStayReadable) {
  const std::string name(5000, 'n');
  const std::string message = startup_error_of([&] { fail_at("f", name + "\n", 3, "what"); });
  EXPECT_LT(message.size(), 300U);
  EXPECT_THAT(startup_error_of([&] { fail_at("f", "a\n\x1b", 3, "what"); }),
              HasSubstr(R"(tensor "a\n\u001b" at byte 3: what)"));
}

TEST(ShardIndex, ReadsTheWeightMap) {
  const ShardIndex index = parse_index(
      R"({"metadata":{"total_size":12},"weight_map":{"b":"m-1.safetensors","a":"m-0.safetensors"}})",
      "index.json");
  EXPECT_EQ(index.total_size, 12U);
  ASSERT_EQ(index.weight_map.size(), 2U);
  EXPECT_EQ(index.weight_map[0], (std::pair<std::string, std::string>("b", "m-1.safetensors")));
}

TEST(ShardIndex, RefusesWhatIsNotAMapToPlainFileNames) {
  for (const char* value :
       {R"("../m")", R"("/etc/m")", R"("a/b")", R"("")", R"(".m")", "7", "null"}) {
    const std::string text = fmt::format(R"({{"weight_map":{{"t":{}}}}})", value);
    EXPECT_THAT(startup_error_of([&] { parse_index(text, "index.json"); }),
                HasSubstr(R"(index.json: weight_map: tensor "t": )"))
        << value;
  }
  for (const char* text : {"{}", "[]", R"({"weight_map":[]})", R"({"weight_map":null})"})
    EXPECT_THAT(startup_error_of([&] { parse_index(text, "index.json"); }),
                HasSubstr("index.json: has no weight_map object"))
        << text;
  EXPECT_THAT(startup_error_of([] { parse_index(R"({"weight_map":{"t":"a","t":"b"}})", "i"); }),
              HasSubstr("duplicate key \"t\""));
}

}  // namespace
}  // namespace strata::weights
