#include "kernels/decode_layers.h"

#ifndef CARAVAN_CUDA

namespace caravan {

struct DecodeLayers::Memory {};

std::unique_ptr<DecodeLayers> DecodeLayers::make(const Exec&, const DecodeShape&, const std::vector<DecodeLayer>&) {
  return nullptr;
}
DecodeLayers::~DecodeLayers() = default;
void DecodeLayers::run(const Exec&, const DecodeStep&) {}
size_t DecodeLayers::bytes() const { return 0; }

}  // namespace caravan

#endif
