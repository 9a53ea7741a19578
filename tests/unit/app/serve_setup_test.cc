#include "app/serve_setup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "app/exit_code.h"
#include "base/result.h"

namespace strata::app {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

class ServeSetup : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(directory_); }
  void TearDown() override { fs::remove_all(directory_); }
  void write_generation_config(const std::string& text) {
    std::ofstream(directory_ / "generation_config.json") << text;
  }
  serve::ServiceOptions made() { return service_options(options_, "typed/name", directory_); }

  const fs::path directory_ = fs::path(testing::TempDir()) / "serve_setup_test";
  Options options_;
};

TEST_F(ServeSetup, LoopbackAddresses) {
  for (const char* host : {"127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"})
    EXPECT_TRUE(is_loopback(host)) << host;
  for (const char* host : {"0.0.0.0", "::", "192.168.0.7", "example.org", "128.0.0.1", ""})
    EXPECT_FALSE(is_loopback(host)) << host;
}

TEST_F(ServeSetup, AddressesAreUrls) {
  EXPECT_EQ(address_url("127.0.0.1", 8000), "http://127.0.0.1:8000");
  EXPECT_EQ(address_url("::1", 80), "http://[::1]:80");
  EXPECT_EQ(address_url("[::1]", 80), "http://[::1]:80");
}

TEST_F(ServeSetup, ServedNamesReplaceTheTypedOne) {
  EXPECT_THAT(made().model_names, ElementsAre("typed/name"));
  options_.served_model_names = {"a", "b"};
  EXPECT_THAT(made().model_names, ElementsAre("a", "b"));
}

TEST_F(ServeSetup, HostsAreCheckedOnLoopbackWithoutKey) {
  EXPECT_TRUE(made().check_host);
  options_.api_keys = {"k"};
  EXPECT_FALSE(made().check_host);
  options_.api_keys.clear();
  options_.host = "0.0.0.0";
  EXPECT_FALSE(made().check_host);
}

TEST_F(ServeSetup, SamplingDefaultsAreTheModelsUnderTheFlags) {
  write_generation_config(R"({"temperature": 0.6, "top_k": 20, "eos_token_id": [1, 2]})");
  EXPECT_EQ(made().sampling.temperature, 0.6);
  EXPECT_EQ(made().sampling.top_k, 20);
  EXPECT_EQ(made().sampling.top_p, 1.0);
  options_.sampling.temperature = 0.1;
  EXPECT_EQ(made().sampling.temperature, 0.1);
  EXPECT_EQ(made().sampling.top_k, 20);
  options_.model_sampling_defaults = false;
  EXPECT_EQ(made().sampling.top_k, 0);
  EXPECT_EQ(made().sampling.temperature, 0.1);
}

TEST_F(ServeSetup, ABrokenGenerationConfigIsAModelError) {
  write_generation_config("{\"temperature\": ");
  try {
    made();
    FAIL();
  } catch (const StartupError& error) {
    EXPECT_EQ(error.exit_code(), kExitModel);
    EXPECT_THAT(error.what(), testing::HasSubstr("generation_config.json"));
  }
}

TEST_F(ServeSetup, KeysAreFresh) {
  EXPECT_NE(make_api_key(), make_api_key());
  EXPECT_EQ(make_api_key().size(), 3U + 48U);
}

}  // namespace
}  // namespace strata::app
