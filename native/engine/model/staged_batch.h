// Brings the tokens of a pass, which are made on the host, to the device that it runs on.
#pragma once

#include "engine/model/head.h"

namespace caravan {

/// On the CPU everything stays where it is. A view is good until the next of its kind.
class StagedBatch {
 public:
  Tokens tokens(const Exec& exec, const Tokens& host);
  Targets targets(const Exec& exec, const Targets& host);
  /// (count) numbers of rows.
  const int32_t* rows(const Exec& exec, const int32_t* host, int64_t count);

  size_t bytes() const;

 private:
  DeviceBuffer ids_;
  DeviceBuffer position_;
  DeviceBuffer conversation_;
  DeviceBuffer valid_;
  DeviceBuffer cu_seqlens_;
  DeviceBuffer target_rows_;
  DeviceBuffer target_ids_;
  DeviceBuffer rows_;
};

}  // namespace caravan
