#include "engine/platform/memory.h"

#include <fstream>
#include <string>

#ifdef _WIN32
#include <windows.h>

#include <psapi.h>
#else
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#endif
#ifdef __APPLE__
#include <mach/mach.h>
#include <sys/sysctl.h>
#endif

namespace caravan {

#ifdef _WIN32

void* map_pages(size_t bytes) { return VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE); }

void unmap_pages(void* memory, size_t) { VirtualFree(memory, 0, MEM_RELEASE); }

void read_mapped_pages(const void*, size_t) {}

void drop_mapped_pages(const void*, size_t) {}  // the system trims a working set by itself

int64_t peak_resident_bytes() {
  PROCESS_MEMORY_COUNTERS counters{};
  GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters);
  return static_cast<int64_t>(counters.PeakWorkingSetSize);
}

SystemMemory system_memory() {
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof status;
  if (!GlobalMemoryStatusEx(&status)) return {};
  return {static_cast<int64_t>(status.ullTotalPhys), static_cast<int64_t>(status.ullAvailPhys)};
}

#else

void* map_pages(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

void unmap_pages(void* memory, size_t bytes) { munmap(memory, bytes); }

void read_mapped_pages(const void* begin, size_t bytes) {
#ifdef MADV_POPULATE_READ
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t start = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = start / page * page;
  // Where the kernel (before Linux 5.14) or the file system cannot, each page comes when it is read.
  madvise(reinterpret_cast<void*>(first), start + bytes - first, MADV_POPULATE_READ);
#else
  (void)begin, (void)bytes;
#endif
}

void drop_mapped_pages(const void* begin, size_t bytes) {
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t start = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = (start + page - 1) / page * page, last = (start + bytes) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  return static_cast<int64_t>(usage.ru_maxrss);  // bytes there, KiB elsewhere
#else
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
#endif
}

#ifdef __APPLE__

SystemMemory system_memory() {
  SystemMemory memory;
  size_t size = sizeof memory.total_bytes;
  sysctlbyname("hw.memsize", &memory.total_bytes, &size, nullptr, 0);
  vm_statistics64_data_t pages{};
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  if (host_statistics64(mach_host_self(), HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&pages), &count) ==
      KERN_SUCCESS) {
    memory.free_bytes = (static_cast<int64_t>(pages.free_count) + pages.inactive_count) * sysconf(_SC_PAGESIZE);
  }
  return memory;
}

#else

SystemMemory system_memory() {
  SystemMemory memory;
  memory.total_bytes = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  std::ifstream file("/proc/meminfo");
  std::string label;
  for (int64_t kib = 0; file >> label >> kib; file.ignore(64, '\n')) {
    if (label == "MemAvailable:") memory.free_bytes = kib * 1024;
  }
  return memory;
}

#endif

#endif

}  // namespace caravan
