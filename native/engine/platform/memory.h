// What the engine asks of the operating system about memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace caravan {

/// Zeroed, page-aligned memory that costs nothing until it is touched; null when there is none.
void* map_pages(size_t bytes);
void unmap_pages(void* memory, size_t bytes);

/// Largest resident size of this process so far.
int64_t peak_resident_bytes();

}  // namespace caravan
