#include "kernels/nf4.h"

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(nf4_dequantize)

void nf4_dequantize(const Exec& exec, Ptr out, const Nf4View& weight) {
  CARAVAN_DISPATCH(nf4_dequantize, exec, out, weight);
}

}  // namespace caravan
