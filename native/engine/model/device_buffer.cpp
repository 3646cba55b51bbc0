#include "engine/model/device_buffer.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "engine/platform/memory.h"
#include "kernels/transfer.h"

namespace caravan {

namespace {

constexpr size_t alignment = 64;
constexpr size_t smallest_chunk = size_t{1} << 20;

size_t round_up(size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

}  // namespace

DeviceBuffer::DeviceBuffer(Device device, size_t bytes) : bytes_(bytes), device_(device) {
  if (bytes == 0) return;
  if (device == Device::cuda) {
    memory_ = cuda_allocate(bytes);
    data_ = static_cast<char*>(memory_);
    return;
  }
  // Small buffers share the heap's pages; large ones come as pages that nobody has touched.
  void* memory = bytes >= smallest_chunk ? map_pages(bytes) : std::calloc(1, bytes + alignment);
  if (memory == nullptr) {
    bytes_ = 0;
    throw EngineError("out_of_memory", "no memory for a buffer of " + std::to_string(bytes) +
                                           " bytes; close other programs, or lower microBatchSize or seqLen");
  }
  memory_ = memory;
  const uintptr_t address = reinterpret_cast<uintptr_t>(memory);
  data_ = reinterpret_cast<char*>((address + alignment - 1) / alignment * alignment);
}

DeviceBuffer::~DeviceBuffer() {
  if (memory_ == nullptr) return;
  if (device_ == Device::cuda) {
    cuda_free(memory_);
  } else if (bytes_ >= smallest_chunk) {
    unmap_pages(memory_, bytes_);
  } else {
    std::free(memory_);
  }
}

DeviceBuffer move_to_device(const Exec& exec, DeviceBuffer host) {
  if (exec.device == Device::cpu) return host;
  DeviceBuffer buffer(exec.device, host.bytes());
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
