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

/// Brings the pages of a mapped file in [begin, begin + bytes) into memory at once, which is cheaper than fault by fault.
void read_mapped_pages(const void* begin, size_t bytes);
/// Lets go of the pages of a mapped file that lie wholly in [begin, begin + bytes): they are read anew when they are used.
void drop_mapped_pages(const void* begin, size_t bytes);

}  // namespace caravan
