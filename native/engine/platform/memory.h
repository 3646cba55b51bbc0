// What the engine asks of the operating system about memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace caravan {

/// Zeroed, page-aligned memory that costs nothing until it is touched; null when there is none.
void* map_pages(size_t bytes);
void unmap_pages(void* memory, size_t bytes);

struct SystemMemory {
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;  // what programs could still take, caches that can be dropped included
};
SystemMemory system_memory();

/// Largest resident size of this process so far.
int64_t peak_resident_bytes();

}  // namespace caravan
