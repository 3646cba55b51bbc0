// A CUDA device made ready for kernels, seen from code that knows no CUDA.
#pragma once

#include <memory>

#include "kernels/exec.h"

namespace caravan {

/// Stream, libraries and workspace of one device; one per engine and thread that enqueues.
/// @throws EngineError cuda_unavailable, saying what is missing (driver, device, an architecture this build holds), what
/// was found and what is needed.
std::shared_ptr<cuda::Context> make_cuda_context(int device = 0);

}  // namespace caravan
