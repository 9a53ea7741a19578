#include "weights/shard_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/fault.h"
#include "base/result.h"

namespace strata::weights {
namespace {

// Linux transfers at most 0x7ffff000 bytes a call.
constexpr std::size_t kMaxReadBytes = std::size_t{1} << 30;

[[noreturn]] void fail_system(const std::string& file, std::string_view action, int error) {
  throw StartupError(fmt::format("{}: cannot {}: {}", file, action, std::strerror(error)));
}

}  // namespace

ShardFile::ShardFile(const std::filesystem::path& path) : name_(path.string()) {
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) fail_system(name_, "open", errno);
  struct stat info {};
  const bool known = ::fstat(fd_, &info) == 0;
  if (!known || !S_ISREG(info.st_mode)) {
    const int error = known ? EINVAL : errno;
    ::close(fd_);
    fail_system(name_, "read as a regular file", error);
  }
  bytes_ = static_cast<std::uint64_t>(info.st_size);
  ::posix_fadvise(fd_, 0, 0, POSIX_FADV_SEQUENTIAL);
}

ShardFile::~ShardFile() { ::close(fd_); }

std::vector<TensorEntry> ShardFile::read_header() const {
  std::string prefix(std::min(bytes_, kHeaderLengthBytes), '\0');
  read(0, std::as_writable_bytes(std::span(prefix)), {});
  const std::uint64_t length = parse_header_length(prefix, bytes_, name_);
  std::string json(length, '\0');
  read(kHeaderLengthBytes, std::as_writable_bytes(std::span(json)), {});
  return parse_header(json, bytes_, name_);
}

void ShardFile::read(std::uint64_t offset, std::span<std::byte> dst,
                     std::string_view tensor) const {
  while (!dst.empty()) {
    ssize_t got = 0;
    int error = EIO;
    if (fault::at("weights.read") != fault::Action::kNone) {
      got = -1;
    } else if (fault::at("weights.short_read") == fault::Action::kNone) {
      got =
          ::pread(fd_, dst.data(), std::min(dst.size(), kMaxReadBytes), static_cast<off_t>(offset));
      error = errno;
    }
    if (got < 0 && error == EINTR) continue;
    if (got < 0) fail_at(name_, tensor, offset, fmt::format("read: {}", std::strerror(error)));
    if (got == 0)
      fail_at(name_, tensor, offset, fmt::format("the file ends {} bytes too early", dst.size()),
              "The file was cut short while it was being read.");
    dst = dst.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
}

void ShardFile::drop_cache(std::uint64_t offset, std::uint64_t bytes) const {
  ::posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
}

void FileTensorSource::read(std::size_t offset, std::span<std::byte> dst) const {
  STRATA_CHECK(offset <= entry_.bytes && dst.size() <= entry_.bytes - offset, "{}: {} + {} of {}",
               entry_.name, offset, dst.size(), entry_.bytes);
  file_.read(entry_.begin + offset, dst, entry_.name);
}

std::string read_text_file(const std::filesystem::path& path, std::uint64_t most) {
  const ShardFile file(path);
  if (file.bytes() > most)
    throw StartupError(
        fmt::format("{}: is {} bytes, at most {} are read", file.name(), file.bytes(), most));
  std::string text(file.bytes(), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)), {});
  return text;
}

}  // namespace strata::weights
