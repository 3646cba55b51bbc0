// What the engine asks of the operating system about files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace caravan {

/// A file mapped read-only. Moves, does not copy.
class MappedFile {
 public:
  /// @throws EngineError bad_file when it cannot be opened or mapped; an empty file maps to no bytes.
  static MappedFile open(const std::string& path);
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept { swap(other); }
  MappedFile& operator=(MappedFile&& other) noexcept {
    swap(other);
    return *this;
  }
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  void swap(MappedFile& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// Writes a new file front to back. Every write and the close are checked: a full disk may be told late.
class FileWriter {
 public:
  /// @throws EngineError disk_full or bad_file, naming the path.
  explicit FileWriter(std::string path);
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  ~FileWriter();

  void write(std::span<const std::byte> bytes);
  /// Flushes to the disk itself and closes.
  void sync_and_close();
  uint64_t written() const { return written_; }

 private:
  [[noreturn]] void fail(int error) const;
  std::string path_;
  int file_ = -1;
  uint64_t written_ = 0;
};

/// Makes a folder's entries (new names, renames) durable.
void sync_directory(const std::string& path);
/// Renames within one file system, replacing an existing file.
void rename_path(const std::string& from, const std::string& to);
/// Bytes that this user may still write there.
uint64_t free_disk_bytes(const std::string& path);
int process_id();

}  // namespace caravan
