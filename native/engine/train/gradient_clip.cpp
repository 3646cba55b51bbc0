#include "engine/train/gradient_clip.h"

#include "kernels/optimizer.h"
#include "kernels/transfer.h"

namespace caravan {

const float* GradientClip::measure(const Exec& exec, const TrainableSet& set, const double* losses, float max_norm) {
  Found* found = found_.as<Found>();
  zero_bytes(exec, &found->squared, sizeof found->squared);
  for (const ParameterRun& run : set.runs()) {
    squared_norm_add(exec, &found->squared, set.parameters()[run.first].gradient, run.elements);
  }
  clip_scale(exec, &found->scale, &found->norm, &found->squared, losses, max_norm);
  return &found->scale;
}

double GradientClip::norm(const Exec& exec) const {
  double norm = 0.0;
  download(exec, &norm, &found_.as<Found>()->norm, sizeof norm);
  return norm;
}

double gradient_norm(const Exec& exec, const TrainableSet& set) {
  GradientClip clip(exec.device);
  const DeviceBuffer no_losses(exec.device, sizeof(double));
  clip.measure(exec, set, no_losses.as<double>(), 0.0f);
  return clip.norm(exec);
}

}  // namespace caravan
