#include "engine/infer/rounded_set.h"

#include "kernels/activation.h"
#include "kernels/transfer.h"

namespace caravan {

std::shared_ptr<TrainableSet> round_for_bf16(const Exec& exec, const ModelConfig& config,
                                             std::shared_ptr<TrainableSet> set) {
  if (set->dtype() == DType::bf16) return set;
  auto rounded = std::make_shared<TrainableSet>(set->device(), config, set->method(), DType::bf16, DType::f32);
  for (const Parameter& from : set->parameters()) {
    convert(exec, rounded->find(from.name)->value, from.value, from.count);
  }
  synchronize(exec);  // before `set` may go
  return rounded;
}

}  // namespace caravan
