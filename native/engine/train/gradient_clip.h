// The global norm of a step's gradients, and the factor that clips them, without waiting for the device.
#pragma once

#include "engine/model/trainable_set.h"

namespace caravan {

class GradientClip {
 public:
  explicit GradientClip(Device device) : found_(device, sizeof(Found)) {}

  /// Enqueues the norm of the set's gradients, summed in the set's order in fp64. Returns what AdamW multiplies gradients
  /// by, in device memory: min(1, max_norm / norm), 1 where max_norm is 0; NaN, which updates nothing, where the norm or
  /// `losses` (a sum over the step's losses, device memory) is not finite.
  const float* measure(const Exec& exec, const TrainableSet& set, const double* losses, float max_norm);
  /// Of the last measure. Waits for it.
  double norm(const Exec& exec) const;

 private:
  struct Found {
    double squared;
    double norm;
    float scale;
  };
  DeviceBuffer found_;
};

/// The norm of the set's gradients alone. Waits for it.
double gradient_norm(const Exec& exec, const TrainableSet& set);

}  // namespace caravan
