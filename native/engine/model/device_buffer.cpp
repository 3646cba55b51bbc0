#include "engine/model/device_buffer.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <string>

#include "engine/platform/memory.h"
#include "kernels/transfer.h"

namespace caravan {

namespace {

constexpr size_t alignment = 64;
constexpr size_t smallest_chunk = size_t{1} << 20;

/// So that what happens where memory ends can be tried anywhere: CARAVAN_MEMORY_LIMIT_MIB limits all buffers together.
size_t memory_limit() {
  static const char* const text = std::getenv("CARAVAN_MEMORY_LIMIT_MIB");
  static const size_t limit = text == nullptr ? 0 : static_cast<size_t>(std::strtoull(text, nullptr, 10)) << 20;
  return limit;
}

std::atomic<size_t> held_bytes{0};

/// A buffer's share of the limit, given back unless the buffer comes to be.
class Share {
 public:
  explicit Share(size_t bytes) : bytes_(bytes) {
    const size_t held = held_bytes.fetch_add(bytes) + bytes;
    if (memory_limit() == 0 || held <= memory_limit()) return;
    held_bytes.fetch_sub(bytes);
    throw EngineError("out_of_memory", "a buffer of " + std::to_string(bytes) + " bytes would exceed the limit of " +
                                           std::to_string(memory_limit()) +
                                           " bytes that CARAVAN_MEMORY_LIMIT_MIB sets; lower microBatchSize or seqLen");
  }
  ~Share() { held_bytes.fetch_sub(bytes_); }
  void keep() { bytes_ = 0; }

 private:
  size_t bytes_;
};

size_t round_up(size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

}  // namespace

DeviceBuffer::DeviceBuffer(Device device, size_t bytes) : bytes_(bytes), device_(device) {
  if (bytes == 0) return;
  Share share(bytes);
  if (device == Device::cuda) {
    memory_ = cuda_allocate(bytes);
    data_ = static_cast<char*>(memory_);
    share.keep();
    return;
  }
  // Small buffers share the heap's pages; large ones come as pages that nobody has touched.
  void* memory = bytes >= smallest_chunk ? map_pages(bytes) : std::calloc(1, bytes + alignment);
  if (memory == nullptr) {
    throw EngineError("out_of_memory", "no memory for a buffer of " + std::to_string(bytes) +
                                           " bytes; close other programs, or lower microBatchSize or seqLen");
  }
  share.keep();
  memory_ = memory;
  const uintptr_t address = reinterpret_cast<uintptr_t>(memory);
  data_ = reinterpret_cast<char*>((address + alignment - 1) / alignment * alignment);
}

DeviceBuffer::~DeviceBuffer() {
  if (memory_ == nullptr) return;
  held_bytes.fetch_sub(bytes_);
  if (device_ == Device::cuda) {
    cuda_free(memory_);
  } else if (bytes_ >= smallest_chunk) {
    unmap_pages(memory_, bytes_);
  } else {
    std::free(memory_);
  }
}

BufferPool::BufferPool(Device device, size_t bytes) : device_(device) {
  if (device == Device::cuda) whole_ = std::make_shared<const DeviceBuffer>(device, bytes);
}

DeviceBuffer BufferPool::take(size_t bytes) {
  if (!whole_ || used_ + bytes > whole_->bytes()) return DeviceBuffer(device_, bytes);
  DeviceBuffer part;
  part.pool_ = whole_;
  part.data_ = whole_->data() + used_;
  part.bytes_ = bytes;
  part.device_ = device_;
  used_ += padded(bytes);
  return part;
}

DeviceBuffer move_to_device(const Exec& exec, DeviceBuffer host, BufferPool& pool) {
  if (exec.device == Device::cpu) return host;
  DeviceBuffer buffer = pool.take(host.bytes());
  upload(exec, buffer.data(), host.data(), host.bytes());
  return buffer;
}

Arena::Arena(Device device, size_t bytes) : device_(device), measuring_(false) {
  if (bytes > 0) chunks_.emplace_back(device, round_up(bytes));
}

size_t Arena::capacity() const {
  size_t total = 0;
  for (const DeviceBuffer& chunk : chunks_) total += chunk.bytes();
  return total;
}

void* Arena::take_bytes(size_t bytes) {
  bytes = round_up(std::max<size_t>(bytes, 1));
  at_.total += bytes;
  peak_ = std::max(peak_, at_.total);
  if (measuring_) return nullptr;
  while (at_.chunk < chunks_.size() && at_.used + bytes > chunks_[at_.chunk].bytes()) {
    ++at_.chunk;
    at_.used = 0;
  }
  if (at_.chunk == chunks_.size()) chunks_.emplace_back(device_, std::max(bytes, smallest_chunk));
  void* memory = chunks_[at_.chunk].data() + at_.used;
  at_.used += bytes;
  return memory;
}

}  // namespace caravan
