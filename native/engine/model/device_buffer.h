// Memory of one device, and the arena from which a micro-batch's tensors are cut without an allocation per operation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/exec.h"

namespace caravan {

/// Owns `bytes` of a device's memory, 64-byte aligned and zeroed. On the CPU large buffers come as untouched pages, so what is
/// never written costs nothing.
class BufferPool;

class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  /// @throws EngineError out_of_memory, naming the size.
  DeviceBuffer(Device device, size_t bytes);
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    DeviceBuffer moved(std::move(other));
    swap(moved);
    return *this;
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer();

  static DeviceBuffer of(Device device, DType dtype, int64_t count) {
    return DeviceBuffer(device, static_cast<size_t>(count) * size_of(dtype));
  }

  size_t bytes() const { return bytes_; }
  char* data() const { return data_; }
  Ptr ptr(DType dtype) const { return {data_, dtype}; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  void swap(DeviceBuffer& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(device_, other.device_);
    std::swap(pool_, other.pool_);
  }
  friend class BufferPool;
  void* memory_ = nullptr;  // as allocated; null where it is part of a pool
  char* data_ = nullptr;    // aligned
  size_t bytes_ = 0;
  Device device_ = Device::cpu;
  std::shared_ptr<const DeviceBuffer> pool_;  // kept while a part of it is
};

/// Cuts buffers from one allocation of a GPU's memory, whose own pieces come in units of 2 MiB. On the CPU, and beyond what
/// was asked for, each buffer is an allocation of its own.
class BufferPool {
 public:
  /// `bytes`: the sum of padded() sizes.
  BufferPool(Device device, size_t bytes);
  DeviceBuffer take(size_t bytes);
  static size_t padded(size_t bytes) { return (bytes + 255) / 256 * 256; }

 private:
  Device device_;
  std::shared_ptr<const DeviceBuffer> whole_;
  size_t used_ = 0;
};

/// What lies in host memory, where `exec` computes, in a buffer of the pool: moved on the CPU, else copied.
DeviceBuffer move_to_device(const Exec& exec, DeviceBuffer host, BufferPool& pool);

/// A bump allocator. It is made as large as the plan says; should the plan be short, it grows by another buffer and
/// keeps it. Scopes nest: what is cut after a mark is given back together. An arena that measures hands out null and
/// only counts, so that the memory plan and the run share the code that cuts.
class Arena {
 public:
  struct Mark {
    size_t chunk = 0;
    size_t used = 0;
    size_t total = 0;
  };

  static Arena measuring() { return Arena(); }
  Arena(Device device, size_t bytes);

  /// `count` elements, 64-byte aligned, contents undefined. @throws EngineError out_of_memory.
  Ptr take(DType dtype, int64_t count) { return {take_bytes(static_cast<size_t>(count) * size_of(dtype)), dtype}; }
  template <typename T>
  T* take(int64_t count) {
    return static_cast<T*>(take_bytes(static_cast<size_t>(count) * sizeof(T)));
  }

  Mark mark() const { return at_; }
  void release(const Mark& mark) { at_ = mark; }
  /// Largest number of bytes that were cut at one time.
  size_t peak() const { return peak_; }
  /// Bytes held.
  size_t capacity() const;

 private:
  Arena() = default;
  void* take_bytes(size_t bytes);
  Device device_ = Device::cpu;
  bool measuring_ = true;
  std::vector<DeviceBuffer> chunks_;
  Mark at_;
  size_t peak_ = 0;
};

/// Gives back at the end of a scope what was cut inside it.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace caravan
