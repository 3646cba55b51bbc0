#include "engine/infer/kv_cache.h"

#include <algorithm>

#include "engine/platform/error.h"
#include "kernels/transfer.h"

namespace caravan {

namespace {

constexpr int64_t block_positions = 256;

}  // namespace

KvCache::KvCache(const Exec& exec, const ModelConfig& config, DType dtype, int64_t limit)
    : exec_(exec),
      dtype_(dtype),
      row_size_(config.kv_size()),
      limit_(limit),
      layers_(static_cast<size_t>(config.num_layers)) {}

DeviceBuffer KvCache::grown(const DeviceBuffer& old, int64_t positions, int64_t used) const {
  DeviceBuffer buffer = DeviceBuffer::of(exec_.device, dtype_, positions * row_size_);
  copy_bytes(exec_, buffer.data(), old.data(), static_cast<size_t>(used * row_size_) * size_of(dtype_));
  return buffer;
}

void KvCache::reserve(int64_t positions, int64_t used) {
  if (positions <= capacity_) return;
  if (positions > limit_) {
    throw EngineError("internal", "a cache of " + std::to_string(positions) + " positions was asked for, but only " +
                                      std::to_string(limit_) + " may be used");
  }
  const int64_t capacity = std::min(limit_, (positions + block_positions - 1) / block_positions * block_positions);
  // Layer by layer, so that old and new stand beside each other for one layer alone. Should memory end on the way, the
  // layers done are larger than they need to be and nothing is lost.
  for (LayerCache& layer : layers_) {
    DeviceBuffer keys = grown(layer.keys, capacity, used), values = grown(layer.values, capacity, used);
    synchronize(exec_);  // the old ones are read until then
    layer.keys = std::move(keys);
    layer.values = std::move(values);
  }
  capacity_ = capacity;
}

size_t KvCache::bytes() const {
  size_t total = 0;
  for (const LayerCache& layer : layers_) total += layer.keys.bytes() + layer.values.bytes();
  return total;
}

}  // namespace caravan
