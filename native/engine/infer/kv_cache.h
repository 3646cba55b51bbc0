// Keys and values of one conversation, layer by layer: (positions, kv heads, head size), contiguous, keys rotated.
#pragma once

#include <vector>

#include "engine/model/device_buffer.h"
#include "engine/model/model_config.h"

namespace caravan {

class KvCache {
 public:
  /// `limit`: the most positions it may hold.
  KvCache(const Exec& exec, const ModelConfig& config, DType dtype, int64_t limit);

  /// Makes room for `positions` in all, in whole blocks, and keeps the first `used` of them.
  /// @throws EngineError out_of_memory; what was there then still is
  void reserve(int64_t positions, int64_t used);

  Ptr keys(int64_t layer) const { return layers_[static_cast<size_t>(layer)].keys.ptr(dtype_); }
  Ptr values(int64_t layer) const { return layers_[static_cast<size_t>(layer)].values.ptr(dtype_); }
  int64_t row_size() const { return row_size_; }  // elements of one position's keys in one layer
  int64_t capacity() const { return capacity_; }
  size_t bytes() const;

 private:
  struct LayerCache {
    DeviceBuffer keys;
    DeviceBuffer values;
  };
  DeviceBuffer grown(const DeviceBuffer& old, int64_t positions, int64_t used) const;

  Exec exec_;
  DType dtype_;
  int64_t row_size_;
  int64_t limit_;
  int64_t capacity_ = 0;
  std::vector<LayerCache> layers_;
};

}  // namespace caravan
