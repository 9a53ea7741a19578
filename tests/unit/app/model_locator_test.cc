#include "app/model_locator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "app/exit_code.h"
#include "base/result.h"

namespace strata::app {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class ModelLocator : public testing::Test {
 protected:
  void SetUp() override {
    root_ =
        fs::path(testing::TempDir()) /
        ("locator_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const fs::path& file, const std::string& text) {
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  fs::path make_model(const fs::path& directory) {
    write(directory / "config.json", "{}");
    return directory;
  }
  // A hub cache with org/name at `commit`, as the Hugging Face client leaves it.
  void make_cached(const fs::path& cache, const std::string& commit,
                   const std::string& ref = "main") {
    const fs::path repository = cache / "models--openai--gpt-oss-20b";
    write(repository / "refs" / ref, commit);
    make_model(repository / "snapshots" / commit);
  }
  LocatedModel locate(const std::string& model) {
    return locate_model(model, options_, root_ / "bin");
  }
  StartupError failure(const std::string& model) {
    try {
      locate(model);
    } catch (const StartupError& error) {
      return error;
    }
    ADD_FAILURE() << model << " was found";
    return StartupError("");
  }

  fs::path root_;
  Options options_;
};

TEST_F(ModelLocator, ADirectoryIsTakenAsItIs) {
  const fs::path directory = make_model(root_ / "my model");
  const LocatedModel found = locate(directory.string());
  EXPECT_EQ(found.directory, directory);
  EXPECT_EQ(found.name, directory.string());
}

TEST_F(ModelLocator, ADirectoryWithoutConfigIsAnError) {
  fs::create_directories(root_ / "empty");
  const StartupError error = failure((root_ / "empty").string());
  EXPECT_THAT(error.what(), HasSubstr("holds no config.json"));
  EXPECT_EQ(error.exit_code(), kExitModel);
}

TEST_F(ModelLocator, HubCachesAreSearchedInOrder) {
  options_.environment = {.home = "/h",
                          .hf_hub_cache = "/a",
                          .huggingface_hub_cache = "/b",
                          .hf_home = "/c",
                          .xdg_cache_home = "/d",
                          .api_keys = {},
                          .no_color = false};
  EXPECT_THAT(hub_caches(options_), ElementsAre("/a/", "/b/", "/c/hub", "/d/huggingface/hub",
                                                "/h/.cache/huggingface/hub"));
  options_.environment = {};
  options_.environment.home = "/h";
  options_.download_dir = "/mine";
  EXPECT_THAT(hub_caches(options_), ElementsAre("/mine/", "/h/.cache/huggingface/hub"));
}

TEST_F(ModelLocator, TheFirstCacheThatHoldsTheModelWins) {
  options_.environment.hf_hub_cache = (root_ / "first").string();
  options_.environment.hf_home = (root_ / "second").string();
  make_cached(root_ / "second" / "hub", "bbbb");
  EXPECT_THAT(locate("openai/gpt-oss-20b").directory.string(),
              HasSubstr("second/hub/models--openai--gpt-oss-20b/snapshots/bbbb"));
  make_cached(root_ / "first", "aaaa");
  EXPECT_THAT(locate("openai/gpt-oss-20b").directory.string(), HasSubstr("first/"));
  EXPECT_EQ(locate("openai/gpt-oss-20b").name, "openai/gpt-oss-20b");
}

TEST_F(ModelLocator, RevisionsAreRefsOrCommits) {
  options_.environment.home = root_.string();
  const fs::path cache = root_ / ".cache/huggingface/hub";
  make_cached(cache, "c0ffee\n");
  fs::remove_all(cache);
  make_cached(cache, "c0ffee");
  make_cached(cache, "beef01", "v2");
  EXPECT_THAT(locate("openai/gpt-oss-20b").directory.string(), HasSubstr("c0ffee"));
  options_.revision = "v2";
  EXPECT_THAT(locate("openai/gpt-oss-20b").directory.string(), HasSubstr("beef01"));
  options_.revision = "c0ffee";
  EXPECT_THAT(locate("openai/gpt-oss-20b").directory.string(), HasSubstr("c0ffee"));
  options_.revision = "v3";
  EXPECT_THAT(failure("openai/gpt-oss-20b").what(), HasSubstr("not found"));
}

TEST_F(ModelLocator, AnUnfinishedDownloadIsNotFound) {
  options_.environment.home = root_.string();
  write(root_ / ".cache/huggingface/hub/models--openai--gpt-oss-20b/refs/main", "c0ffee");
  EXPECT_EQ(failure("openai/gpt-oss-20b").exit_code(), kExitModel);
}

TEST_F(ModelLocator, ModelsDirHoldsFullOrShortNames) {
  options_.models_dir = (root_ / "models").string();
  const fs::path shortened = make_model(root_ / "models/gpt-oss-20b");
  EXPECT_EQ(locate("openai/gpt-oss-20b").directory, shortened);
  const fs::path full = make_model(root_ / "models/openai/gpt-oss-20b");
  EXPECT_EQ(locate("openai/gpt-oss-20b").directory, full);
}

TEST_F(ModelLocator, MissingModelsSayWhereAndHow) {
  options_.environment.home = root_.string();
  const StartupError error = failure("openai/gpt-oss-20b");
  EXPECT_EQ(error.exit_code(), kExitModel);
  EXPECT_THAT(error.what(), HasSubstr("model openai/gpt-oss-20b not found; searched:"));
  EXPECT_THAT(error.what(), HasSubstr((root_ / ".cache/huggingface/hub").string()));
  EXPECT_THAT(error.hint(), HasSubstr("hf download openai/gpt-oss-20b"));
}

TEST_F(ModelLocator, NamesNeverLeaveTheCache) {
  options_.environment.hf_hub_cache = (root_ / "cache").string();
  options_.models_dir = (root_ / "models").string();
  make_model(root_ / "secret");
  fs::create_directories(root_ / "models");
  for (const char* name : {"../secret", "x/../../secret", "..", "a/b/c", "a//b"})
    EXPECT_EQ(failure(name).exit_code(), kExitModel) << name;
}

TEST_F(ModelLocator, TheEmbeddedModelIsBesideTheProgram) {
  EXPECT_THAT(failure("").what(), HasSubstr("strata-tiny"));
  const fs::path installed = make_model(root_ / "share/strata/models/strata-tiny");
  EXPECT_EQ(locate("").directory, installed);
  const fs::path beside = make_model(root_ / "bin/models/strata-tiny");
  EXPECT_EQ(locate("").directory, beside);
  EXPECT_EQ(locate("").name, "strata-tiny");
  EXPECT_EQ(locate("strata-tiny").directory, beside);
}

}  // namespace
}  // namespace strata::app
