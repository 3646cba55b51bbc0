// XXH64 (Yann Collet's xxHash, 64 bits, specification 0.2.0): a fast hash of bytes that keeps no secret.
#pragma once

#include <cstddef>
#include <cstdint>

namespace caravan {

/// The same on every machine, whatever its byte order.
uint64_t xxh64(const void* bytes, size_t size, uint64_t seed = 0);

}  // namespace caravan
