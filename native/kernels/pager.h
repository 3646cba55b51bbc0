// Pinned host memory, and the copies between it and a GPU that run beside the kernels: what is too large to stay on the
// device is fetched into one of a few slots, worked on there, and stored back, while the next slot is being fetched.
#pragma once

#include <cstddef>
#include <memory>

#include "kernels/exec.h"

namespace caravan {

/// Zeroed host memory which a GPU copies from and to at the full speed of its link. Plain allocations; no page of it is
/// ever moved by the driver.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  /// @throws EngineError out_of_memory, naming the size.
  explicit PinnedBuffer(size_t bytes);
  ~PinnedBuffer();
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;

  char* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  char* data_ = nullptr;
  size_t bytes_ = 0;
};

/// One use of a slot: begin, fetch..., ready, the kernels, done, store..., stored. Nothing waits on the host but `wait`.
class Pager {
 public:
  static constexpr int slots = 3;

  explicit Pager(const Exec& exec);
  ~Pager();
  Pager(const Pager&) = delete;
  Pager& operator=(const Pager&) = delete;

  /// What is fetched from here on comes after the slot's last stores.
  void begin(int slot);
  void fetch(void* device, const void* host, size_t bytes);
  /// Kernels that are enqueued from here on come after the slot's fetches.
  void ready(int slot);
  /// What is stored from here on comes after those kernels.
  void done(int slot);
  void store(void* host, const void* device, size_t bytes);
  void stored(int slot);
  /// Returns when everything lies in host memory.
  void wait();

 private:
  struct Streams;
  std::unique_ptr<Streams> streams_;
};

}  // namespace caravan
