#include "engine/platform/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "engine/platform/error.h"

namespace caravan {

namespace {

std::string reason(int error) { return std::strerror(error); }

/// ENOSPC and quota are the machine's lack, everything else a bad path.
[[noreturn]] void fail_write(const std::string& path, int error, uint64_t written) {
  if (error == ENOSPC || error == EDQUOT)
    throw EngineError("disk_full", path + ": the disk is full after " + std::to_string(written) +
                                       " bytes; free some space and resume");
  throw EngineError("bad_file", path + ": cannot be written: " + reason(error));
}

}  // namespace

MappedFile MappedFile::open(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw EngineError("bad_file", path + ": cannot be opened: " + reason(errno));
  struct stat info {};
  if (fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(file);
    throw EngineError("bad_file", path + ": is not a file");
  }
  MappedFile mapped;
  mapped.size_ = static_cast<size_t>(info.st_size);
  if (mapped.size_ > 0) {
    void* data = mmap(nullptr, mapped.size_, PROT_READ, MAP_PRIVATE, file, 0);
    const int error = errno;
    ::close(file);
    if (data == MAP_FAILED) throw EngineError("bad_file", path + ": cannot be mapped: " + reason(error));
    mapped.data_ = static_cast<const std::byte*>(data);
  } else {
    ::close(file);
  }
  return mapped;
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<std::byte*>(data_), size_);
}

FileWriter::FileWriter(std::string path) : path_(std::move(path)) {
  file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file_ < 0) fail(errno);
}

FileWriter::~FileWriter() {
  if (file_ >= 0) ::close(file_);
}

void FileWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(file_, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      fail(errno);
    }
    written_ += static_cast<uint64_t>(n);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void FileWriter::sync_and_close() {
  if (fsync(file_) != 0) fail(errno);
  const int file = std::exchange(file_, -1);
  if (::close(file) != 0) fail(errno);
}

void FileWriter::fail(int error) const { fail_write(path_, error, written_); }

void sync_directory(const std::string& path) {
  const int folder = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) throw EngineError("bad_file", path + ": cannot be opened: " + reason(errno));
  const int failed = fsync(folder) != 0 ? errno : 0;
  ::close(folder);
  // Some file systems refuse to sync folders; their renames are durable on their own terms.
  if (failed != 0 && failed != EINVAL && failed != EROFS) fail_write(path, failed, 0);
}

void rename_path(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) fail_write(to, errno, 0);
}

uint64_t free_disk_bytes(const std::string& path) {
  struct statvfs info {};
  if (statvfs(path.c_str(), &info) != 0) throw EngineError("bad_file", path + ": " + reason(errno));
  return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
}

int process_id() { return static_cast<int>(getpid()); }

}  // namespace caravan
