// What CPU kernels share: numbered tasks over the threads, and working memory that outlives a call.
#pragma once

#include <cstdint>
#include <functional>

#include "kernels/exec.h"

namespace caravan::cpu {

/// task(i) for i in [0, tasks), begun in that order by whichever thread is free.
void run_tasks(const Exec& exec, int64_t tasks, const std::function<void(int64_t)>& task);

/// `task`: of one task; `call`: of the kernel's calling thread, shared by its tasks.
enum class Scratch : uint8_t { task, call };
/// At least `floats` of memory, 64-byte aligned, contents undefined; owned by the calling thread and valid until it asks
/// for the same use again.
float* scratch(Scratch use, int64_t floats);

}  // namespace caravan::cpu
