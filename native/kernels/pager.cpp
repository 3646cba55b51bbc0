#include "kernels/pager.h"

#include "kernels/dispatch.h"

#ifndef CARAVAN_CUDA

namespace caravan {

struct Pager::Streams {};

PinnedBuffer::PinnedBuffer(size_t) { throw_cuda_unavailable("PinnedBuffer"); }
PinnedBuffer::~PinnedBuffer() = default;
Pager::Pager(const Exec&) { throw_cuda_unavailable("Pager"); }
Pager::~Pager() = default;
void Pager::begin(int) {}
void Pager::fetch(void*, const void*, size_t) {}
void Pager::ready(int) {}
void Pager::done(int) {}
void Pager::store(void*, const void*, size_t) {}
void Pager::stored(int) {}
void Pager::wait() {}

}  // namespace caravan

#endif
