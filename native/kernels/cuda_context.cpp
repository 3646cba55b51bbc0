#include "kernels/cuda_context.h"

#include "kernels/dispatch.h"

#ifndef CARAVAN_CUDA

namespace caravan {

std::shared_ptr<cuda::Context> make_cuda_context(int) { throw_cuda_unavailable("device cuda"); }

}  // namespace caravan

#endif
